"""One LoRA update of Stable Diffusion v1.4 at its own size, by diffusers, peft and torch.

    python tests/full_size/lora_update.py make DIR      after tests/full_size/generate.py has made DIR/model
    python tests/full_size/lora_update.py forward DIR   times the UNet, batch 2, without gradients
    python tests/full_size/lora_update.py update DIR    takes the stored update again; time and peak memory
    python tests/full_size/lora_update.py checkpointed DIR          the same with diffusers' checkpointing
    python tests/full_size/lora_update.py limit DIR     the memory that it cannot do without

`make` writes `DIR/lora_update/`:
- `pytorch_lora_weights.safetensors`: an adapter of rank 4 with nothing zero, as diffusers saves it
- `rollout.safetensors`: two guided steps of one sample, as `ddpo sample --trace` writes them, with advantages and
  with log-probabilities moved so that no ratio is 1
- `grads.safetensors`: the gradient of every factor before clipping, by name; `loss`
- `grads_channels_last.safetensors`: the same update by the same packages with feature maps in channels-last layout,
  as ours are; how far the two are from each other is what f32 leaves open on this network

The networks compute in f32, the sampler in f64 tables with f32 latents, as the tests do. The others print one
line each, in the form of `tests/examples/full_size.rs`. No test runs this file.
"""

import argparse
import json
import math
import pathlib
import resource
import time

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

N_STEPS, SCALE, CLIP_RANGE, RANK, N_TOKENS = 2, 5.0, 1e-4, 4, 77
ADVANTAGES, SHIFTS = [1.25], [3e-5, -6e-5]
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def scheduler():
    """diffusers' sampler on f64 tables."""
    made = DDIMScheduler(**BETAS, set_alpha_to_one=False, steps_offset=1, clip_sample=False)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    made.alphas_cumprod = torch.cumprod(1 - betas, 0)
    made.final_alpha_cumprod = made.alphas_cumprod[0]
    made.set_timesteps(N_STEPS)
    return made


def network(folder):
    unet = UNet2DConditionModel.from_pretrained(folder / "model" / "unet", torch_dtype=torch.float32)
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
    return unet


def guided(unet, x, t, cond, uncond):
    eps_u, eps_c = unet(torch.cat([x, x]), t, torch.cat([uncond, cond])).sample.chunk(2)
    return eps_u + SCALE * (eps_c - eps_u)


