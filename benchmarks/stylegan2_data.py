"""The photos of the base generator of the StyleGAN2 family: aligned faces of five sets, in one folder.

DATA holds selfie2anime-256, celebamask-256, photo2cartoon-256, utkface-128 and face2genshin-256. The first three are
aligned; selfies with more than 36 % of the crop outside the photo are left out, for mirrored borders would be learned.
The last two are tight crops of faces, and are taken as they are.
"""

import argparse
import contextlib
import json
import shutil
from pathlib import Path

import numpy as np

import facekit
from facekit.errors import SomeFailed

ALIGNED = {
    "selfie": "selfie2anime-256/trainA",
    "celeb": "celebamask-256/train/images",
    "p2c": "photo2cartoon-256/trainA",
}
TIGHT = {"utk": "utkface-128", "game": "face2genshin-256/trainA"}
SIZE, MOST_OUTSIDE = 128, 0.36  # px; share of a crop


def outside(face: dict) -> float:
    """Return the share of a crop that lies outside its photo, by a grid of 17 x 17 points."""
    places = np.stack(np.meshgrid(*[np.linspace(0, SIZE, 17)] * 2), -1).reshape(-1, 2)
    warp = np.array(face["warp"])
    photo = (places - warp[:, 2]) @ np.linalg.inv(warp[:, :2]).T
    return float(((photo < 0) | (photo > face["photo_size"])).any(1).mean())


def main() -> None:
    """Write OUT/faces."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    faces = options.out / "faces"
    faces.mkdir(parents=True, exist_ok=True)
    for prefix, name in ALIGNED.items():
        made = options.out / "aligned" / prefix
        with contextlib.suppress(SomeFailed):  # photos in which no face is found are left out
            facekit.align(options.data / name, made, size=SIZE)
        for line in (made / "manifest.jsonl").read_text().splitlines():
            face = json.loads(line)
            if "warp" in face and outside(face) <= MOST_OUTSIDE:
                shutil.copy(made / face["file"], faces / f"{prefix}-{Path(face['file']).name}")
    for prefix, name in TIGHT.items():
        for path in (options.data / name).rglob("*.jpg"):
            shutil.copy(path, faces / f"{prefix}-{path.name}")
    print(f"{len(list(faces.iterdir())):,} faces in {faces}")


if __name__ == "__main__":
    main()
