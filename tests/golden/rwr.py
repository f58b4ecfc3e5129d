"""The denoising loss on the model of sd_tiny.py: its gradients with equal, with one-hot and with softmax weights.

Computed by torch's autograd over diffusers' UNet in f64 from f32 inputs, and rounded to f32 at the end.

Writes `rwr/`:
- `posterior.safetensors`: images as bytes, and the VAE's posterior of them in the scale of the UNet
- `batch.safetensors`: clean latents, noise, timesteps, conditioning and weights; the loss of each sample, guided
  and not
- `grads.safetensors`: gradients of every UNet weight, `<which>.<name>`: `mean` of `loss.mean()`, the ordinary
  denoising loss; `single` of the loss of sample 2 over the batch size; `softmax` of `(weights * loss).mean()`;
  `guided` of `loss.mean()` under classifier-free guidance
"""

import pathlib

import torch
from _tiny import load, read, write

OUT = pathlib.Path(__file__).parent / "rwr"
N, SCALE, BETA, SINGLE = 4, 5.0, 0.2, 2


def rounded(x):
    return x.float().double()


def posterior(made, generator):
    images = torch.randint(256, (2, 16, 16, 3), generator=generator, dtype=torch.uint8)
    pixels = images.permute(0, 3, 1, 2).double() / 255 * 2 - 1
    found = made.vae.encode(pixels).latent_dist
    scale = made.vae.config.scaling_factor
    return {"images": images, "mean": found.mean * scale, "std": found.std * scale}


def batch(generator):
    def normal(*shape):
        return rounded(torch.randn(shape, generator=generator, dtype=torch.float64))

    cond, uncond = read("trace.safetensors")["prompt_embeds"], read("trace.safetensors")["negative_embeds"]
    rewards = 3 * normal(N)
    return {
        "x_0": normal(N, 4, 8, 8),
        "eps": normal(N, 4, 8, 8),
        "timesteps": torch.tensor([3, 250, 601, 999]),
        "cond": cond[torch.arange(N) % len(cond)],
        "uncond": uncond[:1],
        "rewards": rewards,
        "weights": rounded(torch.softmax(BETA * rewards, 0) * N),
    }


def losses(made, given, guided):
    abar = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
    signal = abar[given["timesteps"]].view(-1, 1, 1, 1)
    x_t = signal.sqrt() * given["x_0"] + (1 - signal).sqrt() * given["eps"]
    t, cond = given["timesteps"], given["cond"]
    eps = made.unet(x_t, t, cond).sample
    if guided:
        of_nothing = made.unet(x_t, t, given["uncond"].expand_as(cond)).sample
        eps = of_nothing + SCALE * (eps - of_nothing)
    return ((given["eps"] - eps) ** 2).mean(dim=(1, 2, 3))


def grads(unet, loss):
    found = torch.autograd.grad(loss, list(unet.parameters()))
    return {name: grad for (name, _), grad in zip(unet.named_parameters(), found)}


def main():
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(2)
    made = load()
    write(OUT / "posterior.safetensors", posterior(made, generator))
    given = batch(generator)
    made.unet.requires_grad_(True)

    def loss(guided=False):
        return losses(made, given, guided)

    found = {
        "mean": grads(made.unet, loss().mean()),
        "single": grads(made.unet, loss()[SINGLE] / N),
        "softmax": grads(made.unet, (given["weights"] * loss()).mean()),
        "guided": grads(made.unet, loss(guided=True).mean()),
    }
    each = {"losses": loss().detach(), "losses.guided": loss(guided=True).detach()}
    write(OUT / "batch.safetensors", given | each)
    write(OUT / "grads.safetensors", {f"{of}.{k}": v for of, all in found.items() for k, v in all.items()})


if __name__ == "__main__":
    main()
