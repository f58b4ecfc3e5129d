"""Runs the generators in this folder, or checks that the committed files are still what they make.

    python tests/golden/run.py [NAME ...]            regenerate NAME/ (default: all) and manifest.json
    python tests/golden/run.py --check [NAME ...]    regenerate elsewhere and compare; changes nothing
    python tests/golden/run.py --out DIR [NAME ...]  regenerate into DIR; changes nothing here

A generator `NAME.py` writes to the folder `NAME/` beside itself. It is run as a copy in a temporary
folder, so that a failure leaves the committed files as they were; it finds other files of the repository
under the environment variable GOLDEN_REPOSITORY. Files are compared as README.md says.
"""

import argparse
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
MANIFEST = HERE / "manifest.json"
COMMAND = "python tests/golden/run.py"
# Another processor or number of threads sums in another order: the largest relative difference allowed
# between regenerated floats, max|a - b| / max|b| over a tensor. The Rust tests compare at 1e-5 or looser.
TOLERANCE = 5e-6


def generators():
    """Every module but this one and those that start with an underscore, which generators share."""
    stems = (path.stem for path in HERE.glob("*.py"))
    return sorted(stem for stem in stems if stem != "run" and not stem.startswith("_"))


def generate(names, folder):
    """Runs copies of the generators in `folder`; `folder/NAME/` is then what each of them wrote."""
    for script in HERE.glob("*.py"):
        shutil.copy(script, folder)
    for name in names:
        print(f"golden: {name}", file=sys.stderr)
        environment = {**os.environ, "GOLDEN_REPOSITORY": str(HERE.parents[1])}
        command = [sys.executable, str(folder / f"{name}.py")]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        if not files(folder / name):
            sys.exit(f"golden: {name}.py wrote nothing to {name}/")


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions():
    lines = (HERE / "requirements.txt").read_text().splitlines()
    names = [re.split(r"[=<>]", line)[0] for line in lines if line and not line.startswith("#")]
    return {name: importlib.metadata.version(name) for name in names}


def wrong_versions():
    """What is installed in another version than requirements.txt pins."""
    text = (HERE / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.M))
    installed = versions()
    # torch's own index appends the build, as in 2.11.0+cpu.
    return [
        f"{name} is {installed[name]}, pinned to {version}"
        for name, version in pinned.items()
        if installed[name].split("+")[0] != version
    ]


def read_manifest():
    return json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {"files": {}}


def write_manifest(names):
    entries = {}
    for key, entry in read_manifest()["files"].items():
        if entry["generator"] not in names and (HERE / key).exists():
            entries[key] = entry
    for name in names:
        for file in files(HERE / name):
            path = HERE / name / file
            entries[f"{name}/{file}"] = {
                "generator": name,
                "bytes": path.stat().st_size,
                "sha256": digest(path),
            }
    manifest = {
        "command": COMMAND,
        "python": platform.python_version(),
        "packages": versions(),
        "files": dict(sorted(entries.items())),
    }
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n")


def compare_tensors(committed, made):
    from safetensors.torch import load_file

    a, b = load_file(committed), load_file(made)
    if a.keys() != b.keys():
        yield f"tensors differ: {sorted(a.keys() ^ b.keys())}"
        return
    for name, old in a.items():
        new = b[name]
        if old.dtype != new.dtype or old.shape != new.shape:
            yield f"{name}: {old.dtype} {tuple(old.shape)} became {new.dtype} {tuple(new.shape)}"
        elif not old.is_floating_point():
            if not old.equal(new):
                yield f"{name}: {int((old != new).sum())} of {old.numel()} values differ"
        elif old.numel():
            scale = old.double().abs().max().item() or 1.0
            error = (old.double() - new.double()).abs().max().item() / scale
            # Written so that a NaN fails.
            if not error <= TOLERANCE:
                yield f"{name}: relative difference {error:.2e}, allowed {TOLERANCE:.0e}"


def compare_json(a, b, where="$"):
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            yield f"{where}: keys differ: {sorted(a.keys() ^ b.keys())}"
        for key in a.keys() & b.keys():
            yield from compare_json(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield f"{where}: {len(a)} entries became {len(b)}"
        for i, (x, y) in enumerate(zip(a, b)):
            yield from compare_json(x, y, f"{where}[{i}]")
    elif isinstance(a, float) and isinstance(b, float):
        if not (a == b or math.isclose(a, b, rel_tol=TOLERANCE)):
            yield f"{where}: {a!r} became {b!r}"
    elif type(a) is not type(b) or a != b:
        yield f"{where}: {a!r} became {b!r}"


def compare(committed, made):
    if committed.read_bytes() == made.read_bytes():
        return []
    if committed.suffix == ".safetensors":
        return list(compare_tensors(committed, made))
    if committed.suffix == ".json":
        return list(compare_json(json.loads(committed.read_text()), json.loads(made.read_text())))
    return ["bytes differ"]


def check(names, folder):
    """The faults found, one line each."""
    entries = read_manifest()["files"]
    for name in names:
        committed, made = files(HERE / name), files(folder / name)
        for file in sorted({*committed, *made}):
            key = f"{name}/{file}"
            if file not in made:
                yield f"{key}: no longer made"
            elif file not in committed:
                yield f"{key}: made, but not committed"
            elif entries.get(key, {}).get("sha256") != digest(HERE / key):
                yield f"{key}: its hash is not the one in manifest.json"
            else:
                yield from (f"{key}: {fault}" for fault in compare(HERE / key, folder / key))
    for key, entry in entries.items():
        if entry["generator"] in names and not (HERE / key).exists():
            yield f"{key}: in manifest.json, but missing"
        if entry["generator"] not in generators():
            yield f"{key}: its generator {entry['generator']}.py is gone"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true")
    mode.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    names = args.names or generators()
    for name in names:
        if name not in generators():
            parser.error(f"no generator {name}.py; there are: {', '.join(generators())}")
    if wrong := wrong_versions():
        sys.exit("golden: " + "; ".join(wrong))
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        generate(names, folder)
        if args.check:
            faults = list(check(names, folder))
            print("\n".join(faults) or f"golden: {len(names)} generators give the committed files")
            sys.exit(1 if faults else 0)
        for name in names:
            target = (args.out or HERE) / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder / name, target)
    if not args.out:
        write_manifest(names)


if __name__ == "__main__":
    main()
