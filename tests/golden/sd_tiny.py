"""A small seeded Stable Diffusion, run by diffusers and transformers: forwards, a trajectory, an update, LoRA.

The weights are f32; everything is computed from them in f64 and rounded to f32 at the end, so that the values
are those of diffusers' formulas and not of one processor's order of summation. Each tensor that the next stage
starts from (embeddings, latents) is rounded before it goes on.

Writes `sd_tiny/`:
- `model/`: the diffusers layout as Stable Diffusion v1.4 has it on the hub, PNDM scheduler file included
- `forward.safetensors`: inputs and outputs of UNet (even and odd sizes), VAE and text encoder, one DDIM step
- `trace.safetensors`: a guided trajectory with eta 1 and its log-probabilities (the formula of ddpo-pytorch's
  `ddim_step_with_logprob`), in the form that `ddpo sample --trace` writes
- `rollout.safetensors`: the same with advantages, and with log-probabilities moved so that ratios differ from 1
- `update.safetensors`: one DDPO-IS update on that rollout, as ddpo-pytorch's `scripts/train.py` takes it:
  the gradient of every UNet weight before clipping, the norm, and every weight after AdamW
- `update.json`: the numbers of that update
- `lora/`: factors that peft trained on the attention projections, as diffusers saves them with its metadata;
  `lora_old/`: the same under the names of diffusers 0.17.1; the output with them is in `forward.safetensors`
"""

import json
import math
import pathlib

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

OUT = pathlib.Path(__file__).parent / "sd_tiny"
MODEL = OUT / "model"
N_STEPS, SCALE, ETA, LENGTH, N_LEARN = 10, 5.0, 1.0, 16, 200
PROMPTS = ["a cat", "a dog on the moon", "two cats"]
UPDATE = dict(clip_range=1e-4, max_grad_norm=0.1, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=1e-4)
# What is added to the log-probabilities, in turn: ratios of 1, inside the clip range, and outside on both sides.
SHIFTS = [0.0, 5e-5, -5e-5, 3e-4, -3e-4]
ADVANTAGES = [3.0, -2.5, 4.0]


def tokenizer():
    """Single bytes, four merges, and the two special tokens, in the files of Stable Diffusion v1.4."""
    folder = MODEL / "tokenizer"
    folder.mkdir(parents=True)
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    pieces = list(bytes_to_unicode().values())
    tokens = pieces + [p + "</w>" for p in pieces] + [a + b for a, b in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]

    def write(name, value):
        (folder / name).write_text(json.dumps(value, indent=1) + "\n")

    special = {"bos_token": "<|startoftext|>", **dict.fromkeys(["eos_token", "pad_token", "unk_token"], "<|endoftext|>")}
    write("vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n")
    write("special_tokens_map.json", special)
    write("tokenizer_config.json", {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer", **special})
    return CLIPTokenizer.from_pretrained(folder)


def randomise(net, generator):
    """Weights large enough that every one of them shows in the output."""
    for name, weight in net.named_parameters():
        values = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            values = 1 + 0.2 * values if name.endswith("weight") else 0.1 * values
        elif "embedding.weight" not in name:
            values /= math.sqrt(weight[0].numel())
        weight.data.copy_(values)
    return net.eval().requires_grad_(False)


def learn(unet, generator):
    """A little training: a network that knows nothing of noise lets latents grow tenfold, and rounding with them."""
    unet.double().requires_grad_(True)
    optimizer, abar = torch.optim.Adam(unet.parameters(), lr=1e-2), ddim().alphas_cumprod
    for _ in range(N_LEARN):
        x, eps = torch.randn(2, 8, 4, 8, 8, generator=generator, dtype=torch.float64)
        cond = torch.randn(8, LENGTH, 24, generator=generator, dtype=torch.float64)
        t = torch.randint(1000, (8,), generator=generator)
        signal = abar[t].view(-1, 1, 1, 1)
        optimizer.zero_grad()
        error = unet(signal.sqrt() * x + (1 - signal).sqrt() * eps, t, cond).sample - eps
        error.square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return unet.float().requires_grad_(False)


def pipeline(generator):
    words = tokenizer()
    n_tokens = len(words)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=n_tokens,
            hidden_size=24,
            intermediate_size=36,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            bos_token_id=n_tokens - 2,
            eos_token_id=n_tokens - 1,
            pad_token_id=n_tokens - 1,
        )
    )
    # scheduler_config.json of CompVis/stable-diffusion-v1-4.
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    made = StableDiffusionPipeline(
        unet=learn(randomise(unet, generator), generator),
        vae=randomise(vae, generator),
        text_encoder=randomise(text, generator),
        tokenizer=words,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    save(made)
    made.to(torch.float64)
    made.scheduler = ddim()
    return made


def save(made):
    """The folder, with the tokenizer's files as they were on the hub before transformers 5."""
    kept = {path: path.read_bytes() for path in (MODEL / "tokenizer").iterdir()}
    made.save_pretrained(MODEL)
    for path in (MODEL / "tokenizer").iterdir():
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)


