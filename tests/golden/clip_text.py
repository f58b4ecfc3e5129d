"""CLIP's text model and tokenizer, as transformers runs them, on a small seeded model and a small vocabulary.

Writes `clip_text/`:
- `model.safetensors`: weights in the names that transformers writes, `ids`, and for each activation the
  output, the loss (sum of squares of output times `probe`) and the gradient of every weight
- `config.json`: the model's configuration, as transformers saves it
- `vocab.json`, `merges.txt`, `tokenizer_config.json`, `special_tokens_map.json`: a tokenizer folder in the
  form of Stable Diffusion v1.4's, its merges learnt here from a few sentences
- `tokens.json`: texts, their ids padded to the folder's length, and the same with "!" as padding, as
  Stable Diffusion 2 declares it
"""

import json
import pathlib
from collections import Counter

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

OUT = pathlib.Path(__file__).parent / "clip_text"
LENGTH = 24
SENTENCES = """
a cat a dog a horse a monkey a rabbit a zebra a spider a bird a sheep a deer a cow a goat a lion a tiger a bear
a raccoon a fox a wolf a lizard a beetle an ant a butterfly a fish a shark a whale a dolphin a squirrel a mouse
a rat a snake a turtle a frog a chicken a duck a goose a bee a pig a turkey a fly a llama a camel a bat a gorilla
a hedgehog a kangaroo riding a bike playing chess washing the dishes a photograph of a very green rabbit
the quick brown fox jumps over the lazy dog and doesn't look back , it's what they'll do when we've won
"""
TEXTS = [
    "",
    " ",
    "a cat",
    "A Cat",
    "a  cat\t\n and   a dog ",
    "a photograph of an astronaut riding a horse",
    "a monkey washing the dishes",
    "a hedgehog playing chess, highly detailed",
    "it's the dog's bowl; they'll say we've won, don't they?",
    "IT'S THE DOG'S BOWL; THEY'LL SAY WE'VE WON, I'D SAY I'M",
    "10 dogs, 3 cats and 1024 llamas in 2023",
    "3.14159 and 1,000,000 and 50%",
    "hello,world!this is...one-word_or two?",
    "((masterpiece:1.3)), [best|quality] <lora:x:0.5>",
    "caf\u00e9 na\u00efve fa\u00e7ade \u00fcber stra\u00dfe",
    "cafe\u0301 with a combining accent",
    "\u00c5ngstr\u00f6m \u0130stanbul \u01c5 \u0391\u03a3",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 and \u4e2d\u6587",
    "\u043a\u043e\u0448\u043a\u0430 \u0438 \u0421\u041e\u0411\u0410\u041a\u0410",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u092c\u093f\u0932\u094d\u0932\u0940",
    "emoji \U0001f431 and \U0001f469\u200d\U0001f680 and \u2764\ufe0f",
    "\u2018curly\u2019 \u201cquotes\u201d \u2014 dash \u2026 it\u2019s",
    "non\u00a0breaking\u2003wide\u200bzero\u3000ideographic",
    "\u00bd \u00b2 \u2167 \u2460 \u0664\u0665",
    "\ufb01sh and \uff21\uff22\uff23",
    "control\x00char\x07bell\x7f",
    "a<|endoftext|>b",
    "<|startoftext|> a cat <|endoftext|>",
    "<|EndOfText|> A CAT",
    "a cat </w> </w>cat cat</w>",
    "supercalifragilisticexpialidocious",
    "x" * 200,
    "a cat and a dog and a horse and a monkey and a rabbit and a zebra and a spider and a bird and a sheep",
    ", ".join(str(i) for i in range(40)),
    "'s 't 're 've 'm 'll 'd 'S 'LL ''s",
    "\ud55c\uad6d\uc5b4 \uace0\uc591\uc774 \u1112\u1161\u11ab",
    "line\r\nbreaks\rand\u2028more",
]


def learn_merges(n_merges):
    """Byte-pair merges with `</w>` on the last piece of a word; ties go to the pair that sorts first."""
    words = Counter()
    for word in SENTENCES.replace("'", " '").split():
        words[(*word[:-1], word[-1] + "</w>")] += 1
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = Counter()
        for word, count in words.items():
            out = []
            for piece in word:
                if out and (out[-1], piece) == best:
                    out[-1] += piece
                else:
                    out.append(piece)
            merged[tuple(out)] += count
        words = merged
    return merges


def write_json(name, value):
    (OUT / name).write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n")


def tokenizer_folder():
    merges = learn_merges(180)
    bytes_ = list(bytes_to_unicode().values())
    tokens = bytes_ + [b + "</w>" for b in bytes_] + [a + b for a, b in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    write_json("vocab.json", {token: i for i, token in enumerate(tokens)})
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (OUT / "merges.txt").write_text("\n".join(lines) + "\n")

    def added(content):
        flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        return {"content": content, **flags}

    special = {
        "bos_token": added("<|startoftext|>"),
        "eos_token": added("<|endoftext|>"),
        "pad_token": "<|endoftext|>",
        "unk_token": added("<|endoftext|>"),
    }
    write_json("special_tokens_map.json", special)
    typed = {k: v if isinstance(v, str) else {"__type": "AddedToken", **v} for k, v in special.items()}
    more = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": LENGTH}
    write_json("tokenizer_config.json", {**more, "tokenizer_class": "CLIPTokenizer", **typed})
    return len(tokens)


def encode(tokenizer, texts):
    return tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True).input_ids


def tokens():
    tokenizer = CLIPTokenizer.from_pretrained(OUT)
    plain = CLIPTokenizer.from_pretrained(OUT, pad_token="!")
    write_json(
        "tokens.json",
        {
            "max_length": tokenizer.model_max_length,
            "texts": TEXTS,
            "ids": encode(tokenizer, TEXTS),
            "padded_with_exclamation_mark": encode(plain, TEXTS),
        },
    )


def model(vocab_size):
    config = CLIPTextConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=95,
        eos_token_id=96,
        pad_token_id=96,
    )
    generator = torch.Generator().manual_seed(20230522)
    out = {}
    net = CLIPTextModel(config).eval()
    for name, weight in net.named_parameters():
        scale = 0.5 if weight.ndim == 2 else 0.2
        values = scale * torch.randn(weight.shape, generator=generator)
        is_norm = weight.ndim == 1 and name.endswith("weight")
        weight.data.copy_(values + 1 if is_norm else values)
        out[f"weights.{name}"] = weight.detach().clone()
    ids = torch.randint(0, 95, (3, LENGTH), generator=generator)
    ids[:, 0], ids[0, 5:], ids[1, 20:], ids[2, -1] = 95, 96, 96, 96
    probe = torch.randn(3, LENGTH, config.hidden_size, generator=generator)
    out.update(ids=ids, probe=probe)
    for act in ["quick_gelu", "gelu"]:
        config.hidden_act = act
        net = CLIPTextModel(config).eval()
        net.load_state_dict({n.removeprefix("weights."): w for n, w in out.items() if n.startswith("weights.")})
        y = net(ids).last_hidden_state
        loss = (y * probe).square().sum()
        loss.backward()
        out[f"{act}.output"], out[f"{act}.loss"] = y.detach().clone(), loss.detach().clone()
        for name, weight in net.named_parameters():
            out[f"{act}.grads.{name}"] = weight.grad.clone()
    config.hidden_act = "quick_gelu"
    config.architectures = ["CLIPTextModel"]
    config.save_pretrained(OUT)
    save_file({k: v.contiguous() for k, v in out.items()}, OUT / "model.safetensors")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    model(tokenizer_folder())
    tokens()
