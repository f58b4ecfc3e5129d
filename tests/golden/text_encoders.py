"""BERT, DeBERTa and BERTScore, as transformers and bert-score run them on small seeded models.

Writes `text_encoders/bert/` and `text_encoders/deberta/`, each a model's folder as transformers saves it
(`config.json`, `model.safetensors`), its tokenizer (`vocab.txt`, or `vocab.json` and `merges.txt`), and
- `states.safetensors`: `ids` and the states after the embedding and each layer
- `scores.json`: pairs of texts, their ids, and precision, recall and F1 of each pair alone at `n_layers`
"""

import json
import pathlib
from collections import Counter

import bert_score
import torch
from _weights import fill
from safetensors.torch import save_file
from transformers import AutoTokenizer, BertConfig, BertModel, DebertaConfig, DebertaForSequenceClassification
from transformers.convert_slow_tokenizer import bytes_to_unicode

OUT = pathlib.Path(__file__).parent / "text_encoders"
LAYERS, N_LAYERS = 4, 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAIRS = [
    ("a dog riding a bike", "a dog riding a bike"),
    ("A dog is riding a red bike.", "a dog riding a bike"),
    ("a cat", "a monkey washing the dishes"),
    ("The image contains a cat playing chess with a dog, and two horses", "The image contains a cat playing chess"),
    ("  spaces around it \n", "spaces around it"),
    ("", "a cat"),
    ("a cat", ""),
    ("\u00dcber stra\u00dfe caf\u00e9 \u732b \U0001f431", "caf\u00e9 \u732b"),
    ("x", "y"),
    ("[SEP] a cat [CLS] in brackets", "a [MASK] cat"),
    ("washing, washing; washing!!! 3.14", "wash-ing 314"),
    (" ".join(["a very long sentence about a zebra"] * 12), "a zebra"),
]


def words():
    counts = Counter()
    for pair in PAIRS:
        for text in pair:
            counts.update(text.lower().replace(",", " ").replace(".", " ").split())
    return sorted(counts)


def bert_tokenizer(folder):
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,;!-[]\u732b"
    whole = [w for w in words() if w.isascii() and w.isalpha() and len(w) > 2][::2]
    tokens = dict.fromkeys([*SPECIAL, *letters, *(f"##{c}" for c in letters), *whole, "##ing", "##es"])
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return len(tokens)


def deberta_tokenizer(folder):
    """GPT-2's byte pairs: a few merges, most frequent first, ties by name."""
    table = bytes_to_unicode()
    cut = Counter()
    for pair in PAIRS:
        for text in pair:
            for i, word in enumerate(text.split()):
                spelt = ("" if i == 0 else " ") + word
                cut[tuple(table[b] for b in spelt.encode())] += 1
    merges = []
    while len(merges) < 60:
        pairs = Counter()
        for word, n in cut.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = Counter()
        for word, n in cut.items():
            out = []
            for piece in word:
                if out and (out[-1], piece) == best:
                    out[-1] += piece
                else:
                    out.append(piece)
            merged[tuple(out)] += n
        cut = merged
    tokens = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", *table.values(), *(a + b for a, b in merges), "[MASK]"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, indent=0) + "\n")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(tokens)


def bert(vocab_size):
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
    )
    net = BertModel(config)
    return net, net


def deberta(vocab_size):
    """As `microsoft/deberta-xlarge-mnli`, but small, and with its head."""
    config = DebertaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        relative_attention=True,
        max_relative_positions=12,
        pos_att_type="c2p|p2c",
        position_biased_input=False,
        type_vocab_size=0,
        pad_token_id=1,
    )
    net = DebertaForSequenceClassification(config)
    return net, net.deberta


def write(name, make_tokenizer, make_model):
    folder = OUT / name
    folder.mkdir(parents=True)
    vocab_size = make_tokenizer(folder)
    saved, net = make_model(vocab_size)
    fill(saved, 20230522)
    saved.save_pretrained(folder)
    kind = {"bert": "BertTokenizer", "deberta": "DebertaTokenizer"}[name]
    settings = {"tokenizer_class": kind, "model_max_length": 36}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(5, vocab_size, (3, 21), generator=generator)
    with torch.no_grad():
        states = net(ids, output_hidden_states=True).hidden_states
    named = {f"state_{i}": s.contiguous() for i, s in enumerate(states)}
    save_file({"ids": ids, **named}, folder / "states.safetensors")

    tokenizer = AutoTokenizer.from_pretrained(folder)
    scorer = bert_score.BERTScorer(str(folder), num_layers=N_LAYERS, use_fast_tokenizer=True)
    # bert-score calls it for an empty text; transformers 5 has it no more.
    special = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    scorer._tokenizer.build_inputs_with_special_tokens = lambda ids: [special[0], *ids, special[1]]
    rows = []
    for candidate, reference in PAIRS:
        p, r, f = (float(x) for x in scorer.score([candidate], [reference]))
        encode = lambda text: tokenizer.encode(text.strip(), max_length=36, truncation=True)
        ids = [encode(candidate), encode(reference)]
        rows.append({"candidate": candidate, "reference": reference, "ids": ids, "scores": [p, r, f]})
    (folder / "scores.json").write_text(json.dumps({"n_layers": N_LAYERS, "pairs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    write("bert", bert_tokenizer, bert)
    write("deberta", deberta_tokenizer, deberta)
