"""A trained model as an object: PIL images in, PIL images out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from . import images, zoo


class Translator:
    """Translates images to a domain of its model.

    `size` is the edge in px that images are brought to (their shorter one, if they are not square); the model's
    training size if absent. `domains` are the names that `to` takes.
    """

    def __init__(self, model: zoo.Model, to: str | None = None, size: int | None = None):
        self.model, self.to, self.size = model, to, size or model.card.data.size
        self.side = zoo.direction(model, to)
        self.device = next(model.nets.parameters()).device

    @property
    def domains(self) -> list[str]:
        """The domains that the model translates to."""
        return list(self.model.directions)

    def __call__(self, image: Image.Image, to: str | None = None) -> Image.Image:
        """Translate one image; `to` names a domain other than the translator's own."""
        return self.batch([image], to)[0]

    @torch.inference_mode()
    def batch(self, pictures: Sequence[Image.Image], to: str | None = None) -> list[Image.Image]:
        """Translate images, those of one shape together; the results are in the model's resolution."""
        side = self.side if to is None else zoo.direction(self.model, to)
        fitted = [self.fit(images.to_rgb(picture)) for picture in pictures]
        out: list[Image.Image | None] = [None] * len(fitted)
        for shape in dict.fromkeys(picture.size for picture in fitted):
            places = [i for i, picture in enumerate(fitted) if picture.size == shape]
            for place, y in zip(places, self._run([fitted[i] for i in places], side), strict=True):
                out[place] = images.to_image(y)
        return [picture for picture in out if picture is not None]

    def fit(self, picture: Image.Image) -> Image.Image:
        """Resize an image to what the nets take: the shorter edge to `size`, both to the recipe's multiple."""
        recipe = self.model.recipe
        if not recipe.multiple:
            return images.resize(picture, recipe.size)
        scale = self.size / min(picture.size)
        width, height = (max(1, round(edge * scale / recipe.multiple)) * recipe.multiple for edge in picture.size)
        return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.BICUBIC)

    def _run(self, pictures: list[Image.Image], side: str) -> Tensor:
        x = torch.stack([images.to_tensor(picture) for picture in pictures]).to(self.device)
        return self.model.recipe.translate(self.model.nets, x.contiguous(memory_format=torch.channels_last), side)


def load(weights: str | Path, to: str | None = None, size: int | None = None, device: str = "auto") -> Translator:
    """Load a run folder, a .safetensors file or a shipped name as an object that maps PIL to PIL.

    Raises MissingError for weights that are not there or damaged, CardError for a domain that they do not know.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Translator(zoo.load_model(weights, device), to, size)
