"""Pairs without photos: one latent through two generators, of which the first is asked for faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import CardError
from ..inference.sampling import Picture, Plan, draw, open_generator
from ..nets.stylegan2 import Generator
from ..nets.stylegan2_blend import check_related
from ..storage import files
from ..storage.folder import Source
from .teachers import Drawn


@dataclass(frozen=True)
class Latent(Source):
    """A latent as a source: its seed stands in the name, and there is no file that could change."""

    def stamp(self) -> dict[str, int]:
        return {}


def latents(count: int, first: int) -> list[Source]:
    """Return the latents of `count` seeds from `first` on."""
    return [Latent(Path(name), name) for name in (f"seed{seed:06d}" for seed in range(first, first + count))]


def seed_of(name: str) -> int:
    """Return the seed in the name of a latent or of its picture."""
    return int(Path(name).stem.removeprefix("seed"))


class LatentTeacher:
    """Draws the latent of each name with the second of two generators; `face` draws it with the first.

    Raises CardError where the generators do not take the same latents.
    """

    def __init__(self, first: str, second: str, truncation: float, device: str):
        self.faces, model = open_generator(first, device)
        self.drawings, other = open_generator(second, device)
        check_related(self.faces, self.drawings, (first, second))
        if self.faces.size != self.drawings.size:
            raise CardError(
                f"{first} draws {self.faces.size} px, {second} {self.drawings.size} px",
                f"give a run that was fine-tuned from {first}",
            )
        self.truncation, self.size = truncation, self.faces.size
        self.batch = 1 if device == "cpu" else 32
        self.inputs = {"from": files.digest(model.path), "and": files.digest(other.path)}

    def face(self, source: Source) -> Image.Image:
        """Draw the face of a latent."""
        return self._draw(self.faces, [source.name])[0]

    def draw(self, names: Sequence[str], faces: Sequence[Image.Image]) -> list[Drawn]:
        return [*self._draw(self.drawings, names)]

    def _draw(self, generator: Generator, names: Sequence[str]) -> list[Image.Image]:
        plan = Plan(len(names), truncation=self.truncation)
        return draw(generator, plan, [Picture(name, seed_of(name)) for name in names])
