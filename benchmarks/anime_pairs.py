"""The pairs of the weights `anime-small`: photos, and what `anime` draws of them, its skin brought nearer.

The photos are those of anime_data.py, framed as `facekit align` frames faces; the skin of every fourth is darkened.
`facekit pairs` makes OUT, with `anime` as the teacher; where it draws long hair on short, the pair is kept, or few men
were left. Then the skin of each drawing that is further than --limit from its photo's is moved to that distance. The
teacher paints dark skin too light; its student need not learn that.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from anime_data import CLEARLY, DARKEST, Skin, frame, load, photos
from skimage.color import deltaE_ciede2000

import facekit
from facekit.storage import images

GROUP = 16  # pictures that the segmenter sees at once


def darken(skin: Skin, faces: Path) -> int:
    """Darken the skin of every fourth face by chance; returns of how many."""
    draw, count = random.Random(0), 0
    for path in sorted(faces.iterdir())[::4]:
        by = np.array([-CLEARLY - draw.random() * DARKEST["trainA"], draw.gauss(0, 2), draw.gauss(0, 2)])
        if moved := skin.moved(load(path), by):
            images.save(moved, path.with_name(f"{path.stem}-dark.png"))
            path.unlink()
            count += 1
    return count


def bring_near(skin: Skin, pairs: Path, limit: float) -> str:
    """Move the skin of drawings to `limit` from their photos', in CIEDE2000; returns how many and how far."""
    apart, after = [], []
    names = sorted(path.name for path in (pairs / "b").glob("*.png"))
    for start in range(0, len(names), GROUP):
        some = names[start : start + GROUP]
        faces, drawings = (torch.stack([load(pairs / side / name) for name in some]) for side in "ab")
        tones = [skin.tones(F.avg_pool2d(pictures, 2)) for pictures in (faces, drawings)]
        for name, drawing, own, drawn in zip(some, drawings, *tones, strict=True):
            if own is None or drawn is None:
                continue
            away = float(deltaE_ciede2000(own, drawn))
            apart.append(away)
            if away > limit and (moved := skin.moved(drawing, (1 - limit / away) * (own - drawn))):
                images.save(moved, pairs / "b" / name)
                away = limit
            after.append(away)
    moved = np.greater(apart, limit).sum()
    return f"{len(names):,} pairs, skin moved in {moved:,}: {np.mean(apart):.1f} apart, then {np.mean(after):.1f}"


def main() -> None:
    """Write the photos, the pairs, and what was done to their skin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that anime_data.py takes")
    parser.add_argument("out", type=Path, help="for the pairs; beside it come the photos, as OUT-photos")
    parser.add_argument("--limit", type=float, default=12.0, help="CIEDE2000 between the skin of photo and drawing")
    options = parser.parse_args()
    faces, skin = options.out.with_name(f"{options.out.name}-photos") / "faces", Skin()
    if not faces.exists():
        photos(options.data, faces)
        frame(faces)
        print(f"{len(list(faces.iterdir())):,} photos, {darken(skin, faces):,} darkened", flush=True)
    facekit.pairs(faces, options.out, teacher="anime", align=False, keep=["parts"])
    print(bring_near(skin, options.out, options.limit))


if __name__ == "__main__":
    main()
