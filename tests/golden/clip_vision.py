"""CLIP's image tower as transformers runs it on a small seeded model, and its image processor on 50 images.

Writes `clip_vision/`:
- `config.json`, `model.safetensors`: the model with projection, as transformers saves it
- `forward.safetensors`: `pixels`; `state_0`, the tokens before the first block, and `state_1` and `state_2`, those after
  each; `last_hidden_state`, `image_embeds`, and `grad`, that of `(image_embeds * probe).sum()` by `pixels`
- `pictures.safetensors`: for each of 50 images of odd sizes, made by `image_bytes()` below: `sizes` (height, width),
  `crc32` of the processor's 224 x 224 x 3 bytes, `samples`, its bytes at every 151st place, and for the first
  image `pixel_values`
"""

import pathlib
import zlib

import numpy as np
import torch
from _weights import fill
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

OUT = pathlib.Path(__file__).parent / "clip_vision"
N_IMAGES = 50


def image_bytes(i, height, width):
    """Integers only, so that the test makes the same bytes: a gradient, stripes, or noise."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    y, x, c = (a.astype(np.uint32) for a in (y, x, c))
    hashed = (x * 73856093) ^ (y * 19349663) ^ (c * 83492791) ^ np.uint32(i * 2654435 + 1)
    noise = (hashed * np.uint32(2654435761)) >> 24
    kinds = [
        (x * 255 // width + y * 255 // height + c * 40) // 2 % 256,
        np.where((x // 3 + y // 5 + c) % 2 == 0, np.uint32(255), np.uint32(20)),
        noise,
        (x * 255 // width // 2 + noise // 2) % 256,
    ]
    return kinds[i % 4].astype(np.uint8)


def size(i):
    """Odd sides from 17 to about 700; every fifth image is tall and narrow."""
    height, width = 17 + (i * 97) % 480 // 2 * 2, 19 + (i * 61) % 340 // 2 * 2
    return (2 * height + 1, width) if i % 5 == 4 else (height, width)


def images():
    processor = CLIPImageProcessorPil()
    bytes_only = CLIPImageProcessorPil(do_rescale=False, do_normalize=False)
    sizes, checksums, samples, out = [], [], [], {}
    for i in range(N_IMAGES):
        height, width = size(i)
        image = Image.fromarray(image_bytes(i, height, width))
        square = np.asarray(bytes_only(image, return_tensors="np").pixel_values[0])
        square = np.ascontiguousarray(square.transpose(1, 2, 0)).astype(np.uint8)
        assert square.shape == (224, 224, 3)
        sizes.append([height, width])
        checksums.append(zlib.crc32(square.tobytes()))
        samples.append(square.reshape(-1)[::151])
        if i == 0:
            values = processor(image, return_tensors="pt").pixel_values[0]
            out["pixel_values"] = values.float()[:, ::4, ::4].contiguous()
    out["sizes"] = torch.tensor(sizes)
    out["crc32"] = torch.tensor(checksums)
    out["samples"] = torch.from_numpy(np.stack(samples))
    save_file(out, OUT / "pictures.safetensors")


def model():
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        projection_dim=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    )
    net = fill(CLIPVisionModelWithProjection(config), 20230522)
    net.save_pretrained(OUT)
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randn(3, 3, 32, 32, generator=generator, requires_grad=True)
    probe = torch.randn(3, 24, generator=generator)
    out = net(pixels, output_hidden_states=True)
    (out.image_embeds * probe).sum().backward()
    named = {
        "pixels": pixels,
        "probe": probe,
        "last_hidden_state": out.last_hidden_state,
        "image_embeds": out.image_embeds,
        "grad": pixels.grad,
    }
    named |= {f"state_{i}": state for i, state in enumerate(out.hidden_states)}
    save_file({k: v.detach().clone().contiguous() for k, v in named.items()}, OUT / "forward.safetensors")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    model()
    images()
