"""The training data of the weights `anime` and `game` at 256 px: varied photos and varied drawings, of every skin.

DATA holds selfie2anime-256, celebamask-256, face-masks, lfw-raw and utkface-128. Nearly all drawings have light skin,
so discriminators take dark skin for a mistake, and a generator paints it light. Here skin is darkened by chance, in the
same share of the photos and of the drawings, where `segnet` sees it: how dark a face is no longer tells them apart.
At last photos are framed as `facekit align` frames what people translate: from sets that are cut tighter or wider, nets
learnt to draw chins and hair where the drawings have them.
"""

import argparse
import contextlib
import random
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.color import lab2rgb
from utkface import chosen, groups_of

import facekit
from facekit.errors import SomeFailed
from facekit.inference.keeping import shares, to_lab
from facekit.recipe_api import checkpoint
from facekit.storage import images

SIZE = 256
CLEARLY = 8.0  # in CIE Lab: how much darker than the mean skin is to be called dark
SHARE = 0.35  # of the photos and of the drawings whose skin is darkened
DARKEST = {"trainA": 22.0, "trainB": 30.0}  # in CIE Lab: how much further it is darkened at most
WARMER = {"trainA": (0.0, 0.0), "trainB": (6.0, 9.0)}  # and how far a and b move then: the skin of drawings is pale
LEAST = 0.01  # share of a picture that skin covers, to be darkened
FRAMED = ("selfie", "press")  # photos that are framed so from the first
EVERY = {"black": 1, "indian": 1, "other": 2, "white": 4, "asian": 3}  # of the photos of utkface, by its labels


class Skin:
    """Finds skin, and changes its tone. Pictures are [N, 3, S, S] in [-1, 1], tones are means in CIE Lab."""

    def __init__(self) -> None:
        self.segnet = checkpoint.load_model("segnet")
        classes = self.segnet.recipe.params.classes
        self.members = {"skin": [classes.index(name) for name in ("skin", "nose")], "hair": [classes.index("hair")]}

    @torch.inference_mode()
    def found(self, x: torch.Tensor) -> list[dict[str, np.ndarray]]:
        """Return the probability of skin and hair in each pixel, [S, S], of each picture."""
        made = self.segnet.recipe.probabilities(self.segnet.nets, x).numpy()
        return [{name: one[members].sum(0) for name, members in self.members.items()} for one in made]

    def tones(self, x: torch.Tensor) -> list[np.ndarray | None]:
        """Return the mean of each picture's skin; None where hardly any is seen."""
        return [mean(to_lab(one), parts["skin"]) for one, parts in zip(x, self.found(x), strict=True)]

    def moved(self, x: torch.Tensor, by: np.ndarray) -> Image.Image | None:
        """Return one picture [3, S, S] with its skin moved by a difference of tones; None where hardly any is seen."""
        lab, (parts,) = to_lab(x), self.found(x[None])
        means = {name: mean(lab, part) for name, part in parts.items()}
        if (tone := means["skin"]) is None:
            return None
        share = shares(lab, {name: one for name, one in means.items() if one is not None}, parts)["skin"]
        dark = lab * ((tone[0] + by[0]) / tone[0], 1, 1)  # black lines stay black
        dark[..., 1:] += by[1:] * np.minimum(1, lab[..., :1] / tone[0])
        rgb = lab2rgb(lab + (dark - lab) * share[..., None])
        return Image.fromarray((rgb * 255).round().astype(np.uint8))


def mean(lab: np.ndarray, probability: np.ndarray) -> np.ndarray | None:
    """Return the mean colour of a part; None where it covers hardly anything."""
    sure = np.clip(2 * probability - 1, 0, 1)
    return (lab * sure[..., None]).sum((0, 1)) / sure.sum() if sure.mean() >= LEAST else None