def transition(sampler, eps, t, x):
    eps, x = eps.double(), x.double()
    mean = sampler.step(eps, t, x, eta=1.0, variance_noise=torch.zeros_like(x)).prev_sample
    return mean, sampler._get_variance(t, t - 1000 // N_STEPS) ** 0.5


def log_prob(x, mean, std):
    each = -((x.double() - mean) ** 2) / (2 * std**2) - torch.log(std) - math.log(math.sqrt(2 * math.pi))
    return each.mean(dim=(1, 2, 3))


def surrogate(found, old):
    advantage = torch.tensor(ADVANTAGES, dtype=torch.float64)
    ratio = torch.exp(found - old)
    clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
    return torch.maximum(-advantage * ratio, -advantage * clipped).mean()


def grads(unet):
    named = {name: weight for name, weight in unet.named_parameters() if "lora_" in name}
    return {name.replace(".default", ""): weight.grad for name, weight in named.items()}


def make(folder):
    out = folder / "lora_update"
    out.mkdir()
    generator = torch.Generator().manual_seed(41)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    unet, sampler = network(folder), scheduler()
    for name, weight in unet.named_parameters():
        if "lora_A" in name:
            weight.data.copy_(normal(*weight.shape) / RANK)
        elif "lora_B" in name:
            weight.data.copy_(0.02 * normal(*weight.shape))
    factors = get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(out, unet_lora_layers=factors)
    cond, uncond, x = normal(1, N_TOKENS, 768), normal(1, N_TOKENS, 768), normal(1, 4, 64, 64)
    latents, olds, noises, losses = [x], [], [], []
    for t, shift in zip(sampler.timesteps.tolist(), SHIFTS):
        z = normal(1, 4, 64, 64)
        mean, std = transition(sampler, guided(unet, x, t, cond, uncond), t, x)
        after = (mean.detach() + std * z).float()
        found = log_prob(after, mean, std)
        old = (found.detach() + shift).float()
        loss = surrogate(found, old.double())
        (loss / N_STEPS).backward()
        x = after
        for into, value in [(latents, after), (olds, old), (noises, z), (losses, loss.detach())]:
            into.append(value)
    save_file(
        {
            "timesteps": sampler.timesteps.clone(),
            "latents": torch.stack(latents),
            "noise": torch.stack(noises),
            "log_probs": torch.stack(olds),
            "prompt_embeds": cond,
            "negative_embeds": uncond,
            "advantages": torch.tensor(ADVANTAGES),
        },
        out / "rollout.safetensors",
    )
    loss = torch.stack(losses).mean().float()
    save_file({**grads(unet), "loss": loss}, out / "grads.safetensors")
    unet.zero_grad()
    unet.to(memory_format=torch.channels_last)
    update(unet, folder)
    again = {name: grad.contiguous() for name, grad in grads(unet).items()}
    save_file({**again, "loss": loss}, out / "grads_channels_last.safetensors")


def adapter(unet, folder):
    stored = load_file(folder / "lora_update" / "pytorch_lora_weights.safetensors")
    set_peft_model_state_dict(unet, {name.removeprefix("unet."): value for name, value in stored.items()})


def update(unet, folder):
    rolled, sampler = load_file(folder / "lora_update" / "rollout.safetensors"), scheduler()
    for i, t in enumerate(sampler.timesteps.tolist()):
        x, after = rolled["latents"][i], rolled["latents"][i + 1]
        eps = guided(unet, x, t, rolled["prompt_embeds"], rolled["negative_embeds"])
        found = log_prob(after, *transition(sampler, eps, t, x))
        (surrogate(found, rolled["log_probs"][i].double()) / N_STEPS).backward()


def forward(unet):
    with torch.no_grad():
        unet(torch.ones(2, 4, 64, 64), torch.tensor([501, 21]), torch.ones(2, N_TOKENS, 768))


def segments(unet):
    """What checkpointing computes again by itself, by its first module: a residual block with the transformer
    behind it, a step between two sizes, the first and the last convolution. As ours cuts the network."""
    yield "conv_in", unet.conv_in
    yield "conv_out", unet.conv_norm_out
    for name, module in unet.named_modules():
        if isinstance(module, (ResnetBlock2D, Downsample2D, Upsample2D)):
            yield name, module


def limit(unet):
    """Lower bound of an update's memory: weights, trajectory, and what autograd saves for the largest segment."""
    kept, current = {}, [None]
    weights = {weight.untyped_storage().data_ptr() for weight in unet.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept.setdefault(current[0], {})[storage.data_ptr()] = storage.nbytes()
        return tensor

    for name, module in segments(unet):
        module.register_forward_pre_hook(lambda *_, name=name: current.__setitem__(0, name))
    x, embeddings = torch.ones(1, 4, 64, 64), torch.ones(1, N_TOKENS, 768)
    # Saved tensors stay alive until the prediction is freed: no address is reused.
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        eps = guided(unet, x, 501, embeddings, embeddings)
    bytes_ = {name: sum(storages.values()) for name, storages in kept.items()}
    del eps
    segment = max(bytes_, key=bytes_.get)
    found = {
        "weights": sum(weight.nbytes for weight in unet.parameters()),
        "trajectory": (N_STEPS + 1) * x.nbytes + 2 * embeddings.nbytes,
        "segment": segment,
        "kept": bytes_[segment],
    }
    return {**found, "limit": found["weights"] + found["trajectory"] + found["kept"]}


def memory(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(work):
    """Seconds on the clock and of all threads, bytes before and at most."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, begin, on_cpu = memory("VmRSS:"), time.perf_counter(), cpu_seconds()
    work()
    wall, cpu = time.perf_counter() - begin, cpu_seconds() - on_cpu
    return {"wall_s": wall, "cpu_s": cpu, "before": before, "peak": memory("VmHWM:")}


def worst(unet, folder):
    """Largest difference of a gradient, relative to the largest value of its tensor."""
    expected = load_file(folder / "lora_update" / "grads.safetensors")
    found = grads(unet).items()
    return max(((g - expected[n]).abs().max() / expected[n].abs().max()).item() for n, g in found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["make", "forward", "update", "checkpointed", "limit"])
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.what == "make":
        return make(args.folder)
    unet = network(args.folder)
    if args.what == "limit":
        return print(json.dumps({"who": f"torch {torch.__version__}", "what": args.what, **limit(unet)}))
    adapter(unet, args.folder)
    if args.what == "forward":
        unet.disable_adapters()
        forward(unet)
        found = measured(lambda: forward(unet))
    else:
        unet.train()  # diffusers checkpoints only then; there is no dropout
        if args.what == "checkpointed":
            unet.enable_gradient_checkpointing()
        found = measured(lambda: update(unet, args.folder))
        found["gradients"] = worst(unet, args.folder)
    print(json.dumps({"who": f"torch {torch.__version__}", "what": args.what, **found}))


if __name__ == "__main__":
    main()
