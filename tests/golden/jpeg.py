"""Images, the JPEG files that Pillow makes of them, and their colourfulness by numpy.

Writes `jpeg/images.bin` (lossless WebP files, one after another) and `jpeg/expected.json`, one entry per
image: name, height, width, length in images.bin, bytes and CRC-32 of Pillow's file, colourfulness.

Besides noise, flat images and drawn faces there are 40 drawings of Noto Emoji (Apache-2.0) and Fluent Emoji
(MIT), from the sheets of ddpo-pocket; crates/ddpo-pocket/assets/artwork/LICENSES.md names the authors.

Everything is drawn with whole numbers (Pillow resizes bytes in fixed point), so that another machine
regenerates the same images.
"""

import io
import json
import os
import pathlib
import zlib

import numpy as np
from PIL import Image, ImageDraw

OUT = pathlib.Path(__file__).parent / "jpeg"
REPOSITORY = pathlib.Path(os.environ.get("GOLDEN_REPOSITORY", OUT.parents[2]))
RNG = np.random.default_rng(20230522)


def photograph(height, width, quarters):
    """Coloured noise: octaves of smooth noise, each `quarters` / 4 as strong as the one before; 2 is 1/f."""
    total = np.zeros((height, width, 3), np.int64)
    side, strength = 2, 4**5
    while side < 2 * max(height, width):
        grid = RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)
        octave = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(octave, np.int64) * strength
        side, strength = side * 2, strength * quarters // 4
    low, high = total.min(), max(total.max(), total.min() + 1)
    return ((total - low) * 255 // (high - low)).astype(np.uint8)


def noise(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(height, width):
    return np.broadcast_to(RNG.integers(0, 256, 3, dtype=np.uint8), (height, width, 3)).copy()


def colour():
    return tuple(int(v) for v in RNG.integers(0, 256, 3))


def artwork(height, width, ground):
    """A face of ellipses and polygons, drawn four times too large and reduced, on a ground."""
    h, w = 4 * height, 4 * width
    image = Image.new("RGB", (w, h), (255, 255, 255) if ground == "white" else colour())
    draw = ImageDraw.Draw(image)
    step = max(4, w // 8)
    if ground == "stripes":
        for x in range(0, w, 2 * step):
            draw.rectangle((x, 0, x + step - 1, h), fill=colour())
    if ground == "checkers":
        for y in range(0, h, step):
            for x in range((y // step % 2) * step, w, 2 * step):
                draw.rectangle((x, y, x + step - 1, y + step - 1), fill=(230, 230, 230))
    if ground == "noise":
        image.paste(Image.fromarray(noise(height, width)).resize((w, h), Image.Resampling.NEAREST))
    cx, cy, r = w // 2, h // 2, min(w, h) // 3
    skin, dark = colour(), (40, 30, 30)
    for side in (-1, 1):
        ear = [(cx + side * r, cy - r // 4), (cx + side * r // 3, cy - r // 2), (cx + side * r, cy - 5 * r // 4)]
        draw.polygon(ear, fill=skin, outline=dark)
    draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=skin, outline=dark, width=max(1, r // 16))
    for side in (-1, 1):
        x = cx + side * r // 3
        draw.ellipse((x - r // 8, cy - r // 3, x + r // 8, cy - r // 12), fill=dark)
    draw.polygon([(cx - r // 8, cy + r // 8), (cx + r // 8, cy + r // 8), (cx, cy + r // 3)], fill=colour())
    draw.arc((cx - r // 2, cy, cx + r // 2, cy + 2 * r // 3), 20, 160, fill=dark, width=max(1, r // 12))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


def drawing(sheet, cell, ground):
    """One drawing of a sheet of 80×80 cells, 16 in a row, on a 64×64 ground."""
    left, top = cell % 16 * 80, cell // 16 * 80
    glyph = sheet.crop((left, top, left + 80, top + 80)).resize((56, 56), Image.Resampling.LANCZOS)
    if ground == "noise":
        image = Image.fromarray(noise(64, 64) // 4 + 96)
    else:
        image = Image.new("RGB", (64, 64), (255, 255, 255) if ground == "white" else colour())
    if ground == "stripes":
        draw = ImageDraw.Draw(image)
        for x in range(0, 64, 16):
            draw.rectangle((x, 0, x + 7, 63), fill=colour())
    image.paste(glyph, (4, 4), glyph)
    return np.asarray(image)


def all_images():
    for i in range(60):
        height, width = (int(v) for v in RNG.integers(16, 65, 2)) if i >= 12 else (64, 64)
        yield f"photograph/{i}", photograph(height, width, (1, 2, 3)[i % 3])
    for i in range(2):
        yield f"photograph/large{i}", photograph(160 + i, 200 - i, 1)
    for i in range(40):
        height, width = (int(v) for v in RNG.integers(4, 33, 2)) if i >= 2 else (64, 64)
        yield f"noise/{i}", noise(height, width)
    for i, side in enumerate([1, 7, 8, 9, 15, 16, 17, 24, 32, 48, 63, 64, 65, 128, 256, 512] * 2):
        yield f"flat/{i}", flat(side, side)
    for name, value in [("black", 0), ("grey", 128), ("white", 255)]:
        yield f"flat/{name}", np.full((512, 512, 3), value, np.uint8)
    for i in range(60):
        ground = ["white", "white", "plain", "stripes", "checkers", "noise"][i % 6]
        side = 64 if i < 48 else 128
        if i >= 48 and ground == "noise":
            side = 40
        yield f"artwork/{i}-{ground}", artwork(side, side, ground)
    sizes = [(1, 1), (7, 3), (3, 7), (63, 65), (65, 63), (1, 100), (100, 1), (2, 2), (8, 8), (9, 9)]
    sizes += [(15, 17), (17, 15), (16, 16), (33, 31), (5, 64), (64, 5)]
    for height, width in sizes:
        yield f"odd/noise-{height}x{width}", noise(height, width)
        yield f"odd/photograph-{height}x{width}", photograph(height, width, 2)
    for name in ["noto", "fluent_3d"]:
        folder = REPOSITORY / "crates/ddpo-pocket/assets/artwork"
        sheet = Image.open(folder / f"{name}.webp").convert("RGBA")
        for i in range(20):
            ground = ["white", "plain", "stripes", "noise"][i % 4]
            yield f"drawing/{name}-{7 * i}-{ground}", drawing(sheet, 7 * i, ground)


def jpeg_file(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def colourfulness(pixels):
    """Hasler and Süsstrunk 2003."""
    r, g, b = np.moveaxis(pixels.astype(np.float64), -1, 0)
    rg, yb = r - g, (r + g) / 2 - b
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def main():
    OUT.mkdir(exist_ok=True)
    entries = []
    with open(OUT / "images.bin", "wb") as images:
        for name, pixels in all_images():
            lossless, jpeg = io.BytesIO(), jpeg_file(pixels)
            Image.fromarray(pixels).save(lossless, "WEBP", lossless=True, quality=100, method=6, exact=True)
            images.write(lossless.getvalue())
            entries.append({
                "name": name,
                "height": pixels.shape[0],
                "width": pixels.shape[1],
                "stored": len(lossless.getvalue()),
                "jpeg_bytes": len(jpeg),
                "jpeg_crc32": zlib.crc32(jpeg),
                "colourfulness": round(colourfulness(pixels), 9),
            })
    lines = ",\n".join(json.dumps(e) for e in entries)
    (OUT / "expected.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(entries)} images, {(OUT / 'images.bin').stat().st_size} bytes")


if __name__ == "__main__":
    main()
