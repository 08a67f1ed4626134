"""Faces with the angle at which they are turned, as the manifest of `facekit align` tells it.

`align` levels the eyes: its faces are upright, and `roll` in its manifest is what the face had in the photo, with
`warp`, the way from there. So there are three kinds of images, told apart one by one:

- levelled ones (the manifest has `roll` and `warp`) are turned back by their roll, about their middle: their angle is
  the roll, known exactly, and the set is as tilted as the photos were. With `restore` off they stay as they are, at 0;
- images as they are (the manifest has `roll` alone, as one's own may) have that roll;
- those of which no manifest tells anything are taken for upright: 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..runtime import console
from ..storage import card, images
from ..storage.folder import Folder
from .dataset import Layout, find_folders, open_layout
from .reader import Reader, Sample


@dataclass(frozen=True)
class RolledReader(Reader):
    """Reads an image and its angle; the entries are `NAME` and `NAME_roll` (degrees, clockwise positive, float32).

    `rolls` gives the degrees that the images of `levelled` are turned by, and that the others are turned already.
    """

    rolls: Mapping[Path, float] = field(default_factory=dict)
    levelled: frozenset[Path] = frozenset()

    def read(self, path: Path, size: int) -> Sample:
        """Decode a file to a square of `size` px, at its angle; raises InputError where that cannot be done."""
        roll = self.rolls.get(path, 0.0)
        face = images.resize(images.square(images.read(path)), size)
        face = tilt(face, roll) if path in self.levelled else face
        return {self.name: np.asarray(face), f"{self.name}_roll": np.array(roll, np.float32)}

    def mirror(self, sample: Sample) -> Sample:
        """Mirror the image; its angle changes sign."""
        out = super().mirror(sample)
        out[f"{self.name}_roll"] = -out[f"{self.name}_roll"]
        return out


def tilt(image: Image.Image, degrees: float) -> Image.Image:
    """Turn an RGB image clockwise about its middle; its size stays, and its mirror image comes in at the corners."""
    if not degrees:
        return image
    around = math.ceil((math.hypot(*image.size) - min(image.size)) / 2) + 1
    wider = np.pad(np.asarray(image), ((around, around), (around, around), (0, 0)), mode="symmetric")
    turned = Image.fromarray(wider).rotate(-degrees, Image.Resampling.BICUBIC)
    return turned.crop((around, around, around + image.width, around + image.height))


def read_rolls(folder: Path, restore: bool = True) -> tuple[dict[Path, float], frozenset[Path]]:
    """Return the angles that a folder's manifest tells, in degrees, and which images are to be turned to them.

    Without `restore` none are: levelled faces are at 0.
    """
    rolls, levelled = {}, set()
    for name, entry in Folder(folder).entries.items():
        roll = entry.get("roll")
        if isinstance(roll, bool) or not isinstance(roll, (int, float)) or not math.isfinite(roll):
            continue
        if "warp" in entry and restore:
            levelled.add(folder / name)
        rolls[folder / name] = 0.0 if "warp" in entry and not restore else float(roll)
    return rolls, frozenset(levelled)


def open_rolled(data: card.Data, restore: bool = True) -> Layout:
    """Find two folders as `layout.open_layout` does, and say in one line what their manifests tell of angles."""
    layout, folders, readers = open_layout(data), find_folders(data), {}
    for name, folder in folders.train.items():
        rolls, levelled = read_rolls(folder, restore)
        readers[name] = RolledReader(name, rolls, levelled)
        known = np.abs([rolls[path] for path in layout.train[name] if path in rolls])
        turned = sum(path in levelled for path in layout.train[name])
        told = f"{np.median(known):.1f} degrees in the middle, {known.max():.1f} at most" if len(known) else "upright"
        console.note(
            f"{layout.names[name]}: {len(known)} of {len(layout.train[name])} images have an angle ({told}); "
            f"{turned} levelled ones are turned back to it"
        )
    return replace(layout, readers=readers)
