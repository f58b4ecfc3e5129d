"""The shipped pocket model in Python's StableDiffusionPipeline, from given latents and noise.

Reads `crates/ddpo-pocket/assets/model`; writes `pocket/pipeline.safetensors`: `latents` (the initial ones),
`noise` (in the order in which the steps consume it), `images` u8, of the prompts in `pocket/prompts.json`.
Run it again whenever the shipped model changes.
"""

import json
import os
import pathlib

import diffusers.schedulers.scheduling_ddim as scheduling
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
REPOSITORY = pathlib.Path(os.environ.get("GOLDEN_REPOSITORY", HERE.parent.parent))
PROMPTS = ["a cat", "a flat picture of a lion on a blue striped background"]
STEPS, GUIDANCE, ETA = 10, 3.0, 1.0


def main():
    torch.set_num_threads(1)
    pipe = StableDiffusionPipeline.from_pretrained(
        REPOSITORY / "crates/ddpo-pocket/assets/model", torch_dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    shape = (len(PROMPTS), pipe.unet.config.in_channels, 8, 8)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(shape, generator=generator)
    noise = torch.randn((STEPS, *shape), generator=generator)
    # The pipeline offers no argument for the steps' noise: hand it out where the scheduler draws it.
    queue = iter(noise)
    scheduling.randn_tensor = lambda *args, **kwargs: next(queue)
    images = pipe(
        PROMPTS,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        eta=ETA,
        latents=latents,
        height=64,
        width=64,
        output_type="np",
    ).images
    out = HERE / "pocket"
    out.mkdir(exist_ok=True)
    pixels = torch.from_numpy((images * 255).round().astype(np.uint8))
    save_file({"latents": latents, "noise": noise, "images": pixels.contiguous()}, out / "pipeline.safetensors")
    about = {"prompts": PROMPTS, "steps": STEPS, "guidance_scale": GUIDANCE, "eta": ETA}
    (out / "prompts.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
