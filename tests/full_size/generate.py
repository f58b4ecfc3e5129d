"""Stable Diffusion v1.4 at its own size with seeded random weights, and what diffusers computes with them.

    python tests/full_size/generate.py DIR      (packages as in tests/golden/requirements.txt; 5 GB of disk)
    python tests/full_size/generate.py DIR --bf16       after it; a quarter of an hour on two cores without bf16 units

The first writes, outside the repository:
- `DIR/model/`: the layout and the names of `CompVis/stable-diffusion-v1-4` on the hub: attention of the VAE as
  `query`, `key`, `value`, `proj_attn`; text encoder with `text_model.` in front and its `position_ids`
- `DIR/reference.safetensors`: inputs, and outputs in f32; under `small.` the same for latents of 8x8, and under
  `small.bf16.` what bf16 weights make of those
- `DIR/versions.json`: the packages that made it

The second adds `DIR/reference_bf16.safetensors`: under `bf16.` what bf16 weights make of the full inputs, two guided
steps apart. Feature maps are in channels-last layout there, as ours are in the UNet: in torch's own a processor
without bf16 units takes ten times as long.

The networks compute in f32 (or bf16), the sampler between them in f64 tables with f32 latents, as the tests do.
The vocabulary has the size of CLIP's and made-up merges: CLIP's own is no part of any package.
"""

import argparse
import importlib.metadata
import json
import math
import os
import pathlib

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

VOCABULARY, LENGTH = 49408, 77
N_STEPS, SCALE, ETA = 2, 5.0, 1.0
PROMPTS = ["a cat", "two dogs on the moon"]
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
OLD_NAMES = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def randomise(net, generator):
    """Weights that keep the size of what goes through, so that every one of them shows in the output."""
    for name, weight in net.named_parameters():
        values = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            values = 1 + 0.2 * values if name.endswith("weight") else 0.1 * values
        elif "embedding.weight" not in name:
            values /= math.sqrt(weight[0].numel())
        weight.data.copy_(values)
    return net.eval().requires_grad_(False)


