"""Bright images score high: a reward for `reward.kind = "command"`. Needs Pillow."""
import base64, io, json, sys
from PIL import Image, ImageStat

for line in sys.stdin:
    job = json.loads(line)
    image = Image.open(io.BytesIO(base64.b64decode(job["png"])))
    score = ImageStat.Stat(image.convert("L")).mean[0] / 255
    print(json.dumps({"score": score}), flush=True)
