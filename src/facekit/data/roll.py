"""Faces and the angle by which each is rotated, from the manifest of `facekit align`.

`align` levels the eyes, so its faces are upright. `roll` in its manifest is the angle of the face in the photo, and
`warp` the transform from the photo. Each image is one of three kinds:

- a levelled image (the manifest has `roll` and `warp`) is rotated back by its roll about its centre: its angle is the
  roll, and the set is as tilted as the photos were. With `restore` off it stays at 0;
- an image that was not levelled (the manifest has only `roll`) has that roll;
- an image without an entry counts as upright: 0.
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
    """Rotate an RGB image clockwise about its centre; the size stays, the corners show its mirror image."""
    if not degrees:
        return image
    around = math.ceil((math.hypot(*image.size) - min(image.size)) / 2) + 1
    wider = np.pad(np.asarray(image), ((around, around), (around, around), (0, 0)), mode="symmetric")
    turned = Image.fromarray(wider).rotate(-degrees, Image.Resampling.BICUBIC)
    return turned.crop((around, around, around + image.width, around + image.height))


def read_rolls(folder: Path, restore: bool = True) -> tuple[dict[Path, float], frozenset[Path]]:
    """Return the angles in a folder's manifest, in degrees, and which images to rotate back to them.

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
    """Find two folders as `open_layout` does, and print one line about the angles in their manifests."""
    layout, folders, readers = open_layout(data), find_folders(data), {}
    for name, folder in folders.train.items():
        rolls, levelled = read_rolls(folder, restore)
        readers[name] = RolledReader(name, rolls, levelled)
        known = np.abs([rolls[path] for path in layout.train[name] if path in rolls])
        turned = sum(path in levelled for path in layout.train[name])
        angles = f"median {np.median(known):.1f} degrees, at most {known.max():.1f}" if len(known) else "upright"
        console.note(
            f"{layout.names[name]}: {len(known)} of {len(layout.train[name])} images have an angle ({angles}); "
            f"{turned} levelled images are rotated back to it"
        )
    return replace(layout, readers=readers)
