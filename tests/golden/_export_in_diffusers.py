"""Trains the small Stable Diffusion a little with `ddpo`, exports it in every format, and has diffusers draw from each.

    cargo build -p ddpo-cli
    python tests/golden/_export_in_diffusers.py target/debug/ddpo

Each export is loaded as users of diffusers load it, and must give the image that `ddpo sample` gives of the
same files from the same noise: every latent to 1e-4 of the largest, every pixel to one step of 255. The model
before training, from the same noise, must not.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).parent.parent.parent
MODEL = ROOT / "tests/golden/sd_tiny/model"
LORA_FILE = "pytorch_lora_weights.safetensors"
PROMPT, N_STEPS, SCALE, ETA = "a cat", 3, 5.0, 1.0
LATENTS, LEVELS = 1e-4, 1
SHORT = ["run.epochs=2", "rl.samples_per_epoch=8", "sampler.n_steps=3", "rl.lr=1e-2"]
FACTORS = ["policy.train=lora", "policy.lora.rank=2", "policy.lora.alpha=3"]  # a reader who ignores alpha is found out


def ddpo(*args):
    subprocess.run([sys.argv[1], *map(str, args)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def trained(out, changes):
    pairs = [f"model.path={MODEL}", *SHORT, *changes]
    ddpo("run", "configs/incompressibility.toml", "--out", out, *(a for pair in pairs for a in ("--set", pair)))


def sampled(model, lora, out):
    """What `ddpo sample` makes of a model, step by step."""
    given = ["--lora", lora / LORA_FILE] if lora else []
    trace = out / "trace.safetensors"
    ddpo("sample", "--model", model, *given, "--prompt", PROMPT, "--steps", N_STEPS, "--guidance", SCALE,
         "--eta", ETA, "--seed", 5, "--trace", trace, "--out", out)
    return load_file(trace)


class Given(DDIMScheduler):
    """Steps with noise that is given instead of drawn."""

    def step(self, eps, t, x, eta=0.0, return_dict=True):  # the pipeline looks for `eta` in the signature
        at = self.timesteps.tolist().index(int(t))
        return super().step(eps, t, x, eta=eta, variance_noise=self.noise[at], return_dict=return_dict)


def drawn(model, lora, trace):
    """The same in diffusers: latents after every step, and the image."""
    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    if lora:
        pipe.load_lora_weights(lora)
    pipe.scheduler = Given.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.scheduler.noise = trace["noise"]
    pipe.set_progress_bar_config(disable=True)
    latents = []

    def keep(_pipe, _step, _t, values):
        latents.append(values["latents"])
        return values

    given = trace["latents"][0]
    done = pipe(PROMPT, num_inference_steps=N_STEPS, guidance_scale=SCALE, eta=ETA, latents=given, output_type="np",
                height=8 * given.shape[2], width=8 * given.shape[3], callback_on_step_end=keep)
    assert pipe.scheduler.timesteps.tolist() == trace["timesteps"].tolist()
    return torch.stack(latents), done.images


def differences(model, lora, trace):
    latents, image = drawn(model, lora, trace)
    expected = trace["latents"][1:]
    levels = numpy.abs(image * 255 - trace["images"].numpy().astype(float)).max()
    return ((latents - expected).abs().max() / expected.abs().max()).item(), levels


def main():
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        trained(folder / "all", [])
        trained(folder / "factors", FACTORS)
        # run, format; the model and the factors that users load from it
        for run, format, has_model, has_factors in [
            ("all", "diffusers", True, False),
            ("factors", "lora", False, True),
            ("factors", "diffusers", True, True),
            ("factors", "merged", True, False),
        ]:
            out = folder / f"{run}-{format}"
            ddpo("export", folder / run, "--format", format, "--out", out)
            model, lora = out if has_model else MODEL, out if has_factors else None
            trace = sampled(model, lora, folder / f"{run}-{format}-images")
            latents, levels = differences(model, lora, trace)
            before, _ = differences(MODEL, None, trace)
            print(f"{run}, {format}: latents {latents:.2e}, pixels {levels:.2f} of 255; before training {before:.2e}")
            fine &= latents <= LATENTS and levels <= LEVELS and before > 100 * LATENTS
    sys.exit(not fine)


if __name__ == "__main__":
    main()
