"""The work of `benches/benches/peers.rs` in Python: the shipped pocket UNet by diffusers, in the same numbers.

    OMP_NUM_THREADS=1 python benches/peers/diffusers_unet.py

Needs torch 2.11.0, diffusers 0.42.1, safetensors (tests/golden/requirements.txt). Prints the same lines, so that
each can be divided by the other's. Never run by a test.
"""

import math
import time
from pathlib import Path

import diffusers
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

MODEL = Path(__file__).resolve().parents[2] / "crates/ddpo-pocket/assets/model"
N_STEPS, GUIDANCE, CLIP_RANGE, N_TOKENS, N = 20, 3.0, 1e-4, 24, 15


def column(values):
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


class Pairs:
    """Latents at every step in turn, and the coefficients of mean and deviation, as ddpo-pytorch computes them."""

    def __init__(self, batch, unet, scheduler):
        config = unet.config
        shape = (batch, config.in_channels, config.sample_size, config.sample_size)
        self.x_t = torch.randn(shape)
        self.cond = torch.randn(batch, N_TOKENS, config.cross_attention_dim)
        self.uncond = torch.randn(1, N_TOKENS, config.cross_attention_dim)
        self.t = scheduler.timesteps[torch.arange(batch) % N_STEPS]
        abar = scheduler.alphas_cumprod.double()
        before = self.t - 1000 // N_STEPS
        prev = torch.where(before >= 0, abar[before.clamp(min=0)], scheduler.final_alpha_cumprod.double())
        now = abar[self.t]
        variance = (1 - prev) / (1 - now) * (1 - now / prev)
        a = (prev / now).sqrt()
        self.a = column(a.tolist())
        self.b = column(((1 - prev - variance).sqrt() - a * (1 - now).sqrt()).tolist())
        self.std = column(variance.sqrt().tolist())
        self.advantages = 1.0 - 2.0 * (torch.arange(batch) % 2).float()
        with torch.no_grad():
            mean = self.mean(self.predict(unet))
            self.x_prev = mean + self.std * torch.randn(shape)
            self.old = self.log_prob(mean)

    def predict(self, unet):
        cond = torch.cat([self.uncond.expand_as(self.cond), self.cond])
        eps = unet(torch.cat([self.x_t] * 2), torch.cat([self.t] * 2), encoder_hidden_states=cond).sample
        eps_u, eps_c = eps.chunk(2)
        return eps_u + GUIDANCE * (eps_c - eps_u)

    def mean(self, eps):
        return self.a * self.x_t + self.b * eps

    def log_prob(self, mean):
        dims = -((self.x_prev.detach() - mean) ** 2) / (2 * self.std**2) - self.std.log()
        return (dims - 0.5 * math.log(2 * math.pi)).mean(dim=(1, 2, 3))

    def accumulate(self, unet):
        ratio = torch.exp(self.log_prob(self.mean(self.predict(unet))) - self.old)
        clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
        torch.maximum(-self.advantages * ratio, -self.advantages * clipped).mean().backward()


def timed(call):
    """Wall-clock seconds of a call, and those that this thread had a CPU."""
    begin, on_cpu = time.perf_counter(), time.thread_time()
    call()
    return time.perf_counter() - begin, time.thread_time() - on_cpu


def seconds(n, call):
    """n calls after one that is not counted."""
    call()
    return [timed(call) for _ in range(n)]


def show(what, found):
    wall = sorted(wall for wall, _ in found)
    cpu = sum(cpu for _, cpu in found) / len(found)
    print(f"{what}: median {1e3 * wall[len(wall) // 2]:.2f} ms, least {1e3 * wall[0]:.2f} ms, cpu {1e3 * cpu:.2f} ms")


def step(params, adamw):
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    adamw.step()
    adamw.zero_grad()


def main():
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}")
    print(f"threads: {torch.get_num_threads()}")
    unet = UNet2DConditionModel.from_pretrained(MODEL, subfolder="unet", torch_dtype=torch.float32)
    scheduler = DDIMScheduler.from_pretrained(MODEL, subfolder="scheduler")
    scheduler.set_timesteps(N_STEPS)

    pairs = Pairs(64, unet, scheduler)
    with torch.no_grad():
        show("guided forward, batch 64", seconds(N, lambda: pairs.predict(unet)))
    pairs = Pairs(32, unet, scheduler)
    show("guided accumulate, micro-batch 32", seconds(N, lambda: pairs.accumulate(unet)))

    params = list(unet.parameters())
    for name, options in [("fused", {"fused": True}), ("torch's default", {})]:
        adamw = torch.optim.AdamW(params, lr=1e-5, weight_decay=1e-4, **options)
        found = []
        for turn in range(2 * N):
            for param in params:
                param.grad = 0.015 * torch.randn_like(param)
            once = timed(lambda: step(params, adamw))
            if turn > 0:  # the first makes the state
                found.append(once)
        show(f"adamw step, {name}", found)


if __name__ == "__main__":
    main()
