"""What makes an image file the face that a translator takes: cut from its photo, aligned already, or left tilted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..data.roll import read_rolls, tilt
from ..errors import CardError, InputError
from ..faces import MARGIN, Detector, Face, align_face, find_detector, template
from ..faces import roll as roll_of
from ..storage import card, images
from ..storage.folder import Folder, Source
from .translator import Translator


@dataclass
class Job:
    """A face to translate; with `matrix` and `photo`, where it goes back to; with `roll`, how far it is tilted."""

    face: Image.Image
    photo: Image.Image | None = None
    matrix: np.ndarray | None = None
    edge: int = 0  # of the face image that the matrix leads to, px
    roll: float = 0.0  # degrees clockwise that the translation is told
    back: float = 0.0  # degrees clockwise that it is turned by afterwards


def open_reader(
    source: Path,
    translator: Translator,
    align: bool,
    paste: bool,
    detector: str,
    root: Path | None,
    margin: float | None,
    tilted: Literal["level", "tell"] | None = None,
) -> Callable[[Source], Job]:
    """Return what reads an image of `source` and makes it the face that the translator takes."""
    home = Folder(source if source.is_dir() else source.parent)
    ours = home.aligned and (source.is_dir() or source.name in home.entries)
    if tilted:
        if ours or paste:
            raise CardError("--tilted is for faces that stay as they are", "leave it out: aligned faces are upright")
        if tilted == "tell" and not translator.model.recipe.takes("roll"):
            raise CardError("these weights cannot be told an angle", "--tilted level")
        return TiltedReader(home, translator, detector, root, tilted == "tell")
    if ours:
        return AlignedReader(home, translator, paste)
    if align:
        return PhotoReader(translator, detector, root, margin, paste)
    if paste:
        raise CardError("--paste needs to know where the face was", "leave out --no-align, or give a folder of `align`")
    return partial(read_plain, translator=translator)


def read_plain(source: Source, translator: Translator) -> Job:
    """Read an image that is a face already."""
    return Job(translator.fit(images.read(source.path)))


def largest_face(detector: Detector, photo: Image.Image, instead: str) -> Face:
    """Return the largest face of a photo; raises InputError where none is found, with what can be done instead."""
    found = detector.detect(np.asarray(photo))
    if not found:
        error = InputError(f"no face found by {detector.name}", f"{instead}, or another --detector")
        error.stage = "detect"  # type: ignore[attr-defined]
        raise error
    return found[0]


class PhotoReader:
    """Reads a photo and cuts its largest face out."""

    def __init__(self, translator: Translator, detector: str, root: Path | None, margin: float | None, paste: bool):
        self.detector = find_detector(detector, root)
        self.margin = MARGIN if margin is None else margin
        self.translator, self.paste = translator, paste
        template(translator.size, self.margin)  # refuses what makes no face image

    def __call__(self, source: Source) -> Job:
        photo = images.read(source.path)
        found = largest_face(self.detector, photo, "--no-align for faces already cut")
        size = self.translator.size
        cut = align_face(np.asarray(photo), found, size, self.margin)
        return Job(self.translator.fit(cut.image), photo if self.paste else None, cut.matrix, size)


class TiltedReader:
    """Reads a face that is to stay tilted; its roll is the manifest's, or that of the largest face that is found."""

    def __init__(self, folder: Folder, translator: Translator, detector: str, root: Path | None, tell: bool):
        self.rolls = read_rolls(folder.path, restore=False)[0]
        self.detector, self.translator, self.tell = find_detector(detector, root), translator, tell

    def __call__(self, source: Source) -> Job:
        face = images.read(source.path)
        roll = self.rolls.get(source.path)
        if roll is None:
            roll = roll_of(largest_face(self.detector, face, "give `roll` in a manifest.jsonl").landmarks)
        if self.tell:
            return Job(self.translator.fit(face), roll=roll)
        return Job(self.translator.fit(tilt(face, -roll)), back=roll)


class AlignedReader:
    """Reads a face of an align folder, with its photo where it is to be pasted back."""

    def __init__(self, folder: Folder, translator: Translator, paste: bool):
        self.folder, self.translator, self.paste = folder, translator, paste
        if paste:
            self.photos = Path(card.load(folder.path / card.NAME)["options"]["source"])
            self.entries = folder.entries
            if not self.photos.exists():
                raise InputError(
                    f"{folder.path} was cut from {self.photos}, which is not here",
                    "run from the folder that `align` ran in, or translate the photos themselves",
                )

    def __call__(self, source: Source) -> Job:
        face = images.read(source.path)
        fitted = self.translator.fit(face)
        if not self.paste:
            return Job(fitted)
        entry = self.entries.get(source.name)
        if entry is None:
            raise InputError(f"{source.name} is not in the manifest of {self.folder.path}", "align it again")
        photo = self.photos if self.photos.is_file() else self.photos / entry["source"]
        return Job(fitted, images.read(photo), np.array(entry["warp"]), face.width)
