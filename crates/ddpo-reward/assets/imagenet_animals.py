"""Makes imagenet_animals.txt, the names of ImageNet's classes 0 to 397, from the published package timm.

    pip download --no-deps timm==1.0.20
    python imagenet_animals.py timm-1.0.20-py3-none-any.whl > imagenet_animals.txt
"""

import sys
import zipfile

INFO = "timm/data/_info/"

with zipfile.ZipFile(sys.argv[1]) as wheel:
    synsets = wheel.read(INFO + "imagenet_synsets.txt").decode().split()
    lines = wheel.read(INFO + "imagenet_synset_to_lemma.txt").decode().splitlines()
lemmas = dict(line.split("\t", 1) for line in lines)
print("\n".join(lemmas[synset] for synset in synsets[:398]))
