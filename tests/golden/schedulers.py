"""Schedules, timesteps and steps of diffusers' DDIM and Euler ancestral schedulers, in every variant that is built.

diffusers computes its tables in f32. Its own code is run here a second time with f64 in the place of f32: these are
the values that the tests hold to, closely. What diffusers says as it is stands beside them as `*.f32`, to show how
far the two are apart.

Writes `schedulers/`:
- `tables.safetensors`: `betas` and `alphas_cumprod` of every beta schedule (f64), `alphas_cumprod` in f32
- `timesteps.safetensors`: by spacing, offset and numbers of steps: timesteps of DDIM; timesteps, sigmas and
  `init_noise_sigma` of Euler ancestral
- `timesteps.json`: the names of those tensors, and for which numbers of steps spacing
  `trailing` makes one timestep too many, which is -1: `np.arange` rounds up
- `steps.json`: for every case: scheduler, configuration, and for DDIM the f64 weights of each step
- `steps.safetensors`: every step of each case on shared latents, outputs and noise; trajectories of Euler ancestral
  with a closed-form denoiser; `add_noise`, `get_velocity` and predicted x_0
"""

import contextlib
import json
import pathlib
from unittest import mock

import numpy
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler
from diffusers.schedulers import scheduling_ddim, scheduling_euler_ancestral_discrete
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).parent / "schedulers"
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
BETAS = {
    "linear": dict(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
    "scaled_linear": SD,
    "squaredcos_cap_v2": dict(beta_schedule="squaredcos_cap_v2"),
    "squaredcos_cap_v2_50": dict(beta_schedule="squaredcos_cap_v2", num_train_timesteps=50),
    "trained": dict(trained_betas=[0.001, 0.004, 0.0025, 0.3, 0.05], num_train_timesteps=5),
    "zero_snr": dict(**SD, rescale_betas_zero_snr=True),
    "zero_snr_cosine": dict(beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=True),
}
SPACINGS = "leading", "linspace", "trailing"
N_STEPS, SHAPE = 5, (2, 4, 4, 4)


class Doubled:
    """torch or numpy, whose float32 is float64."""

    def __init__(self, module):
        self.module, self.float32 = module, module.float64

    def __getattr__(self, name):
        return getattr(self.module, name)


@contextlib.contextmanager
def precision(dtype):
    """diffusers' schedulers compute in `dtype`."""
    with contextlib.ExitStack() as stack:
        if dtype == torch.float64:
            for module in (scheduling_ddim, scheduling_euler_ancestral_discrete):
                for name, doubled in (("torch", Doubled(torch)), ("np", Doubled(numpy))):
                    stack.enter_context(mock.patch.object(module, name, doubled))
        yield


def save(name, tensors):
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, OUT / f"{name}.safetensors")


