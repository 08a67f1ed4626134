"""A trained model as an object: photos in, translated faces out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import CardError, InputError, OutOfMemory
from ..faces import paste as paste_face
from ..ops.cpu_kernels import CpuKernels
from ..recipe_api import checkpoint
from ..recipe_api.controls import Control, read_controls
from ..runtime.device import find_device
from ..storage import files, images
from .enlarger import MOST, NONE, SHIPPED, open_enlarger
from .keeping import PhotoKeeper

if TYPE_CHECKING:
    from .face_input import PhotoReader

AnyImage = str | Path | Image.Image | np.ndarray
LONGEST = 16  # of an image, the longer edge over the shorter


class Translator:
    """Translates images to a domain of its model: `facekit.load("anime")(photo)`.

    `size` is the shorter edge of the results in px; the model's training size if absent. Larger ones are translated at
    the training size and enlarged, because nets produce artefacts at sizes that they were not trained on; so are faces
    that are put back into a photo where they were larger.
    `strength` scales the change, 1 is as learned; `controls` are more of what the method lets people set (`keep`,
    `background`, ...; see `Recipe.controls`). With `mask` the results show where faces are changed (white:
    completely) instead of the faces. `upscaler` is what enlarges: weights of that recipe, or "none". `detector` and
    `model_root` choose what finds faces, as in `facekit align`.

    `domains` are the names that `to` takes. Raises CardError for options that the method does not have.
    """

    def __init__(
        self,
        model: checkpoint.Model,
        to: str | None = None,
        size: int | None = None,
        strength: float | None = None,
        mask: bool = False,
        detector: str = "auto",
        model_root: Path | None = None,
        controls: Mapping[str, Any] | None = None,
        upscaler: str = SHIPPED,
    ):
        trained = model.card.data.size
        self.model, self.to, self.size = model, to, size or trained
        self.net_size = min(self.size, trained)
        self._exact = size is not None
        self._finding = detector, model_root
        self._readers: dict[bool, PhotoReader] = {}
        self.side = checkpoint.direction(model, to)
        self.mask = mask
        given = read_controls(
            model.recipe.known_controls(), {"strength": strength, **(controls or {})}, model.card.recipe
        )
        model.recipe.check_controls(given)
        if mask and given:
            hint = f"leave out {' and '.join(given)}, or the mask"
            raise CardError("a mask shows the change as it was learned", hint)
        self._own = {name: value for name, value in given.items() if model.recipe.takes(name)}
        general = {name: value for name, value in given.items() if name not in self._own}
        self._keeper = (
            PhotoKeeper(
                float(general.get("strength", 1)), general.get("keep") == "colours", general.get("background") == "keep"
            )
            if general
            else None
        )
        if mask and not model.recipe.masks:
            raise CardError(f"{model.card.recipe} has no attention mask", "leave out the mask")
        if not model.recipe.multiple and self.size != model.recipe.size:
            raise CardError(f"these weights translate at {model.recipe.size} px only", "leave out the size")
        self.device = next(model.nets.parameters()).device
        self.enlarger = open_enlarger(NONE if mask else upscaler, str(self.device))
        self.alone = self.device.type == "cpu"  # a batch would only take more memory
        if self.alone:
            model.nets.to(memory_format=torch.contiguous_format)  # what quick convolutions take

    def __repr__(self) -> str:
        recipe, source = self.model.card.recipe, " or ".join(self.domains)
        return (
            f"<Translator {self.model.path.stem}: {recipe}, to {self.name} of {source}, {self.size} px, {self.device}>"
        )

    @property
    def enlarges(self) -> bool:
        """Whether results are larger than the output of the nets."""
        return self.size > self.net_size

    def inputs(self, pastes: bool) -> dict[str, str]:
        """Return the digests of the weights that results depend on; `pastes`: whether faces go back into photos."""
        found = {"weights": self.model}
        if self.enlarger.model is not None and (self.enlarges or pastes):
            found["upscaler"] = self.enlarger.model
        return {name: files.digest(model.path) for name, model in found.items()}

    @property
    def name(self) -> str:
        """The domain that is translated to."""
        known = {side: name for name, side in self.model.directions.items()}
        return "+".join(known[side] for side in self.side.split("+"))

    @property
    def controls(self) -> tuple[Control, ...]:
        """What can be set for a translation."""
        return self.model.recipe.known_controls()

    @property
    def domains(self) -> list[str]:
        """The domains that the model translates to."""
        return list(self.model.directions)

    def __call__(
        self, image: AnyImage, to: str | None = None, *, align: bool = True, paste: bool = False
    ) -> Image.Image:
        """Translate one image: a path, a PIL image, or an array uint8 [H, W, 3] or [H, W].

        The largest face is found, cut out upright and translated; with `paste` it is put back and the whole photo is
        returned. `align=False` takes the image as a face that is cut already. `to` names a domain other than the
        translator's own. Raises InputError where no face is found.
        """
        picture = open_image(image)
        if not align:
            if paste:
                raise CardError("paste needs to find the face", "leave out align=False")
            return self.batch([picture], to)[0]
        found = self._photos(paste).cut(picture)
        (crop,) = found.crops
        face = self.fitted([crop.face], to, places=[crop.place if paste else 0])[0]
        if found.photo is None or crop.matrix is None:
            return face
        return paste_face(found.photo, face, crop.matrix, crop.edge, crop.head)

    def _photos(self, paste: bool) -> PhotoReader:
        """Return what cuts faces out of photos; its detector is loaded once."""
        from .face_input import FaceOptions, PhotoReader

        if paste not in self._readers:
            detector, root = self._finding
            options = FaceOptions(paste=paste, detector=detector, model_root=root)
            self._readers[paste] = PhotoReader(self, options)
        return self._readers[paste]

    def batch(self, pictures: Sequence[Image.Image], to: str | None = None) -> list[Image.Image]:
        """Translate faces that are cut already, images of any size and mode; proportions stay."""
        return self.fitted([self.fit(images.to_rgb(picture)) for picture in pictures], to)

    @torch.inference_mode()
    def fitted(
        self,
        pictures: Sequence[Image.Image],
        to: str | None = None,
        notes: list[dict[str, Any]] | None = None,
        places: Sequence[int] | None = None,
        **conditions: Sequence[Any],
    ) -> list[Image.Image]:
        """Translate images prepared by `fit`: one batch per shape, on the processor one by one.

        `places` are the edges in px that faces have in the photos that they go back into: results are enlarged to them,
        up to four times. `conditions` are what the recipe's `translate` is conditioned on, a value for each image:
        `roll`, `source`. `notes` gets what it measured of each, where it measures.
        """
        side = self.side if to is None else checkpoint.direction(self.model, to)
        out: list[Image.Image | None] = [None] * len(pictures)
        groups: dict[Any, list[int]] = {}
        for i, picture in enumerate(pictures):
            groups.setdefault(i if self.alone else picture.size, []).append(i)
        measured: list[dict[str, Any]] = [{} for _ in pictures]
        for members in groups.values():
            given: dict[str, Any] = {name: [values[i] for i in members] for name, values in conditions.items()}
            if notes is not None and self.model.recipe.takes("notes"):
                given["notes"] = []
            made = self._run([pictures[i] for i in members], side, given)
            for i, x in zip(members, made, strict=True):
                out[i] = self._enlarged(x, places[i] if places else 0)
            for i, note in zip(members, given.get("notes", ()), strict=False):
                measured[i] = note
        if notes is not None:
            notes += measured
        return [picture for picture in out if picture is not None]

    def _enlarged(self, x: Tensor, place: int) -> Image.Image:
        """Return a translation [3, H, W] at the size that was asked for, or that of its place in a photo if larger."""
        edge = self.size if self._exact else min(x.shape[1:])
        return self.enlarger(x, max(edge, min(place, edge * 2**MOST)))

    def fit(self, picture: Image.Image) -> Image.Image:
        """Resize an RGB image to what the nets take: the shorter edge to `net_size`, both to the recipe's multiple.

        Raises InputError for a strip so long that its translation would fill the memory.
        """
        recipe = self.model.recipe
        if not recipe.multiple:
            return images.resize(picture, recipe.size)
        if max(picture.size) > LONGEST * min(picture.size):
            raise InputError(f"an image of {picture.width} x {picture.height} px is too long a strip", "cut it")
        scale = self.net_size / min(picture.size)
        width, height = (max(1, round(edge * scale / recipe.multiple)) * recipe.multiple for edge in picture.size)
        return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.BICUBIC)

    def _run(self, pictures: list[Image.Image], side: str, conditions: dict[str, Any]) -> Tensor:
        x = images.from_bytes(np.stack([np.asarray(picture, np.uint8) for picture in pictures]), self.device)
        if self.alone:
            x = x.contiguous()
        recipe: Any = self.model.recipe
        if "roll" in conditions:
            conditions["roll"] = torch.tensor(conditions["roll"]).to(x)
        conditions |= self._own
        try:
            with CpuKernels() if self.alone else contextlib.nullcontext():
                if self.mask:
                    return recipe.mask(self.model.nets, x, side).expand_as(x) * 2 - 1
                made = recipe.translate(self.model.nets, x, side, **conditions)
            return made if self._keeper is None else self._keeper(x, made)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                count, _, height, width = x.shape
                raise OutOfMemory(
                    f"out of memory with {count} images of {width} x {height} px", "a smaller batch or size"
                ) from error
            raise


def open_image(image: AnyImage) -> Image.Image:
    """Return a path, PIL image or array (uint8, [H, W], [H, W, 3] or [H, W, 4]) as RGB; raises InputError otherwise."""
    if isinstance(image, (str, Path)):
        return images.read(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
            what = f"{image.dtype} of shape {image.shape}"
            raise InputError(
                f"an array of {what} is not an image", "give uint8 [H, W, 3], for example (x * 255).astype"
            )
        image = Image.fromarray(image)
    return images.to_rgb(image)


def load(
    weights: str | Path,
    to: str | None = None,
    size: int | None = None,
    device: str = "auto",
    recipe: str | None = None,
    **options: Any,
) -> Translator:
    """Load a run folder, a .safetensors file or a shipped name as an object that translates photos.

    The object takes a path, a PIL image or an array and returns a PIL image; see `Translator`.

    `recipe` is the recipe file that the weights were trained with, where it is not an installed one: its code is run.
    `options` are those of Translator. Raises MissingError for weights that are not there or damaged,
    CardError for a domain that they do not know or a device that is not there.
    """
    return Translator(checkpoint.load_model(weights, find_device(device), recipe), to, size, **options)
