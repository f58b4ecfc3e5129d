"""Seeded weights for small random models, scaled so that no layer is flat."""

import torch


def fill(net, seed):
    """Draws every parameter of `net`: matrices at 0.5, vectors at 0.2, the scales of norms around one."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sorted(net.named_parameters()):
        scale = 0.5 if weight.ndim >= 2 else 0.2
        values = scale * torch.randn(weight.shape, generator=generator)
        is_norm = weight.ndim == 1 and name.endswith("weight")
        weight.data.copy_(values + 1 if is_norm else values)
    return net.eval()
