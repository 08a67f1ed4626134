"""What image features know: kinds of pictures, the sex of faces, and how far sets are apart to KID.

A folder is a class. A linear probe (ridge regression to one-hot labels) learns from half of each folder's images and is
scored on the other half, mean over classes; beside it the same on grey pixels at 16 px.
"""

import argparse
from pathlib import Path

import numpy as np
from machine import machine

from facekit.scoring import extractors, fid_kid
from facekit.scoring.features import extract
from facekit.scoring.image_set import ImageSet, read

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--features", default="facekit", help="as score-fid --features")
parser.add_argument("--kinds", type=Path, nargs="+", default=[], help="folders of photos, drawings, avatars, ...")
parser.add_argument("--sexes", type=Path, nargs="+", default=[], help="folders of faces of each sex")
parser.add_argument("--limit", type=int, default=200, help="images of a folder")
parser.add_argument("--device", default="cpu")
arguments = parser.parse_args()


def probe(sets: list[np.ndarray]) -> float:
    """Return the mean accuracy over classes of a linear probe on features [n, d] of each class."""
    learn, test = (np.concatenate([x[start::2] for x in sets]) for start in (0, 1))
    mean, deviation = learn.mean(0), learn.std(0) + 1e-6
    learn, test = ((x - mean) / deviation for x in (learn, test))
    labels = np.repeat(np.arange(len(sets)), [len(x[0::2]) for x in sets])
    truth = np.repeat(np.arange(len(sets)), [len(x[1::2]) for x in sets])
    share = 1 / np.bincount(labels)[labels]  # classes count alike
    weighted = learn * share[:, None]
    wanted = np.eye(len(sets))[labels] - 1 / len(sets)
    normal = learn.T @ weighted + len(sets) * np.eye(learn.shape[1])  # as much as the features themselves
    said = (test @ np.linalg.solve(normal, weighted.T @ wanted)).argmax(1)
    return float(np.mean([(said == truth)[truth == k].mean() for k in range(len(sets))]))


def grey(found: ImageSet) -> np.ndarray:
    """Return grey pixels at 16 px [n, 256]."""
    return np.stack([np.asarray(read(s.path).convert("L").resize((16, 16)), float).ravel() for s in found.good])


print(machine())
extractor = extractors.load(arguments.features, device=arguments.device)
print(f"{extractor.name}, {extractor.dim}-d at {extractor.edge} px")
for title, folders in (("kinds", arguments.kinds), ("sexes", arguments.sexes)):
    if len(folders) < 2:
        continue
    images = [ImageSet(folder, arguments.limit) for folder in folders]
    rows = [extract(one, extractor, resize=extractor.edge) for one in images]
    print(f"{title}: {', '.join(f'{one.path.name} {len(one)}' for one in images)}")
    print(f"  told apart {probe(rows):.3f}, by grey pixels {probe([grey(one) for one in images]):.3f}")
    for one, x in zip(images, rows, strict=True):
        against = [
            f"{two.path.name} {fid_kid.kid_full(x, y):.4f}" for two, y in zip(images, rows, strict=True) if y is not x
        ]
        print(f"  KID of {one.path.name}: its halves {fid_kid.kid_full(x[::2], x[1::2]):.4f}, {', '.join(against)}")
