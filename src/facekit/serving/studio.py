"""Several trained models that share a face finder: one photo and a request in, its faces before and after out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.roll import tilt
from ..errors import CardError, InputError
from ..faces import MARGIN, Face, align_face, find_detector, find_faces, paste, roll
from ..faces.alignment import footprint
from ..inference.face_input import Rotation, tilted_crop
from ..inference.face_labels import given_label
from ..inference.head_mask import HeadMask
from ..inference.translator import Translator
from ..recipe_api import checkpoint
from ..recipe_api.controls import Control
from ..runtime.device import find_device
from ..storage.card import suggest
from .request import TranslateRequest

NO_FACE = "try a photo that shows the face from the front, or say that the picture is a face already (align=false)"


@dataclass
class TranslatedFace:
    """One face before and after; `face` is where it was found in the photo, None for an image that is a face."""

    before: Image.Image
    after: Image.Image
    face: Face | None = None


@dataclass
class Answer:
    """What became of one photo: its faces from left to right, or the largest alone.

    `picture` is the photo with the translations in it, where that was asked for, else the first translation.
    """

    picture: Image.Image
    faces: list[TranslatedFace]
    weights: str
    to: str
    photo_size: tuple[int, int] = field(default=(0, 0))


class Studio:
    """Translates photos with any of the weights that it was opened with.

    `weights` are run folders, files or shipped names; `given` keeps them by the name of each. Raises MissingError for
    weights that cannot be loaded, CardError for weights that translate nothing and for two of one name.
    """

    def __init__(
        self,
        weights: Sequence[str] = ("anime",),
        device: str = "auto",
        recipe: str | None = None,
        detector: str = "auto",
        model_root: Path | None = None,
    ):
        self.device, self.recipe, self.model_root = find_device(device), recipe, model_root
        self.models: dict[str, checkpoint.Model] = {}
        self.given: dict[str, str] = {}
        for given in weights:
            model = checkpoint.load_model(given, self.device, recipe)
            name = short_name(model.path)
            if name in self.models:
                raise CardError(f"two weights are called {name!r}", "rename one of the folders or files")
            if not model.directions:
                raise CardError(f"{model.path} translates nothing", "give weights of a recipe that translates")
            Translator(model, next(iter(model.directions)))  # lays the nets out once, before threads use them
            self.models[name], self.given[name] = model, str(given)
        self.detector = find_detector(detector, model_root)
        self._lock = threading.Lock()

    @cached_property
    def _heads(self) -> HeadMask:
        return HeadMask()

    def translate(self, photo: Image.Image, request: TranslateRequest) -> Answer:
        """Translate the faces of an RGB photo.

        Raises CardError for a request that the weights cannot fulfil, InputError where no face is found.
        """
        name, translator = self._translator(request)
        conditions = self._conditions(translator, request)
        if request.rotation:
            tilted = self._tilted(photo, translator, request.rotation, conditions)
            return Answer(tilted.after, [tilted], name, translator.name, photo.size)
        if not request.align:
            face = translator.fit(photo)
            after = translator.fitted([face], None, **{key: [value] for key, value in conditions.items()})[0]
            return Answer(after, [TranslatedFace(face, after)], name, translator.name, photo.size)
        pixels = np.asarray(photo)
        found = self._find(pixels, request.faces == "all")
        cuts = [align_face(pixels, face, translator.net_size, MARGIN) for face in found]
        before = [translator.fit(cut.image) for cut in cuts]
        given = {key: [value] * len(cuts) for key, value in conditions.items()}
        places = [footprint(cut.matrix, translator.net_size) if request.paste else 0 for cut in cuts]
        after_all = translator.fitted(before, None, places=places, **given)
        faces = [TranslatedFace(*three) for three in zip(before, after_all, found, strict=True)]
        picture = photo if request.paste else faces[0].after
        if request.paste:
            with self._lock:
                heads = self._heads
            for cut, item in zip(cuts, faces, strict=True):
                picture = paste(picture, item.after, cut.matrix, translator.net_size, heads(cut.image))
        return Answer(picture, faces, name, translator.name, photo.size)

    def _tilted(
        self, photo: Image.Image, translator: Translator, rotation: Rotation, conditions: dict[str, Any]
    ) -> TranslatedFace:
        """Translate a picture that is a tilted face; see `TiltedReader`."""
        if rotation not in _rotations(translator.model):
            raise CardError("these weights are not conditioned on an angle", "give `rotation` upright, or leave it out")
        (found,) = self._find(np.asarray(photo), False, "try a picture that shows the face, or leave out the rotation")
        crop = tilted_crop(photo, roll(found.landmarks), translator, rotation == "condition")
        given = {"roll": crop.roll, **conditions} if rotation == "condition" else conditions
        made = translator.fitted([crop.face], None, **{key: [value] for key, value in given.items()})[0]
        return TranslatedFace(translator.fit(photo), tilt(made, crop.turn_back), found)

    def _find(self, pixels: np.ndarray, every: bool, hint: str = NO_FACE) -> list[Face]:
        try:
            return find_faces(self.detector, pixels, every)
        except InputError as error:
            raise InputError(error.message, hint) from error

    def _translator(self, request: TranslateRequest) -> tuple[str, Translator]:
        """Return the translator of a request; errors name the parameters, not flags of the command line."""
        able = [name for name, model in self.models.items() if request.to in model.directions]
        name = request.weights or next(iter([*able, *self.models]))
        if name not in self.models:
            raise CardError(f"no weights {name!r} are served{suggest(name, self.models)}", "GET /weights lists them")
        model = self.models[name]
        targets = [] if request.to is None else request.to.split("+") if model.recipe.combines else [request.to]
        for target in targets:
            if target not in model.directions:
                known = ", ".join(model.directions)
                raise CardError(f"{name} does not translate to {target!r}", f"give `to` one of: {known}")
        if request.to is None and len(model.directions) > 2:
            raise CardError(f"{name} translates to several", f"give `to` one of: {', '.join(model.directions)}")
        return name, Translator(model, request.to, request.size, mask=request.mask, controls=request.controls)

    def _conditions(self, translator: Translator, request: TranslateRequest) -> dict[str, Any]:
        """Return what the recipe must know of every face."""
        model = translator.model
        if not model.recipe.needs_source:
            if request.source is not None:
                raise CardError(f"{model.card.recipe} does not use what the face is", "leave out `source`")
            return {}
        known = ", ".join(model.directions)
        if request.source is None:
            raise CardError("these weights must know what the face is", f"give `source`: {known}")
        for label in request.source.split("+"):
            if label not in model.directions and request.source != "none":
                raise CardError(f"these weights do not know {label!r}", f"give `source`: {known}")
        return {"source": given_label(request.source, model)}

    def controls(self) -> dict[str, list[Control]]:
        """Return what the weights let people set, by name; weights may give one name other limits."""
        found: dict[str, list[Control]] = {}
        for model in self.models.values():
            for control in model.recipe.known_controls():
                found.setdefault(control.name, []).append(control)
        return found

    def describe(self) -> list[dict[str, Any]]:
        """Return what the weights can do, without any path of this machine."""
        return [
            {
                "name": name,
                "recipe": model.card.recipe.rpartition("/")[2],
                "to": list(model.directions),
                "size": model.card.data.size,
                "several": bool(model.recipe.combines),
                "source": model.recipe.needs_source,
                "controls": [asdict(control) for control in model.recipe.known_controls()],
                "mask": model.recipe.masks,
                "rotations": _rotations(model),
            }
            for name, model in self.models.items()
        ]


def _rotations(model: checkpoint.Model) -> list[Rotation]:
    """Return what `rotation` may be for weights."""
    return ["upright", "condition"] if model.recipe.takes("roll") else ["upright"]


def short_name(path: Path) -> str:
    """Return what weights are called: the name of their run folder, or of their file."""
    return path.resolve().parent.name if path.name == checkpoint.FILE else path.stem
