"""From an image file to the faces that a translator takes: cut from a photo, aligned before, or left tilted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image

from ..data.roll import read_rolls, tilt
from ..errors import CardError, InputError
from ..faces import MARGIN, Detector, Face, align_face, find_detector, find_faces, template
from ..faces import roll as roll_of
from ..faces.alignment import footprint
from ..recipe_api.checkpoint import Model
from ..storage import card, content, image_files, images
from ..storage.entries import Entries
from ..storage.folder import Folder, Source, is_inside
from ..storage.image_files import Kept
from .head_mask import HeadMask

Rotation = Literal["upright", "condition"]


class FaceTranslator(Protocol):
    """What readers need of a translator: its model, the edge in px that its nets take, and how faces are fitted."""

    model: Model
    net_size: int

    def fit(self, picture: Image.Image) -> Image.Image:
        """Resize a face to what the nets take."""


@dataclass
class Crop:
    """One face to translate, as the nets take it.

    `matrix` (2, 3) maps px of the photo to px of a crop with `edge` px a side, `head` is the part of that crop to paste
    (L, 255: face and hair), of which `opacity` (0 to 1) shows. `roll` is the tilt in degrees, clockwise, that the nets
    are conditioned on; the translation is turned clockwise by `turn_back` degrees.
    """

    face: Image.Image
    matrix: np.ndarray | None = None
    edge: int = 0
    head: Image.Image | None = None
    roll: float = 0.0
    turn_back: float = 0.0
    opacity: float = 1.0

    @property
    def place(self) -> int:
        """The edge in px that the crop has in its photo; 0 for a face that is not of a photo."""
        return 0 if self.matrix is None else footprint(self.matrix, self.edge)


@dataclass
class FaceInput:
    """The faces of one image file, and the photo that they are pasted back into.

    `path` is the file that transparency and EXIF are taken from; `alpha` (L) is as large as that, `exif` a block of it.
    """

    crops: list[Crop]
    photo: Image.Image | None = None
    path: Path | None = None
    alpha: Image.Image | None = None
    exif: bytes = b""


Reader = Callable[[Source], FaceInput]


@dataclass(frozen=True)
class FaceOptions:
    """How faces are taken from images; see the flags of `facekit translate`."""

    align: bool = True
    paste: bool = False
    every: bool = False
    detector: str = "auto"
    model_root: Path | None = None
    margin: float | None = None
    rotation: Rotation | None = None


def open_reader(source: Path, translator: FaceTranslator, options: FaceOptions) -> Reader:
    """Return what reads an image of `source` as the faces that the translator takes.

    Raises CardError for options that exclude each other, InputError where photos to paste into are missing.
    """
    folder = Folder(source if content.is_folder(source) else source.parent)
    aligned = folder.aligned and (content.is_folder(source) or source.name in folder.entries)
    if options.every and (aligned or not options.paste):
        raise CardError("--faces all pastes every face of a photo", "give photos and --paste, or `facekit align` first")
    if options.rotation:
        if aligned or options.paste:
            raise CardError("--rotation is for faces that stay as they are", "leave it out: aligned faces are upright")
        if options.rotation == "condition" and not translator.model.recipe.takes("roll"):
            raise CardError("these weights are not conditioned on an angle", "--rotation upright")
        return TiltedReader(folder, translator, options)
    if aligned:
        return AlignedReader(folder, translator, options.paste)
    if options.align:
        return PhotoReader(translator, options)
    if options.paste:
        raise CardError("--paste needs to know where the face was", "leave out --no-align, or give a folder of `align`")
    return partial(read_cut_face, translator=translator)


def keeping(read: Reader, kept: Kept) -> Reader:
    """Return a reader that also reads the transparency and the EXIF that the outputs keep."""

    def more(source: Source) -> FaceInput:
        found = read(source)
        path = found.path or source.path
        found.alpha = image_files.read_alpha(path) if kept.alpha else None
        found.exif = image_files.read_exif(path, kept.gps) if kept.exif else b""
        return found

    return more if kept.alpha or kept.exif else read


def read_cut_face(source: Source, translator: FaceTranslator) -> FaceInput:
    """Read an image that is a face already."""
    return FaceInput([Crop(translator.fit(images.read(source.path)))])


class PhotoReader:
    """Cuts the largest face out of a photo, or all of them."""

    def __init__(self, translator: FaceTranslator, options: FaceOptions):
        self.detector: Detector = find_detector(options.detector, options.model_root)
        self.margin = MARGIN if options.margin is None else options.margin
        self.translator, self.every = translator, options.every
        self.head = HeadMask() if options.paste else None
        template(translator.net_size, self.margin)  # raises CardError for a margin that makes no crop

    def __call__(self, source: Source) -> FaceInput:
        return self.cut(images.read(source.path))

    def cut(self, photo: Image.Image) -> FaceInput:
        """Return the faces of an RGB photo; raises InputError where none is found."""
        pixels = np.asarray(photo)
        found = find_faces(self.detector, pixels, self.every, "--no-align for faces already cut")
        return FaceInput([self._crop(pixels, face) for face in found], photo if self.head else None)

    def _crop(self, pixels: np.ndarray, face: Face) -> Crop:
        size = self.translator.net_size
        cut = align_face(pixels, face, size, self.margin)
        head = self.head(cut.image) if self.head else None
        return Crop(self.translator.fit(cut.image), cut.matrix, size, head)


class TiltedReader:
    """Reads a face that stays tilted; its roll is the manifest's, or that of the largest face that is found."""

    def __init__(self, folder: Folder, translator: FaceTranslator, options: FaceOptions):
        self.rolls = read_rolls(folder.path, restore=False)[0]
        self.detector: Detector = find_detector(options.detector, options.model_root)
        self.translator, self.condition = translator, options.rotation == "condition"

    def __call__(self, source: Source) -> FaceInput:
        face = images.read(source.path)
        roll = self.rolls.get(source.path)
        if roll is None:
            (found,) = find_faces(self.detector, np.asarray(face), hint="write `roll` in a manifest.jsonl")
            roll = roll_of(found.landmarks)
        return FaceInput([tilted_crop(face, roll, self.translator, self.condition)])


