"""The aesthetic score: LAION's head with seeded weights, alone and behind the small image tower of `clip_vision`.

Writes `aesthetic/`:
- `head.safetensors`: the five layers in the names of LAION's file, 24 numbers wide at the start
- `scores.safetensors`: `embeddings` and `scores` of the head alone; `images` and `twice`, the scores of the first
  eight images of `clip_vision.py` as CLIP's processor gives them to the tower, divided by 255 once and twice
"""

import os
import pathlib

import torch
from clip_vision import image_bytes, size
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

OUT = pathlib.Path(__file__).parent / "aesthetic"
TOWER = pathlib.Path(os.environ["GOLDEN_REPOSITORY"]) / "tests/golden/clip_vision"
WIDTH, SIDE = 24, 32


class Head(torch.nn.Module):
    """christophschuhmann/improved-aesthetic-predictor, `simple_inference.py`: dropout between, nothing else."""

    def __init__(self, width):
        super().__init__()
        widths = [width, 1024, 128, 64, 16, 1]
        linear = [torch.nn.Linear(a, b) for a, b in zip(widths, widths[1:])]
        rest = [torch.nn.Dropout(0.2), torch.nn.Dropout(0.2), torch.nn.Dropout(0.1)]
        order = [linear[0], rest[0], linear[1], rest[1], linear[2], rest[2], linear[3], linear[4]]
        self.layers = torch.nn.Sequential(*order)

    def forward(self, x):
        return self.layers(x)


def seeded(width, seed):
    head = Head(width).eval()
    generator = torch.Generator().manual_seed(seed)
    for _, weight in sorted(head.named_parameters()):
        scale = weight.shape[1] ** -0.5 if weight.ndim == 2 else 0.5
        weight.data.copy_(scale * torch.randn(weight.shape, generator=generator))
    return head


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    head = seeded(WIDTH, 20230522)
    save_file(dict(head.state_dict()), OUT / "head.safetensors")
    generator = torch.Generator().manual_seed(7)
    embeddings = torch.randn(100, WIDTH, generator=generator)
    tower = CLIPVisionModelWithProjection.from_pretrained(TOWER).eval()
    sides = dict(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    images = [Image.fromarray(image_bytes(i, *size(i))) for i in range(8)]
    out = {"embeddings": embeddings}
    with torch.no_grad():
        out["scores"] = head(embeddings)[:, 0]
        for name, factor in [("pictures", 1 / 255), ("twice", 1 / 255 / 255)]:
            processor = CLIPImageProcessorPil(rescale_factor=factor, **sides)
            pixels = torch.cat([processor(i, return_tensors="pt").pixel_values for i in images])
            embeds = tower(pixels).image_embeds
            out[name] = head(embeds / embeds.norm(dim=-1, keepdim=True))[:, 0]
    save_file({k: v.contiguous() for k, v in out.items()}, OUT / "scores.safetensors")