def tokenizer(folder):
    """As many tokens as CLIP has: single bytes, pairs of them, and the two special ones."""
    folder.mkdir(parents=True)
    bytes_ = list(bytes_to_unicode().values())
    pieces = bytes_ + [b + "</w>" for b in bytes_]
    pairs = [(a, b) for a in bytes_ for b in bytes_][: VOCABULARY - len(pieces) - 2]
    tokens = [*pieces, *(a + b for a, b in pairs), "<|startoftext|>", "<|endoftext|>"]
    special = {"bos_token": "<|startoftext|>", **dict.fromkeys(["eos_token", "pad_token", "unk_token"], "<|endoftext|>")}

    def write(name, value):
        (folder / name).write_text(json.dumps(value, indent=1) + "\n")

    write("vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, pairs)]) + "\n")
    write("special_tokens_map.json", special)
    write("tokenizer_config.json", {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer", **special})
    return CLIPTokenizer.from_pretrained(folder)


def pipeline(folder, generator):
    """The configurations of `CompVis/stable-diffusion-v1-4`: `*/config.json` there."""
    words = tokenizer(folder / "tokenizer")
    kept = {path: path.read_bytes() for path in (folder / "tokenizer").iterdir()}
    # `unet/config.json` there is diffusers' defaults but for these two.
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    # `text_encoder/config.json` there is transformers' defaults but for these.
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_attention_heads=12,
            projection_dim=768,
            bos_token_id=0,
            eos_token_id=2,
        )
    )
    made = StableDiffusionPipeline(
        unet=randomise(unet, generator),
        vae=randomise(vae, generator),
        text_encoder=randomise(text, generator),
        tokenizer=words,
        scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(folder)
    # transformers 5 writes other files than the hub has.
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)
    as_on_the_hub(folder)
    return made


def as_on_the_hub(folder):
    """Gives VAE and text encoder the names that the hub's files still have."""

    def old(name):
        if ".attentions." not in name:
            return name
        for new, before in OLD_NAMES.items():
            name = name.replace(new, before)
        return name

    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    rewrite(path, {old(name): value for name, value in load_file(path).items()})
    path = folder / "text_encoder" / "model.safetensors"
    tensors = {"text_model." + name.removeprefix("text_model."): value for name, value in load_file(path).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(LENGTH).unsqueeze(0)
    rewrite(path, tensors)


def rewrite(path, tensors):
    # Not over the file itself: the tensors are mapped from it.
    part = path.with_suffix(".part")
    save_file(tensors, part, {"format": "pt"})
    part.replace(path)


def ddim():
    """diffusers' sampler on f64 tables."""
    made = DDIMScheduler(**BETAS, set_alpha_to_one=False, steps_offset=1, clip_sample=False)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    made.alphas_cumprod = torch.cumprod(1 - betas, 0)
    made.final_alpha_cumprod = made.alphas_cumprod[0]
    made.set_timesteps(N_STEPS)
    return made


def inputs(words, side, generator):
    def normal(*shape):
        return torch.randn(shape, generator=generator)

    ids = words([*PROMPTS, ""], padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
    return {
        "text.ids": ids,
        "unet.x_t": normal(2, 4, side, side),
        "unet.t": torch.tensor([501, 21]),
        "vae.images": normal(1, 3, 8 * side, 8 * side).clamp(-1, 1),
        "vae.latents": normal(1, 4, side, side),
        "trace.x_T": normal(1, 4, side, side),
        "trace.noise": normal(N_STEPS, 1, 4, side, side),
    }


def outputs(made, given, embeddings):
    """Everything once, in the dtype of the weights. The UNet's stages start from `embeddings`, if given."""
    dtype = made.unet.dtype
    text = made.text_encoder(given["text.ids"]).last_hidden_state
    out = {"text.output": text}
    embeddings = (text if embeddings is None else embeddings).to(dtype)
    out["unet.output"] = made.unet(given["unet.x_t"].to(dtype), given["unet.t"], embeddings[:2]).sample
    posterior = made.vae.encode(given["vae.images"].to(dtype)).latent_dist
    out |= {"vae.mean": posterior.mean, "vae.log_var": posterior.logvar}
    out["vae.decoded"] = made.vae.decode(given["vae.latents"].to(dtype)).sample
    out |= trajectory(made.unet, given, embeddings)
    return {name: value.float().contiguous() for name, value in out.items()}


def trajectory(unet, given, embeddings):
    """Guided, eta 1, with log-probabilities as ddpo-pytorch's `ddim_step_with_logprob` takes them."""
    scheduler, x = ddim(), given["trace.x_T"]
    latents, means, log_probs = [x], [], []
    both = torch.cat([embeddings[2:], embeddings[:1]])
    for t, z in zip(scheduler.timesteps.tolist(), given["trace.noise"]):
        eps_u, eps_c = unet(torch.cat([x, x]).to(unet.dtype), t, both).sample.double().chunk(2)
        eps, x = eps_u + SCALE * (eps_c - eps_u), x.double()
        mean = scheduler.step(eps, t, x, eta=ETA, variance_noise=torch.zeros_like(x)).prev_sample
        std = ETA * scheduler._get_variance(t, t - 1000 // N_STEPS) ** 0.5
        x = (mean + std * z).float()
        each = -((x - mean) ** 2) / (2 * std**2) - torch.log(std) - math.log(math.sqrt(2 * math.pi))
        log_probs.append(each.mean(dim=(1, 2, 3)))
        means.append(mean)
        latents.append(x)
    return {"trace.latents": torch.stack(latents), "trace.means": torch.stack(means), "trace.log_probs": torch.stack(log_probs)}


def in_bf16(folder):
    """What bf16 weights make of the inputs of `reference.safetensors`, each stage from that file's own."""
    given = load_file(folder / "reference.safetensors")
    kind = dict(torch_dtype=torch.bfloat16)

    def feature_maps(name):
        return given[name].to(torch.bfloat16, memory_format=torch.channels_last)

    out = {"text.output": CLIPTextModel.from_pretrained(folder / "model" / "text_encoder", **kind)(given["text.ids"]).last_hidden_state}
    vae = AutoencoderKL.from_pretrained(folder / "model" / "vae", **kind).to(memory_format=torch.channels_last)
    posterior = vae.encode(feature_maps("vae.images")).latent_dist
    out |= {"vae.mean": posterior.mean, "vae.log_var": posterior.logvar}
    out["vae.decoded"] = vae.decode(feature_maps("vae.latents")).sample
    unet = UNet2DConditionModel.from_pretrained(folder / "model" / "unet", **kind).to(memory_format=torch.channels_last)
    embeddings = given["text.output"][:2].to(torch.bfloat16)
    out["unet.output"] = unet(feature_maps("unet.x_t"), given["unet.t"], embeddings).sample
    return {name: value.float().contiguous() for name, value in out.items()}


def prefixed(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    out = args.out
    torch.set_num_threads(os.cpu_count())
    if args.bf16:
        with torch.no_grad():
            return save_file(prefixed("bf16.", in_bf16(out)), out / "reference_bf16.safetensors")
    (out / "model").mkdir(parents=True)
    generator = torch.Generator().manual_seed(14)
    made = pipeline(out / "model", generator)
    whole, small = (inputs(made.tokenizer, side, generator) for side in (64, 8))
    with torch.no_grad():
        done = {**whole, **outputs(made, whole, None)}
        of_small = outputs(made, small, None)
        done |= prefixed("small.", {**small, **of_small})
        made.to(torch.bfloat16)
        done |= prefixed("small.bf16.", outputs(made, small, of_small["text.output"]))
    save_file(done, out / "reference.safetensors")
    packages = ["torch", "diffusers", "transformers", "safetensors"]
    versions = {name: importlib.metadata.version(name) for name in packages}
    (out / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