def write(name, value):
    (OUT / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")


def tables():
    tensors = {}
    for name, config in BETAS.items():
        with precision(torch.float64):
            made = DDIMScheduler(**config)
        tensors[f"{name}.betas"], tensors[f"{name}.alphas_cumprod"] = made.betas, made.alphas_cumprod
        assert made.betas.dtype == made.alphas_cumprod.dtype == torch.float64
        tensors[f"{name}.alphas_cumprod.f32"] = DDIMScheduler(**config).alphas_cumprod
    save("tables", tensors)


def timesteps():
    cases, tensors = [], {}
    for n_train in (1000, 250):
        for spacing in SPACINGS:
            for offset in (0, 1):
                for n in (1, 7, 10, 16, 20, 50, 61, n_train - 1, n_train):
                    first = (n - 1) * (n_train // n) + offset
                    if spacing == "leading" and first >= n_train:
                        continue  # a timestep that there is no alpha for
                    name = f"{spacing}.{offset}.{n_train}.{n}"
                    config = {**SD, "num_train_timesteps": n_train, "timestep_spacing": spacing, "steps_offset": offset}
                    cases.append(dict(name=name, config=config, n_steps=n))
                    ddim = DDIMScheduler(**config)
                    ddim.set_timesteps(n)
                    tensors[f"{name}.ddim"] = ddim.timesteps
                    if n > 250 or offset != 0 and spacing != "leading":
                        continue  # the offset is of leading alone
                    for suffix, dtype in (("", torch.float64), (".f32", torch.float32)):
                        with precision(dtype):
                            euler = EulerAncestralDiscreteScheduler(**config)
                            euler.set_timesteps(n)
                            scale = torch.as_tensor(euler.init_noise_sigma).reshape(1)
                        tensors[f"{name}.euler{suffix}"] = euler.timesteps
                        tensors[f"{name}.sigmas{suffix}"] = euler.sigmas
                        tensors[f"{name}.init_noise_sigma{suffix}"] = scale
    surplus = []
    made = DDIMScheduler(timestep_spacing="trailing")
    for n in range(1, 1001):
        made.set_timesteps(n)
        if len(made.timesteps) != n:
            assert len(made.timesteps) == n + 1 and made.timesteps[-1] == -1
            surplus.append(n)
    save("timesteps", tensors)
    write("timesteps", dict(cases=cases, trailing_surplus=surplus))


def ddim_cases():
    both = [("", False), (".to_one", True)]
    for eta in (0.0, 0.5, 1.0):
        for prediction in ("epsilon", "v_prediction", "sample"):
            for suffix, to_one in both:
                changes = dict(set_alpha_to_one=to_one, steps_offset=1, timestep_spacing="leading")
                yield f"ddim.{prediction}.{eta}{suffix}", eta, dict(prediction_type=prediction, **changes)
        changes = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", set_alpha_to_one=False)
        for prediction in ("v_prediction", "sample"):
            yield f"ddim.zero_snr.{prediction}.{eta}", eta, dict(prediction_type=prediction, **changes)
    for spacing in ("linspace", "trailing"):
        yield f"ddim.{spacing}", 1.0, dict(prediction_type="epsilon", timestep_spacing=spacing, set_alpha_to_one=False)


def euler_cases():
    for prediction in ("epsilon", "v_prediction"):
        for spacing in SPACINGS:
            changes = dict(prediction_type=prediction, timestep_spacing=spacing, steps_offset=int(spacing == "leading"))
            yield f"euler.{prediction}.{spacing}", changes
    changes = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    yield "euler.zero_snr", dict(prediction_type="v_prediction", **changes)


def ddim_steps(config, eta, dtype, x, m, z):
    """Every step on its own, and the weights of x_t, of the output and of the noise."""
    with precision(dtype):
        made = DDIMScheduler(clip_sample=False, **config)
        made.set_timesteps(N_STEPS)
        x, m, z = (v.to(dtype) for v in (x, m, z))
        one, zero = torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype)

        def step(i, m, x, z):
            return made.step(m, int(made.timesteps[i]), x, eta=eta, variance_noise=z).prev_sample

        prev = torch.stack([step(i, m[i], x[i], z[i]) for i in range(N_STEPS)]).float()
        weights = {
            key: [step(i, *each).item() for i in range(N_STEPS)]
            for key, each in (
                ("weight_x_t", (zero, one, zero)),
                ("weight_output", (one, zero, zero)),
                ("std", (zero, zero, one)),
            )
        }
    return prev, dict(timesteps=made.timesteps.tolist(), **weights)


def toy(x, t):
    return torch.tanh(0.7 * x) + 0.3 * torch.cos(t / 100.0)


def euler_steps(config, dtype, x, m, z):
    """Every step on its own; the input of the network at each; a whole trajectory."""
    noise = []
    drawn = mock.patch.object(scheduling_euler_ancestral_discrete, "randn_tensor", lambda *_, **__: noise.pop(0))
    with precision(dtype), drawn:
        x, m, z = (v.to(dtype) for v in (x, m, z))
        inputs, prev = [], []
        made = EulerAncestralDiscreteScheduler(**config)
        made.set_timesteps(N_STEPS)
        for i, t in enumerate(made.timesteps):
            noise.append(z[i])
            inputs.append(made.scale_model_input(x[i], t))
            prev.append(made.step(m[i], t, x[i]).prev_sample)
        made = EulerAncestralDiscreteScheduler(**config)
        made.set_timesteps(N_STEPS)
        latents = [x[0] * made.init_noise_sigma]
        for i, t in enumerate(made.timesteps):
            noise.append(z[i])
            output = toy(made.scale_model_input(latents[-1], t), t)
            latents.append(made.step(output, t, latents[-1]).prev_sample)
    return {k: torch.stack(v).float() for k, v in dict(inputs=inputs, prev=prev, latents=latents).items()}


def forward(tensors):
    """The forward process, and x_0 as DDIM's step predicts it, at mixed timesteps."""
    at = torch.tensor([0, 17, 500, 999])
    x, noise, m = (torch.randn(len(at), *SHAPE[1:]) for _ in range(3))
    tensors.update({"forward.at": at, "forward.x": x, "forward.noise": noise, "forward.output": m})
    for suffix, dtype in (("", torch.float64), (".f32", torch.float32)):
        with precision(dtype):
            for name, changes in (("sd", {}), ("zero_snr", dict(rescale_betas_zero_snr=True))):
                made = DDIMScheduler(**SD, **changes)
                for what in ("add_noise", "get_velocity"):
                    value = getattr(made, what)(x.to(dtype), noise.to(dtype), at)
                    tensors[f"forward.{name}.{what}{suffix}"] = value.float()
                for prediction in ("epsilon", "v_prediction", "sample"):
                    if name == "zero_snr" and prediction == "epsilon":
                        continue  # infinite at timestep 999
                    made = DDIMScheduler(clip_sample=False, prediction_type=prediction, **SD, **changes)
                    made.set_timesteps(1000)
                    rows = [
                        made.step(m[i : i + 1].to(dtype), int(t), x[i : i + 1].to(dtype)).pred_original_sample
                        for i, t in enumerate(at)
                    ]
                    tensors[f"forward.{name}.x_0.{prediction}{suffix}"] = torch.cat(rows).float()


def steps():
    x, m, z = (torch.randn(N_STEPS, *SHAPE) for _ in range(3))
    tensors, cases = dict(x=x, output=m, noise=z), []
    for name, eta, changes in ddim_cases():
        config = {**SD, **changes}
        prev, weights = ddim_steps(config, eta, torch.float64, x, m, z)
        tensors[f"{name}.prev"] = prev
        tensors[f"{name}.prev.f32"] = ddim_steps(config, eta, torch.float32, x, m, z)[0]
        cases.append(dict(name=name, scheduler="ddim", config=config, eta=eta, **weights))
    for name, changes in euler_cases():
        config = {**SD, **changes}
        for suffix, dtype in (("", torch.float64), (".f32", torch.float32)):
            made = euler_steps(config, dtype, x, m, z)
            tensors.update({f"{name}.{key}{suffix}": value for key, value in made.items()})
        cases.append(dict(name=name, scheduler="euler_ancestral", config=config))
    forward(tensors)
    save("steps", tensors)
    write("steps", cases)


def main():
    OUT.mkdir(exist_ok=True)
    torch.manual_seed(0)
    tables()
    timesteps()
    steps()


if __name__ == "__main__":
    main()