def ddim():
    """diffusers' sampler on f64 tables; in its own f32 ones, 1 - alpha_bar near timestep 0 has three digits."""
    betas = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    made = DDIMScheduler(**betas, set_alpha_to_one=False, steps_offset=1, clip_sample=False)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    made.alphas_cumprod = torch.cumprod(1 - betas, 0)
    made.final_alpha_cumprod = made.alphas_cumprod[0]
    made.set_timesteps(N_STEPS)
    return made


def rounded(x):
    """The value that a test will read, in f64 again."""
    return x.float().double()


def transition(scheduler, eps, t, x):
    """Mean and standard deviation of the step at timestep t."""
    centre = scheduler.step(eps, t, x, eta=ETA, variance_noise=torch.zeros_like(x)).prev_sample
    previous = t - scheduler.config.num_train_timesteps // N_STEPS
    return centre, ETA * scheduler._get_variance(t, previous) ** 0.5


def log_prob(x, centre, sigma):
    each = -((x.detach() - centre) ** 2) / (2 * sigma**2) - torch.log(sigma) - math.log(math.sqrt(2 * math.pi))
    return each.mean(dim=tuple(range(1, each.ndim)))


def guided(unet, x, t, cond, uncond):
    twice = torch.cat([uncond.expand_as(cond), cond])
    eps_u, eps_c = unet(torch.cat([x, x]), t, twice).sample.chunk(2)
    return eps_u + SCALE * (eps_c - eps_u)


def forwards(made, generator):
    def normal(*shape):
        return rounded(torch.randn(shape, generator=generator))

    def embed(texts):
        ids = made.tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        return ids.input_ids, made.text_encoder(ids.input_ids).last_hidden_state

    ids, embeddings = embed([*PROMPTS, ""])
    out = {"text.ids": ids, "text.output": embeddings}
    cond, t = rounded(embeddings[:3]), torch.tensor([1, 501, 981])
    for name, size in {"even": (8, 8), "odd": (5, 7), "oblong": (6, 9)}.items():
        x = normal(3, 4, *size)
        out |= {f"unet.{name}.x_t": x, f"unet.{name}.output": made.unet(x, t, cond).sample}
    images, latents = normal(2, 3, 16, 16).clamp(-1, 1), normal(2, 4, 4, 4)
    posterior = made.vae.encode(images).latent_dist
    out |= {
        "unet.t": t,
        "unet.cond": cond,
        "vae.images": images,
        "vae.mean": posterior.mean,
        "vae.log_var": posterior.logvar,
        "vae.latents": latents,
        "vae.decoded": made.vae.decode(latents).sample,
    }
    oblong = normal(1, 3, 24, 40).clamp(-1, 1)
    out |= {"vae.oblong.images": oblong, "vae.oblong.mean": made.vae.encode(oblong).latent_dist.mean}
    x, eps, z, step = normal(3, 4, 8, 8), normal(3, 4, 8, 8), normal(3, 4, 8, 8), 4
    t = int(made.scheduler.timesteps[step])
    centre, sigma = transition(made.scheduler, eps, t, x)
    after = made.scheduler.step(eps, t, x, eta=ETA, variance_noise=z).prev_sample
    out |= {"step.at": torch.tensor([step]), "step.x_t": x, "step.eps": eps, "step.noise": z}
    return out | {"step.mean": centre, "step.x_prev": after, "step.log_prob": log_prob(after, centre, sigma)}


def trajectory(made, embeddings, generator):
    cond, uncond = rounded(embeddings[:3]), rounded(embeddings[3:])
    x = rounded(torch.randn(3, 4, 8, 8, generator=generator))
    noise = rounded(torch.randn(N_STEPS, 3, 4, 8, 8, generator=generator))
    latents, log_probs = [x], []
    for t, z in zip(made.scheduler.timesteps.tolist(), noise):
        eps = guided(made.unet, x, t, cond, uncond)
        centre, sigma = transition(made.scheduler, eps, t, x)
        x = made.scheduler.step(eps, t, x, eta=ETA, variance_noise=z).prev_sample
        log_probs.append(log_prob(x, centre, sigma))
        latents.append(x)
    decoded = made.vae.decode(x / made.vae.config.scaling_factor).sample
    images = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return {
        "timesteps": made.scheduler.timesteps,
        "latents": torch.stack(latents),
        "noise": noise,
        "log_probs": torch.stack(log_probs),
        "prompt_embeds": cond,
        "negative_embeds": uncond,
        "images": images.permute(0, 2, 3, 1),
    }


