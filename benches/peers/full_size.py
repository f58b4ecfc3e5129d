"""Stable Diffusion v1.4 at its own size, ours and diffusers' in turns: time, and peak memory of a LoRA update.

    python tests/full_size/generate.py DIR && python tests/full_size/lora_update.py make DIR
    cargo build -p ddpo-tests --example full_size
    python benches/peers/full_size.py DIR target/debug/examples/full_size [--turns 3]

Each turn is a process of its own on two threads; ours and theirs alternate. The time of all threads on the CPU is
the one to compare on a busy machine. Debug or release makes no difference: the work is libtorch's on both sides.
After updates it prints their lower bound: weights, trajectory, and the activations that the largest segment saves.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20


def run(command):
    env = {**os.environ, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("ours")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--what", nargs="+", default=["forward", "update", "checkpointed"])
    args = parser.parse_args()
    theirs = [sys.executable, str(ROOT / "tests" / "full_size" / "lora_update.py")]
    for what in args.what:
        found = {"ddpo": [], "torch": []}
        for _ in range(args.turns):
            found["ddpo"].append(run([args.ours, what, args.folder]))
            found["torch"].append(run([*theirs, what, args.folder]))
        for who, rows in found.items():
            for row in rows:
                print(json.dumps(row))
            wall, cpu = (statistics.median(row[key] for row in rows) for key in ("wall_s", "cpu_s"))
            peak = max(row["peak"] for row in rows)
            before = max(row["before"] for row in rows)
            print(f"{what}, {who}: wall {wall:.1f} s, cpu {cpu:.1f} s, peak {peak / MIB:.0f} MiB, before {before / MIB:.0f} MiB")

        def ratio(key):
            ours, peer = (statistics.median(row[key] for row in found[who]) for who in ("ddpo", "torch"))
            return ours / peer

        print(f"{what}, ddpo / torch: wall {ratio('wall_s'):.2f}, cpu {ratio('cpu_s'):.2f}, peak {ratio('peak'):.2f}", flush=True)
    if set(args.what) - {"forward"}:
        limit = run([*theirs, "limit", args.folder])
        print(json.dumps(limit))
        print(f"an update, lower bound: {limit['limit'] / MIB:.0f} MiB")


if __name__ == "__main__":
    main()
