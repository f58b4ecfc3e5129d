"""DDIM as diffusers computes it: tables, single steps, and trajectories with log-probabilities.

diffusers keeps its tables in f32, where 1 - alpha_bar near timestep 0 has three digits. Its own `step` and
`_get_variance` are run here on f64 tables as well: these are the values that the tests hold to. The values of
the f32 tables are beside them, to show how far the two are apart.

Writes `ddim/`:
- `tables.json`: for several numbers of steps and eta: timesteps, the mean's weights of x_t and eps, and std
- `tensors.safetensors`: `alphas_cumprod` (f64); one step at mixed timesteps; trajectories of a small
  closed-form denoiser, without and with guidance, with log-probabilities by the formula of ddpo-pytorch's
  `ddim_step_with_logprob`
"""

import json
import math
import pathlib

import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent / "ddim"
# scheduler_config.json of CompVis/stable-diffusion-v1-4, without the keys of PNDM.
SD_V1_4 = dict(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    num_train_timesteps=1000,
    set_alpha_to_one=False,
    steps_offset=1,
    clip_sample=False,
)
N_STEPS, BATCH, SHAPE, TOKENS, DIM, SCALE = 10, 3, (4, 6, 6), 5, 4, 5.0


def scheduler(n_steps, dtype, **changes):
    config = {**SD_V1_4, **changes}
    made = DDIMScheduler(**config)
    if dtype == torch.float64:
        start, end, n = config["beta_start"], config["beta_end"], config["num_train_timesteps"]
        if config["beta_schedule"] == "scaled_linear":
            betas = torch.linspace(start**0.5, end**0.5, n, dtype=dtype) ** 2
        else:
            betas = torch.linspace(start, end, n, dtype=dtype)
        made.alphas_cumprod = torch.cumprod(1 - betas, 0)
        made.final_alpha_cumprod = made.alphas_cumprod[0]
        if config["set_alpha_to_one"]:
            made.final_alpha_cumprod = torch.ones((), dtype=dtype)
    made.set_timesteps(n_steps)
    return made


def std(made, t, eta):
    prev = t - made.config.num_train_timesteps // made.num_inference_steps
    return eta * made._get_variance(t, prev) ** 0.5


def mean(made, eps, t, x, eta):
    return made.step(eps, t, x, eta=eta, variance_noise=torch.zeros_like(x)).prev_sample


def log_prob(x, centre, sigma):
    each = -((x - centre) ** 2) / (2 * sigma**2) - torch.log(sigma) - math.log(math.sqrt(2 * math.pi))
    return each.mean(dim=tuple(range(1, each.ndim)))


def table(name, n_steps, eta, **changes):
    made = scheduler(n_steps, torch.float64, **changes)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    steps = [int(t) for t in made.timesteps]
    return {
        "config": name,
        "n_steps": n_steps,
        "eta": eta,
        "timesteps": steps,
        "weight_x_t": [mean(made, zero, t, one, eta).item() for t in steps],
        "weight_eps": [mean(made, one, t, zero, eta).item() for t in steps],
        "std": [std(made, t, eta).item() for t in steps],
    }


def denoiser(x, t, cond):
    shift = cond.mean(1)[:, :, None, None]
    return torch.tanh(0.7 * x + shift) + 0.3 * torch.cos(t / 100.0)[:, None, None, None]


def guided(x, t, cond, uncond, scale):
    if scale == 1.0:
        return denoiser(x, t, cond)
    eps_u, eps_c = denoiser(x, t, uncond.expand_as(cond)), denoiser(x, t, cond)
    return eps_u + scale * (eps_c - eps_u)


def trajectory(dtype, latents, noise, cond, uncond, scale):
    made = scheduler(N_STEPS, dtype)
    x, (noise, cond, uncond) = latents.to(dtype), (v.to(dtype) for v in (noise, cond, uncond))
    xs, log_probs = [x], []
    for t, z in zip([int(t) for t in made.timesteps], noise):
        ts = torch.full((BATCH,), t, dtype=dtype)
        eps = guided(x, ts, cond, uncond, scale)
        centre, sigma = mean(made, eps, t, x, 1.0), std(made, t, 1.0)
        x = made.step(eps, t, x, eta=1.0, variance_noise=z).prev_sample
        xs.append(x)
        log_probs.append(log_prob(x, centre, sigma))
    return torch.stack(xs).float(), torch.stack(log_probs).float()


def main():
    OUT.mkdir(exist_ok=True)
    torch.manual_seed(0)
    linear = dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", set_alpha_to_one=True, steps_offset=0)
    tables = [
        table("sd_v1_4", 50, 1.0),
        table("sd_v1_4", 10, 1.0),
        table("sd_v1_4", 7, 0.3),
        table("sd_v1_4", 50, 0.0),
        table("ddpm", 20, 1.0, **linear),
    ]
    (OUT / "tables.json").write_text(json.dumps(tables, indent=1) + "\n")

    made = scheduler(50, torch.float64)
    at = torch.tensor([0, 17, 49])
    x, eps, z = (torch.randn(BATCH, *SHAPE) for _ in range(3))
    rows = {"mean": [], "prev": [], "log_prob": []}
    for i, step in enumerate(at):
        t = int(made.timesteps[step])
        x_t, e, n = (v[i : i + 1].double() for v in (x, eps, z))
        centre = mean(made, e, t, x_t, 1.0)
        prev = made.step(e, t, x_t, eta=1.0, variance_noise=n).prev_sample
        rows["mean"].append(centre)
        rows["prev"].append(prev)
        rows["log_prob"].append(log_prob(prev, centre, std(made, t, 1.0)))
    step = {f"step.{k}": torch.cat(v).float() for k, v in rows.items()}

    latents, noise = torch.randn(BATCH, *SHAPE), torch.randn(N_STEPS, BATCH, *SHAPE)
    cond, uncond = torch.randn(BATCH, TOKENS, DIM), torch.randn(1, TOKENS, DIM)
    paths = {}
    for name, scale in (("plain", 1.0), ("guided", SCALE)):
        for tables_of, dtype in (("f64", torch.float64), ("f32", torch.float32)):
            xs, log_probs = trajectory(dtype, latents, noise, cond, uncond, scale)
            paths[f"{name}.{tables_of}.latents"] = xs
            paths[f"{name}.{tables_of}.log_probs"] = log_probs
    tensors = {
        "alphas_cumprod": made.alphas_cumprod,
        "step.at": at,
        "step.x_t": x,
        "step.eps": eps,
        "step.noise": z,
        **step,
        "latents": latents,
        "noise": noise,
        "cond": cond,
        "uncond": uncond,
        **paths,
    }
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / "tensors.safetensors")


if __name__ == "__main__":
    main()
