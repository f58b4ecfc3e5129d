"""ImageReward on a small seeded BLIP: image tower and cross-attending text encoder by transformers, head by torch.

Writes `image_reward/`:
- `ImageReward.safetensors`: the weights in the names of `ImageReward.pt`
- `config.json`: the sizes as transformers saves them
- `vocab.txt`: the tokenizer of `text_encoders.py`, with the two tokens that BLIP adds
- `states.safetensors`: `ids`, `pixels`, and the states after the embeddings, each layer and the last norm
- `scores.json`: prompts and the first images of `clip_vision.py`, scored as `ImageReward.score` does: the prompt padded
  to 35 tokens and masked, the image through torchvision's steps
"""

import json
import pathlib

import numpy as np
import torch
from _weights import fill
from aesthetic import seeded
from clip_vision import image_bytes, size
from PIL import Image
from safetensors.torch import save_file
from text_encoders import bert_tokenizer
from transformers import BertTokenizer, BlipConfig, BlipTextConfig, BlipVisionConfig, BlipVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.blip.modeling_blip_text import BlipTextModel

OUT = pathlib.Path(__file__).parent / "image_reward"
SIDE, MEAN, STD = 32, 0.16717362830052426, 1.0333394966054072
PROMPTS = [
    "a dog riding a bike",
    "A cat, washing the dishes!",
    "",
    "a monkey playing chess " * 6,
    "caf\u00e9 \u732b",
    "a zebra",
]


def vision():
    config = BlipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=8,
        layer_norm_eps=1e-6,
    )
    return fill(BlipVisionModel(config), 1)


def text(vocab_size):
    config = BlipTextConfig(
        vocab_size=vocab_size,
        hidden_size=24,
        encoder_hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=40,
        is_decoder=True,  # what gives it cross-attention; it is run as an encoder below
        bos_token_id=0,
        sep_token_id=0,
        pad_token_id=0,
    )
    return fill(BlipTextModel(config, add_pooling_layer=False), 2)


def published(vision, text, head):
    """The names of `ImageReward.pt`, which are timm's and BLIP's."""
    renamed = {}
    for name, tensor in vision.state_dict().items():
        for ours, theirs in [
            ("embeddings.class_embedding", "cls_token"),
            ("embeddings.position_embedding", "pos_embed"),
            ("embeddings.patch_embedding", "patch_embed.proj"),
            ("encoder.layers", "blocks"),
            ("self_attn.qkv", "attn.qkv"),
            ("self_attn.projection", "attn.proj"),
            ("layer_norm1", "norm1"),
            ("layer_norm2", "norm2"),
            ("post_layernorm", "norm"),
        ]:
            name = name.replace(ours, theirs)
        renamed[f"blip.visual_encoder.{name}"] = tensor
    renamed |= {f"blip.text_encoder.{n}": t for n, t in text.state_dict().items()}
    renamed |= {f"mlp.{n}": t for n, t in head.state_dict().items()}
    renamed["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    renamed["blip.vision_proj.weight"] = torch.zeros(4, 32)
    return {n: t.contiguous() for n, t in renamed.items()}


def preprocess(image):
    """torchvision's Resize(bicubic), CenterCrop, ToTensor and Normalize, written out over Pillow."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = int(SIDE * long / short)
    image = image.resize((SIDE, longer) if width <= height else (longer, SIDE), Image.Resampling.BICUBIC)
    left, top = (int(round((side - SIDE) / 2.0)) for side in image.size)
    image = image.crop((left, top, left + SIDE, top + SIDE))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return ((pixels - mean) / std)[None]


def states(vision, text, ids, pixels):
    by = dict(output_hidden_states=True)
    seen = vision(pixels, **by)
    said = text(ids, encoder_hidden_states=seen.last_hidden_state, is_decoder=False, **by)
    named = {f"vision_{i}": s for i, s in enumerate([*seen.hidden_states, seen.last_hidden_state])}
    return named | {f"text_{i}": s for i, s in enumerate(said.hidden_states)}


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    bert_tokenizer(OUT)
    tokenizer = BertTokenizer(str(OUT / "vocab.txt"))
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    vision, text, head = vision(), text(len(tokenizer)), seeded(24, 3)
    save_file(published(vision, text, head), OUT / "ImageReward.safetensors")
    sizes = BlipConfig(text_config=text.config.to_dict(), vision_config=vision.config.to_dict())
    sizes.to_json_file(OUT / "config.json")
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(5, len(tokenizer), (3, 11), generator=generator)
    pixels = torch.randn(3, 3, SIDE, SIDE, generator=generator)
    with torch.no_grad():
        named = {"ids": ids, "pixels": pixels, **states(vision, text, ids, pixels)}
    save_file({k: v.contiguous() for k, v in named.items()}, OUT / "states.safetensors")
    rows = []
    for i in range(12):
        prompt = PROMPTS[i % len(PROMPTS)]
        image = Image.fromarray(image_bytes(i, *size(i)))
        given = tokenizer(prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
        with torch.no_grad():
            seen = vision(preprocess(image)).last_hidden_state
            said = text(
                given.input_ids,
                attention_mask=given.attention_mask,
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long),
                is_decoder=False,
            )
            score = (head(said.last_hidden_state[:, 0]) - MEAN) / STD
        rows.append({"prompt": prompt, "picture": i, "score": score.item()})
    (OUT / "scores.json").write_text(json.dumps(rows, indent=1) + "\n")