def rollout(trace):
    shifts = torch.tensor(SHIFTS, dtype=torch.float64)
    each = shifts[torch.arange(trace["log_probs"].numel()) % len(SHIFTS)]
    moved = trace["log_probs"] + each.view_as(trace["log_probs"])
    return {**trace, "log_probs": moved, "advantages": torch.tensor(ADVANTAGES, dtype=torch.float64)}


def update(made, rolled):
    """Returns the tensors and the numbers."""
    unet, clip = made.unet.requires_grad_(True), UPDATE["clip_range"]
    rolled = {k: rounded(v) for k, v in rolled.items() if v.is_floating_point()}
    latents, advantages = rolled["latents"], rolled["advantages"]
    losses, ratios = [], []
    for i, t in enumerate(made.scheduler.timesteps.tolist()):
        eps = guided(unet, latents[i], t, rolled["prompt_embeds"], rolled["negative_embeds"])
        centre, sigma = transition(made.scheduler, eps, t, latents[i])
        ratio = torch.exp(log_prob(latents[i + 1], centre, sigma) - rolled["log_probs"][i])
        plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
        loss = torch.maximum(plain, clipped).mean()
        (loss / N_STEPS).backward()
        losses.append(loss.detach())
        ratios.append(ratio.detach())
    out = {f"grads.{name}": weight.grad.clone() for name, weight in unet.named_parameters()}
    norm = torch.nn.utils.clip_grad_norm_(unet.parameters(), UPDATE["max_grad_norm"])
    betas = (UPDATE["beta1"], UPDATE["beta2"])
    rest = {key: UPDATE[key] for key in ("lr", "eps", "weight_decay")}
    torch.optim.AdamW(unet.parameters(), betas=betas, **rest).step()
    out |= {f"weights.{name}": weight.detach().clone() for name, weight in unet.named_parameters()}
    outside = (torch.stack(ratios) - 1).abs() > clip
    numbers = {
        **UPDATE,
        "loss": torch.stack(losses).mean().item(),
        "grad_norm": norm.item(),
        "clip_fraction": outside.double().mean().item(),
    }
    return out | {"ratios": torch.stack(ratios)}, numbers


def lora(made, inputs, generator):
    """Adds an adapter of rank 2 and alpha 3, saves it in two forms, and returns the output with it."""
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    made.unet.add_adapter(LoraConfig(r=2, lora_alpha=3, target_modules=targets))
    for name, weight in made.unet.named_parameters():
        if "lora_" in name:
            values = 0.3 * torch.randn(weight.shape, generator=generator)
            weight.data.copy_(values)
    factors = {k: v.float() for k, v in get_peft_model_state_dict(made.unet).items()}
    metadata = _collate_lora_metadata({"unet": made.unet})
    metadata["unet_lora_adapter_metadata"]["target_modules"] = targets  # peft keeps a set, in no order
    StableDiffusionPipeline.save_lora_weights(OUT / "lora", unet_lora_layers=factors, **metadata)
    # Without metadata alpha is the rank. `.processor.to_q_lora.down` is what AttnProcsLayers used to write.
    old = {}
    for name, value in convert_state_dict_to_diffusers(factors).items():
        module, _, rest = name.partition(".lora.")
        parent, projection = module.removesuffix(".0").rsplit(".", 1)
        value = value * 1.5 if rest == "up.weight" else value
        old[f"unet.{parent}.processor.{projection}_lora.{rest}"] = value
    (OUT / "lora_old").mkdir()
    save_file(old, OUT / "lora_old" / "pytorch_lora_weights.safetensors", {"format": "pt"})
    return made.unet(inputs["unet.even.x_t"], inputs["unet.t"], inputs["unet.cond"]).sample.detach()


def write(name, tensors):
    plain = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    save_file({k: v.contiguous() for k, v in plain.items()}, OUT / name)


def main():
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    made = pipeline(generator)
    inputs = forwards(made, generator)
    trace = trajectory(made, inputs["text.output"], generator)
    rolled = rollout(trace)
    before = {k: v.clone() for k, v in made.unet.state_dict().items()}
    updated, numbers = update(made, rolled)
    made.unet.load_state_dict(before)
    inputs["lora.output"] = lora(made, inputs, generator)
    write("forward.safetensors", inputs)
    write("trace.safetensors", trace)
    write("rollout.safetensors", rolled)
    write("update.safetensors", updated)
    (OUT / "update.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
