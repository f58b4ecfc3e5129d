"""Universal guidance on the model of sd_tiny.py, with self-recurrence, by torch's autograd in f64.

The formulas are those of Bansal et al. 2023, algorithm 1, and of `ddim_with_grad.py` of the official code, branch
`guidance_3`, in which `selected` is the objective; the step is diffusers' DDIM. The objective is minus the mean
squared distance of the decoded image from a target.

Writes `universal_guidance/trajectory.safetensors`: what it was given (target image, conditioning, all noise) and
the latents after every step; `plain` is x_0 of the same noise with a weight of 0. Numbers are in `numbers.json`.
"""

import json
import pathlib

import torch
from _tiny import load, read, write

OUT = pathlib.Path(__file__).parent / "universal_guidance"
N, N_STEPS, REPEATS, ETA, CFG, WEIGHT = 2, 10, 3, 1.0, 3.0, 40.0


def guided(unet, x, t, cond, uncond):
    twice = torch.cat([uncond.expand_as(cond), cond])
    eps_u, eps_c = unet(torch.cat([x, x]), t, twice).sample.chunk(2)
    return eps_u + CFG * (eps_c - eps_u)


def walk(made, given, weight):
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    x, stride = given["initial"], 1000 // N_STEPS
    latents = [x]
    for step in range(N_STEPS):
        t = (N_STEPS - 1 - step) * stride + 1
        here, before = abar[t], abar[max(t - stride, 0)]
        sigma = ETA * ((1 - before) / (1 - here) * (1 - here / before)).sqrt()
        for repeat in range(REPEATS):
            x = x.detach().requires_grad_(True)
            eps = guided(made.unet, x, t, given["cond"], given["uncond"])
            x_0 = (x - (1 - here).sqrt() * eps) / here.sqrt()
            image = made.vae.decode(x_0 / made.vae.config.scaling_factor).sample
            selected = -((image - given["target"]) ** 2).mean(dim=(1, 2, 3))
            grad = torch.autograd.grad(selected.sum(), x)[0] * weight
            with torch.no_grad():
                eps = eps - (1 - here).sqrt() * grad
                x_0 = (x - (1 - here).sqrt() * eps) / here.sqrt()
                mean = before.sqrt() * x_0 + (1 - before - sigma**2).sqrt() * eps
                previous = mean + sigma * given["noise"][step, repeat]
                if repeat + 1 < REPEATS:
                    ratio = here / before
                    x = ratio.sqrt() * previous + (1 - ratio).sqrt() * given["renoise"][step, repeat]
        x = previous
        latents.append(x)
    return torch.stack(latents), selected.detach()


def main():
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(3)
    made, trace = load(), read("trace.safetensors")

    def normal(*shape):
        return torch.randn(shape, generator=generator).double()

    given = {
        "target": (0.5 * normal(1, 3, 32, 32)).float().double(),
        "cond": trace["prompt_embeds"][:N],
        "uncond": trace["negative_embeds"][:1],
        "initial": normal(N, 4, 8, 8),
        "noise": normal(N_STEPS, REPEATS, N, 4, 8, 8),
        "renoise": normal(N_STEPS, REPEATS - 1, N, 4, 8, 8),
    }
    latents, selected = walk(made, given, WEIGHT)
    plain, unguided = walk(made, given, 0.0)
    write(OUT / "trajectory.safetensors", given | {"latents": latents, "plain": plain[-1]})
    numbers = {
        "n_steps": N_STEPS,
        "repeats": REPEATS,
        "eta": ETA,
        "guidance_scale": CFG,
        "weight": WEIGHT,
        "selected": selected.tolist(),
        "selected_plain": unguided.tolist(),
    }
    (OUT / "numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