def tilted_crop(face: Image.Image, roll: float, translator: FaceTranslator, condition: bool) -> Crop:
    """Return an RGB image of a face with a `roll` in degrees, turned upright or for nets that are told the roll."""
    if condition:
        return Crop(translator.fit(face), roll=roll)
    return Crop(translator.fit(tilt(face, -roll)), turn_back=roll)


class AlignedReader:
    """Reads a face of an align folder, with its photo where it is to be pasted back."""

    def __init__(self, folder: Folder, translator: FaceTranslator, paste: bool):
        self.folder, self.translator = folder, translator
        self.head = HeadMask() if paste else None
        if paste:
            said = card.load(folder.path / card.NAME).get("options", {}).get("source")
            if not isinstance(said, str):
                raise InputError(f"the card of {folder.path} does not say where the photos are", "align them again")
            self.photos = Path(said)
            self.entries = Entries(folder.path, folder.sources())
            if not (content.is_file(self.photos) or content.is_folder(self.photos)):
                raise InputError(
                    f"{folder.path} was cut from {self.photos}, which is not here",
                    "run from the folder that `align` ran in, or translate the photos themselves",
                )

    def __call__(self, source: Source) -> FaceInput:
        face = images.read(source.path)
        fitted = self.translator.fit(face)
        if not self.head:
            return FaceInput([Crop(fitted)])
        entry = self.entries.get(source.name)
        if not entry:
            raise InputError(f"{source.name} is not in the manifest of {self.folder.path}", "align it again")
        matrix = _warp(entry.get("warp"))
        if matrix is None:
            raise InputError(f"the manifest does not say where {source.name} was in its photo", "align it again")
        path = self._photo(entry.get("source"), source.name)
        return FaceInput([Crop(fitted, matrix, face.width, self.head(face))], images.read(path), path)

    def _photo(self, name: object, face: str) -> Path:
        if content.is_file(self.photos):
            return self.photos
        if not is_inside(name):
            raise InputError(f"the manifest says that {face} comes from outside {self.photos}", "align it again")
        return self.photos / str(name)


def _warp(said: object) -> np.ndarray | None:
    """Return a manifest's warp from photo to face; None for what is no map that can be reversed."""
    try:
        matrix = np.array(said, float)
    except (TypeError, ValueError):
        return None
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:, :2])) < 1e-12:
        return None
    return matrix
