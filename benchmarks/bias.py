"""Whether a translation treats people alike: every measure of `score-fid --groups` by sex, race and age, as a table.

Photos are those of UTKFace, whose file names say AGE_SEX_RACE_DATE as that data set labels people: up to --most of each
sex and race, evenly from the sorted names. They are translated by the weights and compared with drawings; none of them
should have been trained on. The set's photos are cut tighter than `facekit align` cuts them: see --align.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import yaml
from machine import machine
from PIL import Image
from utkface import chosen

CARDS = ("KID", "identity-cosine", "landmark-distance", "IoU-mouth", "colour-skin", "colour-hair")
SOME_FAILED = 4  # exit code: no face was found in some of the photos
FACEKIT = [sys.executable, "-m", "facekit"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("weights", help="a run folder, a file or a shipped name")
parser.add_argument("photos", type=Path, help="UTKFace: AGE_SEX_RACE_DATE.jpg, in sub-folders or not")
parser.add_argument("drawings", type=Path, help="the drawings to compare with")
parser.add_argument("--features", default="facekit", help="as of score-fid")
parser.add_argument("--size", type=int, help="px of the translations (default: the weights' own)")
parser.add_argument("--most", type=int, default=40, help="photos of each sex and race")
parser.add_argument("--bootstrap", type=int, default=300)
parser.add_argument("--align", action="store_true", help="cut the faces out as `translate` does with photos")
parser.add_argument("--every", action="store_true", help="every measure, not only those of the model cards")
arguments = parser.parse_args()


def cell(scores: dict[str, float], name: str) -> str:
    """Return a score with its interval."""
    if name not in scores:
        return ""
    low, high = (scores.get(f"{name} {end}") for end in ("low", "high"))
    digits = 3 if abs(scores[name]) < 1 else 2 if abs(scores[name]) < 10 else 1
    interval = "" if low is None or high is None else f" ({low:.{digits}f} to {high:.{digits}f})"
    return f"{scores[name]:.{digits}f}{interval}"


photos = chosen(arguments.photos, arguments.most)
with tempfile.TemporaryDirectory() as place:
    top = Path(place)
    (top / "photos").mkdir()
    for path in photos:
        (top / "photos" / path.name).symlink_to(path.resolve())
    if arguments.align:
        (top / "photos").rename(top / "whole")
        cut = ["align", "-q", top / "whole", top / "photos", "--size", arguments.size or 256]
        done = subprocess.run([*FACEKIT, *map(str, cut)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if done.returncode not in (0, SOME_FAILED):
            raise SystemExit("the photos could not be aligned")
    with open(top / "groups.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "labels"])
        for path, groups in photos.items():
            for made in (top / "photos").glob(f"{path.stem}.*"):
                table.writerow([made.name, "|".join(f"{kind}={group}" for kind, group in groups.items())])
    size = ["--size", str(arguments.size)] if arguments.size else []
    translate = ["translate", "-q", "--no-align", top / "photos", top / "out", "--weights", arguments.weights, *size]
    score = [
        "score-fid",
        "-q",
        top / "out",
        arguments.drawings,
        "--features",
        arguments.features,
        "--source",
        top / "photos",
    ]
    score += ["--groups", top / "groups.csv", "--bootstrap", arguments.bootstrap, "--save", top / "scores.yaml"]
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    run([*FACEKIT, *map(str, translate)])
    edge = Image.open(next((top / "out").glob("*.png"))).width
    run([*FACEKIT, *map(str, score), "--resize", str(edge)])
    made = yaml.safe_load((top / "scores.yaml").read_text())["made"]

scores = made.get("scores", made)
names = list(dict.fromkeys(n for kind in scores["groups"].values() for one in kind.values() for n in one))
names = [name for name in names if name != "images" and not name.endswith((" low", " high"))]
names = sorted(names if arguments.every else (name for name in names if name.startswith(CARDS)))
print(machine())
print(f"{len(photos)} photos, {arguments.weights}{', aligned' if arguments.align else ''}\n")
print("| | images | " + " | ".join(names) + " |")
print("|---" * (len(names) + 2) + "|")
for kind, groups in scores["groups"].items():
    for group, own in groups.items():
        print(f"| {group} | {own['images']:.0f} | " + " | ".join(cell(own, name) for name in names) + " |")
    print("| **gap** | | " + " | ".join(cell(scores["gaps"].get(kind, {}), name) for name in names) + " |")
