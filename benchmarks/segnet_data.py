"""Put together the data that the shipped weights `segnet` are trained on: photos and drawings with part masks.

First round: `--masks` folders (each with train/ and test/ of images/ and masks/, all of the same classes) become one
folder OUT, by symbolic links. Train on it with `facekit train-segnet --data OUT`.

Second round, with `--drawings FOLDER --boxes FILE --model RUN`: drawn faces without masks join the training set with
masks that RUN draws and the boxes correct (self-training). FILE has a JSON object per line, with `file`, and boxes
[x, y, width, height] of `left_eye`, `right_eye` and `mouth` and the point `nose`, in px of the drawing. Inside its
box a part is what RUN says, or an ellipse that fills the box where RUN finds less than a third of it. Outside no pixel
is that part. The last `--held-out` lines of FILE are left out, for benchmarks/segnet.py.

`--times 4 2 0.5` takes each training picture of the first folder four times, of the second twice, and every second one
of the third, `--drawn 0.33` every third drawing: small sets and those that matter more are seen as often as large ones.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from facekit.recipe_api import checkpoint
from facekit.storage import images

NOSE = 0.045, 0.03  # half width and half height of a drawn nose, as shares of the face box's width
LEAST = 1 / 3  # share of its box that a part must fill; an ellipse takes its place otherwise
SKIN = 0.05  # share of a drawing that must be skin for its mask to be kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--masks", type=Path, nargs="+", required=True, help="folders with train/ test/ classes.txt")
    parser.add_argument("--times", type=float, nargs="+", help="how often each of --masks counts (default: 1)")
    parser.add_argument("--drawn", type=float, default=1.0, help="the share of the drawings that is taken")
    parser.add_argument("--drawings", type=Path, help="drawn faces without masks")
    parser.add_argument("--boxes", type=Path, help="their parts, a JSON object per line")
    parser.add_argument("--model", help="run or weights of segnet that draw the masks")
    parser.add_argument("--held-out", type=int, default=300, help="last lines of the boxes that are left out")
    args = parser.parse_args()
    names = {folder: (folder / "classes.txt").read_text() for folder in args.masks}
    if len(set(names.values())) > 1:
        parser.error("the folders have different classes")
    times = args.times or [1.0] * len(args.masks)
    if len(times) != len(args.masks):
        parser.error("--times needs a number for each folder of --masks")
    args.out.mkdir(parents=True)
    (args.out / "classes.txt").write_text(next(iter(names.values())))
    for folder, often in zip(args.masks, times, strict=True):
        for part in sorted(folder.glob("t*/*/")):
            target = args.out / part.relative_to(folder)
            target.mkdir(parents=True, exist_ok=True)
            for index, file in enumerate(sorted(part.iterdir())):
                for number in range(taken(index, often) if part.parent.name == "train" else 1):
                    os.symlink(file.resolve(), target / f"{folder.name}-{number}-{file.name}")
    if args.drawings:
        lines = args.boxes.read_text().splitlines()
        rows = [json.loads(line) for line in lines[: -args.held_out or None]]
        rows = [row for row in rows if {"face", "left_eye", "right_eye", "mouth", "nose"} <= set(row)]
        label(args, [row for index, row in enumerate(rows) if taken(index, args.drawn)])


def taken(index: int, often: float) -> int:
    """Return how many times the picture of this number is taken, evenly spread, `often` times on average."""
    return int((index + 1) * often) - int(index * often)


def label(args: argparse.Namespace, rows: list[dict]) -> None:
    """Write a mask for each drawing of `rows`, and say how many were kept."""
    model = checkpoint.load_model(args.model)
    classes = list(model.recipe.params.classes)
    kept = 0
    for row in rows:
        photo = images.read(args.drawings / row["file"])
        x = images.to_tensor(images.resize(photo, model.card.data.size))[None]
        with torch.inference_mode():
            shares = model.recipe.probabilities(model.nets, x)[0]
        mask = correct(shares.numpy(), classes, row, photo.width)
        if (mask == classes.index("skin")).mean() < SKIN:
            continue
        kept += 1
        name = f"drawing-{Path(row['file']).stem}"
        size = mask.shape[0]
        images.resize(photo, size).save(args.out / "train/images" / f"{name}.jpg", quality=95)
        Image.fromarray(mask).save(args.out / "train/masks" / f"{name}.png")
    print(f"{kept} of {len(rows)} drawings have a mask")


def correct(shares: np.ndarray, classes: list[str], row: dict, width: int) -> np.ndarray:
    """Return the label map [S, S] of class probabilities [C, S, S], with eyes, mouth and nose held to their boxes."""
    size = shares.shape[1]
    scale = size / width
    best = shares.argmax(0)
    placed = [classes.index(name) for name in ("eyes", "mouth", "nose")]
    rest = shares.copy()
    rest[placed] = 0
    mask = rest.argmax(0).astype(np.uint8)
    nose_x, nose_y = row["nose"]
    half_x, half_y = (share * row["face"][2] for share in NOSE)
    boxes = [
        ("nose", [nose_x - half_x, nose_y - half_y, 2 * half_x, 2 * half_y]),
        ("mouth", row["mouth"]),
        ("eyes", row["left_eye"]),
        ("eyes", row["right_eye"]),
    ]
    y, x = np.mgrid[0.5:size, 0.5:size]
    for name, box in boxes:
        left, top, wide, high = (value * scale for value in box)
        index = classes.index(name)
        inside = (x > left) & (x < left + wide) & (y > top) & (y < top + high)
        ellipse = ((x - left - wide / 2) / (wide / 2)) ** 2 + ((y - top - high / 2) / (high / 2)) ** 2 <= 0.9
        part = inside & (best == index)
        mask[part if part.sum() >= LEAST * inside.sum() and name != "nose" else ellipse] = index
    return mask


if __name__ == "__main__":
    main()
