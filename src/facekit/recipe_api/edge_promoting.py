"""Drawings with their edge-smoothed partners, and what the methods share that learn from them (Chen et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import edge_smoothing
from ..data.dataset import Layout, find_folders, open_layout
from ..data.loader import Reader, Sample
from ..errors import InputError
from ..runtime import console
from ..storage import images
from ..storage.card import Data
from ..storage.folder import Folder, output_names
from .base import Phase, Progress, Recipe, Scene, view


@dataclass(frozen=True)
class SmoothedReader(Reader):
    """Reads a drawing and its edge-smoothed partner; the entries are `NAME` and `NAME_smooth`.

    Without `partners` the drawing is smoothed as it is read, at the size that it is read at.
    """

    partners: Mapping[Path, Path] | None = None

    def read(self, path: Path, size: int) -> Sample:
        """Decode both to squares of `size` px; raises InputError where one is broken or has no partner."""
        sample = super().read(path, size)
        if self.partners is None:
            smooth = edge_smoothing.smooth(sample[self.name])[0]
        elif path in self.partners:
            smooth = np.asarray(images.resize(images.square(images.read(self.partners[path])), size))
        else:
            raise InputError(f"{path} has no smoothed partner", "facekit smooth-edges makes them")
        return {**sample, f"{self.name}_smooth": smooth}


def open_smoothed(data: Data, folder: str | None) -> Layout:
    """Find two folders of images, and for each drawing of domain b its partner in `folder` (None: made as it is read).

    A partner has its drawing's name in the same sub-folder, as `facekit smooth-edges` writes it; the type may differ.
    Raises InputError where the folder or a training image's partner is missing.
    """
    layout = open_layout(data)
    if folder is None:
        console.note("smoothed drawings: made as they are read; --set params.smooth=DIR takes those of a folder")
        return replace(layout, readers={"b": SmoothedReader("b")})
    drawings = find_folders(data).train["b"]
    hint = f"facekit smooth-edges {drawings} {folder}"
    try:
        smooth = Folder(folder)
    except InputError as error:
        raise InputError(f"no smoothed drawings: {error.message}", hint) from error
    there = {str(Path(name).with_suffix("")): smooth.path / name for name in smooth.names}
    sources = Folder(drawings).sources()
    named = output_names(sources, "")
    partners = {s.path: there[named[s.name]] for s in sources if named[s.name] in there}
    missing = [path for path in layout.train["b"] if path not in partners]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(layout.train['b'])} drawings have no smoothed partner in {folder}: {missing[0]}",
            hint,
        )
    console.note(f"smoothed drawings: {len(partners)} from {folder}")
    return replace(layout, readers={"b": SmoothedReader("b", partners)})


class SmoothedScene(Scene):
    """Photos `a`, drawings `b` and `b_smooth` with blurred contours; `ab` draws, `d` judges.

    In the warm-up only the content term is computed; the others are 0 then.
    """

    @property
    def warm(self) -> bool:
        """Whether the warm-up is over; the memory estimate is of the time after it."""
        return self.progress >= self.params.warmup or self.a.is_meta

    @view
    def fake(self) -> Tensor:
        """The translation of a."""
        return self.nets.ab(self.a)


class Smoothed(Recipe):
    """A method from photos to drawings that learns from smoothed drawings, too; `params.smooth` is their folder."""

    phases = (Phase("D", ("d",)), Phase("G", ("ab",), lend=("fake",)))
    exports = ("ab",)
    directions = ("b",)

    def begins_stage(self, clock: Progress) -> bool:
        """The warm-up and the main phase have an Adam each, as in the authors' code."""
        warmup, step = self.params.warmup, clock.step
        return step > 0 and (step - 1) / clock.steps < warmup <= clock.progress

    def open(self, data: Data) -> Layout:
        return open_smoothed(data, self.params.smooth)

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {name: torch.empty(batch, 3, size, size) for name in ("a", "b", "b_smooth")}

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        return nets.ab(x)
