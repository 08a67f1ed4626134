"""How well weights of `segnet` label photos and drawings: intersection over union, and parts beside known boxes.

    python benchmarks/segnet.py WEIGHTS [--masks FOLDER ...] [--drawings FOLDER --boxes FILE]

For each folder with masks: IoU of every class over all pixels of its test/, at the weights' own size; with
`--from 16 32` also of pictures that are first reduced to so many px, as small faces are. For the last
`--held-out` drawings of FILE (see benchmarks/segnet_data.py): the share whose eyes (both) and mouth lie where the boxes
say: the centre of the part's pixels stands inside its box, and at least 80 % of all its pixels stand inside the boxes,
which are grown by a fifth.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from machine import machine
from PIL import Image

from facekit.recipe_api import checkpoint
from facekit.storage import images

GROWN = 0.1  # of a box's size, on each side
INSIDE = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help="names, run folders or files")
    parser.add_argument("--masks", type=Path, nargs="*", default=[])
    parser.add_argument("--from", type=int, nargs="*", default=[], dest="sizes", metavar="PX")
    parser.add_argument("--drawings", type=Path)
    parser.add_argument("--boxes", type=Path)
    parser.add_argument("--held-out", type=int, default=300)
    args = parser.parse_args()
    print(machine())
    for name in args.weights:
        model = checkpoint.load_model(name)
        for folder in args.masks:
            print(f"{name}, {folder.name}: {overlap(model, folder / 'test')}")
            for size in args.sizes:
                print(f"  from {size} px: {overlap(model, folder / 'test', size)}")
        if args.drawings:
            rows = [json.loads(line) for line in args.boxes.read_text().splitlines()[-args.held_out :]]
            rows = [row for row in rows if {"left_eye", "right_eye", "mouth"} <= set(row)]
            print(f"{name}, {args.drawings.name}: {placed(model, args.drawings, rows)}")


def label(model: checkpoint.Model, image: Image.Image) -> np.ndarray:
    """Return the label map of an image at the model's size."""
    x = images.to_tensor(images.resize(image, model.card.data.size))[None]
    with torch.inference_mode():
        return model.recipe.label(model.nets, x)[0].numpy()


def overlap(model: checkpoint.Model, folder: Path, reduced: int | None = None) -> str:
    classes = model.recipe.params.classes
    both, either = np.zeros(len(classes)), np.zeros(len(classes))
    masks = {file.stem: file for file in (folder / "masks").iterdir()}
    for file in sorted((folder / "images").iterdir()):
        picture = images.read(file)
        found = label(model, images.resize(picture, reduced) if reduced else picture)
        size = found.shape[::-1]
        truth = np.asarray(images.read_raw(masks[file.stem]).resize(size, Image.Resampling.NEAREST))
        for index in range(len(classes)):
            both[index] += ((found == index) & (truth == index)).sum()
            either[index] += ((found == index) | (truth == index)).sum()
    iou = {name: b / e for name, b, e in zip(classes, both, either, strict=True) if e}
    mean = np.mean([value for name, value in iou.items() if name != "background"])
    return f"mean IoU {mean:.3f} (" + ", ".join(f"{name} {value:.3f}" for name, value in iou.items()) + ")"


def placed(model: checkpoint.Model, folder: Path, rows: list[dict]) -> str:
    classes = list(model.recipe.params.classes)
    right = {"eyes": 0, "mouth": 0, "both": 0}
    for row in rows:
        image = images.read(folder / row["file"])
        found = label(model, image)
        scale = found.shape[0] / image.width
        eyes = stands(found == classes.index("eyes"), [row["left_eye"], row["right_eye"]], scale)
        mouth = stands(found == classes.index("mouth"), [row["mouth"]], scale)
        for name, one in (("eyes", eyes), ("mouth", mouth), ("both", eyes and mouth)):
            right[name] += one
    return ", ".join(f"{name} {100 * count / len(rows):.1f} %" for name, count in right.items()) + f" of {len(rows)}"


def stands(part: np.ndarray, boxes: list[list[float]], scale: float) -> bool:
    """Return whether each box holds the centre of the pixels nearest to it, and all boxes most of the part."""
    y, x = (values + 0.5 for values in np.nonzero(part))
    if not len(x):
        return False
    corners = np.array(boxes) * scale
    centres = corners[:, :2] + corners[:, 2:] / 2
    own = np.hypot(x[:, None] - centres[:, 0], y[:, None] - centres[:, 1]).argmin(1)
    inside = np.zeros(len(x), bool)
    for index, (left, top, wide, high) in enumerate(corners):
        mine = own == index
        if not mine.any():
            return False
        centre = x[mine].mean(), y[mine].mean()
        if not (left <= centre[0] <= left + wide and top <= centre[1] <= top + high):
            return False
        inside |= (
            (x >= left - GROWN * wide)
            & (x <= left + (1 + GROWN) * wide)
            & (y >= top - GROWN * high)
            & (y <= top + (1 + GROWN) * high)
        )
    return bool(inside.mean() >= INSIDE)


if __name__ == "__main__":
    main()