def photos(data: Path, out: Path) -> None:
    """Write OUT/trainA: selfies, celebrities, press photos, masked photos, and faces of utkface that bias.py leaves."""
    out.mkdir(parents=True, exist_ok=True)
    selfies = sorted((data / "selfie2anime-256/trainA").iterdir())
    for prefix, paths in {
        "selfie": selfies[::2],
        "celeb": sorted((data / "celebamask-256/train/images").iterdir()),
        "parts": sorted((data / "face-masks/train/images").iterdir()),
    }.items():
        for path in paths:
            shutil.copy(path, out / f"{prefix}-{path.name}")
    for path in aligned(data / "lfw-raw", out.with_name("press")):
        shutil.copy(path, out / f"press-{path.name}")
    kept_apart = chosen(data / "utkface-128", 40)
    others = [path for path in sorted((data / "utkface-128").rglob("*.jpg")) if path not in kept_apart]
    count = dict.fromkeys(EVERY, 0)
    for path in others:
        race = (groups_of(path.stem) or {}).get("race")
        if race:
            count[race] += 1
            if count[race] % EVERY[race] == 0:
                shutil.copy(path, out / f"utk-{path.name}")


def aligned(photos: Path, made: Path) -> list[Path]:
    """Write the faces of photos to a folder and return them; photos in which none is found are left out."""
    with contextlib.suppress(SomeFailed):
        facekit.align(photos, made, size=SIZE)
    return sorted(made.rglob("*.png"))


def frame(photos: Path) -> None:
    """Cut the faces out of the photos whose sets frame them otherwise than `facekit align`."""
    others = photos.with_name("others")
    others.mkdir()
    for path in photos.iterdir():
        if not path.name.startswith(FRAMED):
            path.rename(others / path.name)
    for path in aligned(others, photos.with_name("framed")):
        path.rename(photos / path.name)


def load(path: Path) -> torch.Tensor:
    """Return a picture as [3, SIZE, SIZE] in [-1, 1]."""
    return images.to_tensor(images.resize(images.read(path), SIZE))


def tones_of(skin: Skin, place: Path) -> dict[Path, np.ndarray]:
    """Return the skin tone of each picture of a folder that shows skin."""
    paths, found = sorted(place.iterdir()), {}
    for start in range(0, len(paths), 16):
        some = paths[start : start + 16]
        tones = skin.tones(torch.stack([load(path) for path in some]))
        found.update({path: tone for path, tone in zip(some, tones, strict=True) if tone is not None})
    return found


def main() -> None:
    """Write OUT/trainA and OUT/trainB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--drawings", default="selfie2anime-256", help="the set in DATA whose trainB is taken")
    options = parser.parse_args()
    photos(options.data, options.out / "trainA")
    if options.drawings != "selfie2anime-256":  # whose photos are there already
        for path in sorted((options.data / options.drawings / "trainA").iterdir()):
            shutil.copy(path, options.out / "trainA" / f"own-{path.name}")
    drawings = options.out / "trainB"
    drawings.mkdir(parents=True, exist_ok=True)
    for path in sorted((options.data / options.drawings / "trainB").glob("*.jpg")):
        shutil.copy(path, drawings)
    skin = Skin()
    own = {place: tones_of(skin, place) for place in (options.out / "trainA", drawings)}
    middle = {place: np.median(list(tones.values()), 0) for place, tones in own.items()}
    draw = random.Random(0)
    for place, tones in own.items():
        count = 0
        for path, tone in sorted(tones.items()):
            far = draw.random()
            by = np.array([-CLEARLY - far * DARKEST[place.name], *(far * np.array(WARMER[place.name]))])
            by[1:] += [draw.gauss(0, 2), draw.gauss(0, 2)]
            if draw.random() < SHARE and tone[0] > middle[place][0] - CLEARLY:
                moved = skin.moved(load(path), by)
                if moved is not None:
                    moved.save(path.with_name(f"{path.stem}-dark.png"))
                    path.unlink()
                    count += 1
        dark = sum(tone[0] < middle[place][0] - CLEARLY for tone in tones.values())
        files = len(list(place.iterdir()))
        print(f"{place.name}: {files:,}, tone {middle[place].round(1)}, dark {dark:,}, darkened {count:,}")
    frame(options.out / "trainA")
    print(f"framed: {len(list((options.out / 'trainA').iterdir())):,}")


if __name__ == "__main__":
    main()
