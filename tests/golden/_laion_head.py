"""The scores that torch gives 1,000 embeddings with LAION's own head, for the test of ddpo-encoder that reads the file.

    python tests/golden/_laion_head.py sac+logos+ava1-l14-linearMSE.pth crates/ddpo-encoder/tests/laion_scores.safetensors
"""

import os
import sys

import torch
from safetensors.torch import save_file

os.environ.setdefault("GOLDEN_REPOSITORY", ".")
from aesthetic import Head  # noqa: E402

head, out = sys.argv[1:]
torch.set_num_threads(1)
net = Head(768).eval()
net.load_state_dict(torch.load(head, map_location="cpu", weights_only=True))
# Whole numbers, so that the test makes the same embeddings.
counted = torch.arange(1, 1000 * 768 + 1, dtype=torch.int64)
uniform = (counted * 2654435761 % 2**32).double() / 2**32 - 0.5
embeddings = uniform.float().view(1000, 768)
embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
with torch.no_grad():
    save_file({"scores": net(embeddings)[:, 0].contiguous()}, out)
