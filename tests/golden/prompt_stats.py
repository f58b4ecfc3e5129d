"""Advantages by per-prompt statistics, as ddpo-pytorch's `PerPromptStatTracker` computes them, in f64.

For each unique prompt of a batch, its rewards go into a ring buffer; with fewer than `min_count` entries mean
and deviation are the whole batch's, otherwise the buffer's. Deviations are numpy's plus 1e-6.

Writes `prompt_stats/cases.json`: per case the buffer's numbers and a list of epochs with prompts, rewards
(each exact in f32) and advantages.
"""

import json
import pathlib
from collections import deque

import numpy as np

OUT = pathlib.Path(__file__).parent / "prompt_stats"


def advantages(stats, prompts, rewards, buffer_size, min_count):
    out = np.empty_like(rewards)
    for prompt in np.unique(prompts):
        chosen = prompts == prompt
        buffer = stats.setdefault(prompt, deque(maxlen=buffer_size))
        buffer.extend(rewards[chosen])
        usual = rewards if len(buffer) < min_count else np.array(buffer)
        out[chosen] = (rewards[chosen] - usual.mean()) / (usual.std() + 1e-6)
    return out


def main():
    OUT.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    names = np.array(["cat", "dog", "tench, Tinca tinca", "a monkey washing the dishes"])
    cases = []
    for buffer_size, min_count, batch in ((32, 16, 24), (16, 16, 40), (4, 1, 6)):
        stats, epochs = {}, []
        for _ in range(6):
            # The first prompt comes often, the last hardly ever.
            prompts = names[np.minimum(rng.geometric(0.5, batch) - 1, 3)]
            rewards = rng.normal(-60, 12, batch).astype(np.float32).astype(np.float64)
            made = advantages(stats, prompts, rewards, buffer_size, min_count)
            epochs.append({"prompts": list(prompts), "rewards": list(rewards), "advantages": list(made)})
        cases.append({"buffer_size": buffer_size, "min_count": min_count, "epochs": epochs})
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
