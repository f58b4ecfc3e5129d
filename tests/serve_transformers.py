"""Asks a chat server by others: `transformers serve` with a tiny random LLaVA, on this machine alone.

    python tests/serve_transformers.py --ddpo target/debug/ddpo

What it needs is in tests/serve_requirements.txt. The model is made here from a seed: it has two layers, knows forty
words, and says nonsense, but the same nonsense each time. Four things are checked:

- `ddpo score` gets an answer about every image from the server, several requests at a time;
- each answer is the one that `model.generate` gives in this process for the same image and question;
- each score is 1 where the answer has the prompt in it, else 0, and both occur;
- with the server gone, the cache gives the same scores again, and without the cache the exit code is 4.
"""

import argparse
import csv
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

QUESTION = "What animal is in this image?"
WORDS = """what animal is in this image ? how many are there a an the one two three four five six seven eight
cat dog horse monkey rabbit bird sheep cow lion tiger bear fox wolf fish frog pig and see i""".split()
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}"
)
N_IMAGES = 12
MAX_TOKENS = 8


def make_model(folder: Path) -> LlavaForConditionalGeneration:
    """A LLaVA of random weights that are large enough for the image to matter."""
    torch.manual_seed(0)
    vocab = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    words = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    text = LlamaConfig(
        vocab_size=len(vocab), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128, initializer_range=0.5,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        image_size=32, patch_size=8, initializer_range=0.5,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=vocab["<image>"], image_seq_length=16)
    model = LlavaForConditionalGeneration(config).eval()
    # Neither the end nor a special token is ever said.
    model.lm_head.weight.data[: len(SPECIAL)] = 0
    model.generation_config.suppress_tokens = list(range(len(SPECIAL)))
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=tokenizer, patch_size=8, vision_feature_select_strategy="default",
        chat_template=TEMPLATE, num_additional_image_tokens=1,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def make_images(folder: Path) -> list[Path]:
    generator = torch.Generator().manual_seed(1)
    files = []
    for i in range(N_IMAGES):
        coarse = torch.randint(0, 256, (4, 4, 3), generator=generator, dtype=torch.uint8)
        file = folder / f"{i:02}.png"
        Image.fromarray(coarse.numpy()).resize((32, 32), Image.Resampling.BICUBIC).save(file)
        files.append(file)
    return files


def expected_answers(model, processor, files: list[Path]) -> list[str]:
    answers = []
    for file in files:
        content = [{"type": "image", "url": str(file)}, {"type": "text", "text": QUESTION}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        )
        with torch.no_grad():
            out = model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        text = processor.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
        answers.append(text.strip())
    return answers


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if server.poll() is not None:
            sys.exit(f"the server ended:\n{log.read_text()}")
        try:
            urllib.request.urlopen(url + "/health", timeout=1).read()
            return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"no server after two minutes:\n{log.read_text()}")


def score(ddpo: Path, url: str, model: Path, images: Path, prompts: Path, out: Path, *more: str):
    sets = [
        f"reward.vlm.url={url}", f"reward.vlm.model={model}", "reward.vlm.encoding=png",
        f"reward.vlm.max_tokens={MAX_TOKENS}", "reward.vlm.in_flight=4", *more,
    ]
    command = [ddpo, "score", "--reward", "vlm-vqa", "--images", images, "--prompts", prompts, "--out", out]
    for pair in sets:
        command += ["--set", pair]
    return subprocess.run(command, capture_output=True, text=True)


def rows(file: Path) -> list[dict]:
    return list(csv.DictReader(file.open()))


def check(ddpo: Path, folder: Path) -> None:
    model_dir, images = folder / "tiny-llava", folder / "images"
    images.mkdir()
    model, processor = make_model(model_dir)
    files = make_images(images)
    expected = expected_answers(model, processor, files)
    # Every other image is asked for an animal, or at least a word, that its answer has.
    wanted = [e.split()[0] if i % 2 == 0 else "zebra" for i, e in enumerate(expected)]
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(wanted) + "\n")

    port, log = free_port(), folder / "server.log"
    url = f"http://127.0.0.1:{port}"
    serve = [
        Path(sys.executable).parent / "transformers", "serve", "--host", "127.0.0.1", "--port", str(port),
        "--device", "cpu", "--dtype", "float32",
    ]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("w") as out:
        server = subprocess.Popen(serve, stdout=out, stderr=out, env=offline)
    try:
        wait_for(url, server, log)
        print("`transformers serve` answers on this machine")
        cache = f"reward.cache={folder / 'scores'}"
        table = folder / "scores.csv"
        ended = score(ddpo, url, model_dir, images, prompts, table, cache)
        assert ended.returncode == 0, ended.stderr + log.read_text()
        print(ended.stdout.strip().replace(str(folder), "DIR"))
    finally:
        server.terminate()
        server.wait()

    scored = rows(table)
    for row, answer, want in zip(scored, expected, wanted, strict=True):
        print(f"  {Path(row['file']).name}  asked for {want:7} score {row['reward']}  answer: {row['answer']}")
        assert row["answer"] == answer, f"here it says: {answer}"
        assert float(row["reward"]) == float(want in answer)
    assert {row["reward"] for row in scored} == {"0", "1"}
    assert len({row["answer"] for row in scored}) > 1, "the image matters"
    print("every answer is the one that model.generate gives for the image")

    again = folder / "again.csv"
    ended = score(ddpo, url, model_dir, images, prompts, again, cache, "reward.offline=true")
    assert ended.returncode == 0 and rows(again) == scored, ended.stderr
    print("server gone, from the cache: the same table")
    ended = score(ddpo, url, model_dir, images, prompts, again, "reward.vlm.deadline=1")
    assert ended.returncode == 4 and "Connection refused" in ended.stderr, ended.stderr
    print("server gone, without the cache: exit 4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ddpo", type=Path, required=True, help="the program")
    args = parser.parse_args()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        check(args.ddpo.resolve(), Path(folder))


if __name__ == "__main__":
    main()
