"""Loads an adapter that `cargo run -p ddpo-model --example adapter -- MODEL OUT` saved, as users of diffusers do.

    python tests/golden/_adapter_in_diffusers.py MODEL OUT
"""

import pathlib
import sys

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

model, out = map(pathlib.Path, sys.argv[1:])
pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
given = load_file(out / "unet.safetensors")


def difference():
    with torch.no_grad():
        predicted = pipe.unet(given["x_t"], given["t"], given["cond"]).sample
    return ((predicted - given["output"]).abs().max() / given["output"].abs().max()).item()


without = difference()
pipe.load_lora_weights(out)
beside = difference()
pipe.fuse_lora()
print(f"without {without:.2e}, with the adapter {beside:.2e}, merged {difference():.2e}")
sys.exit(not (without > 1e-2 and beside <= 1e-5))
