"""One DDPO-IS update with DPOK's KL to the reference policy (Fan et al. 2023), by torch's autograd.

The policy is the model of sd_tiny.py with low-rank factors, the pretrained one is the same without them; both are
guided. A pair of sample and step adds `kl_weight * |mean - mean of the pretrained|^2 / (2 sigma^2)`, reduced over
dimensions as the log-probability is, to the clipped loss. f64 from f32 inputs, rounded to f32 at the end.

Writes `dpok/`: the factors as diffusers saves them (`lora/`), and `update.safetensors`: the divergence of each step
and sample, and the gradient of each factor. The rollout is sd_tiny's. Numbers are in `numbers.json`.
"""

import json
import math
import pathlib

import torch
from _tiny import load, read, write
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

OUT = pathlib.Path(__file__).parent / "dpok"
N_STEPS, SCALE, ETA, CLIP, KL_WEIGHT = 10, 5.0, 1.0, 1e-4, 10.0
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def guided(unet, x, t, cond, uncond):
    twice = torch.cat([uncond.expand_as(cond), cond])
    eps_u, eps_c = unet(torch.cat([x, x]), t, twice).sample.chunk(2)
    return eps_u + SCALE * (eps_c - eps_u)


def main():
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(4)
    made, pretrained, rolled = load(), load(), read("rollout.safetensors")
    made.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=TARGETS))
    factors = {n: w for n, w in made.unet.named_parameters() if "lora_" in n}
    for weight in factors.values():
        values = 0.15 * torch.randn(weight.shape, generator=generator)
        weight.data.copy_(values)
        weight.requires_grad_(True)
    saved = {k: v.float() for k, v in get_peft_model_state_dict(made.unet).items()}
    metadata = _collate_lora_metadata({"unet": made.unet})
    metadata["unet_lora_adapter_metadata"]["target_modules"] = TARGETS  # peft keeps a set, in no order
    StableDiffusionPipeline.save_lora_weights(OUT / "lora", unet_lora_layers=saved, **metadata)

    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    latents, cond, uncond = rolled["latents"], rolled["prompt_embeds"], rolled["negative_embeds"][:1]
    losses, divergences = [], []
    for step in range(N_STEPS):
        t, x = int(rolled["timesteps"][step]), latents[step]
        here, before = abar[t], abar[max(t - 1000 // N_STEPS, 0)]
        sigma = ETA * ((1 - before) / (1 - here) * (1 - here / before)).sqrt()

        def mean(unet):
            eps = guided(unet, x, t, cond, uncond)
            x_0 = (x - (1 - here).sqrt() * eps) / here.sqrt()
            return before.sqrt() * x_0 + (1 - before - sigma**2).sqrt() * eps

        now, then = mean(made.unet), mean(pretrained.unet).detach()
        each = -((latents[step + 1] - now) ** 2) / (2 * sigma**2) - sigma.log() - math.log(math.sqrt(2 * math.pi))
        ratio = (each.mean(dim=(1, 2, 3)) - rolled["log_probs"][step]).exp()
        advantages = rolled["advantages"]
        clipped = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - CLIP, 1 + CLIP))
        divergence = ((now - then) ** 2).mean(dim=(1, 2, 3)) / (2 * sigma**2)
        losses.append(clipped + KL_WEIGHT * divergence)
        divergences.append(divergence.detach())
    loss = torch.stack(losses).mean()
    found = torch.autograd.grad(loss, list(factors.values()))
    grads = {f"grads.{n.replace('.default', '')}": g for n, g in zip(factors, found)}
    write(OUT / "update.safetensors", grads | {"kl": torch.stack(divergences)})
    mean_kl = torch.stack(divergences).mean().item()
    numbers = {"kl_weight": KL_WEIGHT, "clip_range": CLIP, "loss": loss.item(), "kl": mean_kl}
    (OUT / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
