"""The committed model of sd_tiny.py in f64, for generators that compute more on it."""

import os
import pathlib

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

FOLDER = pathlib.Path(os.environ["GOLDEN_REPOSITORY"]) / "tests/golden/sd_tiny"


def load():
    made = StableDiffusionPipeline.from_pretrained(FOLDER / "model", torch_dtype=torch.float64)
    for net in (made.unet, made.vae, made.text_encoder):
        net.eval().requires_grad_(False)
    return made


def read(name):
    """A file of sd_tiny, floats in f64."""
    tensors = load_file(FOLDER / name)
    return {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}


def write(path, tensors):
    plain = {k: v.detach().float() if v.is_floating_point() else v for k, v in tensors.items()}
    save_file({k: v.contiguous() for k, v in plain.items()}, path)
