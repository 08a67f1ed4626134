"""Base of the methods that also learn from drawings with smoothed edges (CartoonGAN: Chen, Lai, Liu, CVPR 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..data.dataset import Layout
from ..data.edge_pairs import open_smoothed
from ..storage.card import Data
from .base import Phase, Progress, Recipe, Scene, view


class SmoothedScene(Scene):
    """Photos `a`, drawings `b` and `b_smooth` with blurred contours; `ab` draws, `d` judges.

    In the warm-up only the content term is computed; the others are 0 then.
    """

    @property
    def warm(self) -> bool:
        """Whether the warm-up is over; the memory estimate assumes that it is."""
        return self.progress >= self.params.warmup or self.a.is_meta

    @view
    def fake(self) -> Tensor:
        """The translation of a."""
        return self.nets.ab(self.a)


class Smoothed(Recipe):
    """A method from photos to drawings that also learns from smoothed drawings; `params.smooth` is their folder."""

    phases = (Phase("D", ("d",)), Phase("G", ("ab",), precompute=("fake",)))
    exports = ("ab",)
    directions = ("b",)

    def begins_stage(self, clock: Progress) -> bool:
        """The warm-up and the main phase each start with a new Adam, as in the authors' code."""
        warmup, step = self.params.warmup, clock.step
        return step > 0 and (step - 1) / clock.steps < warmup <= clock.progress

    def open(self, data: Data) -> Layout:
        return open_smoothed(data, self.params.smooth)

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {name: torch.empty(batch, 3, size, size) for name in ("a", "b", "b_smooth")}

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        return nets.ab(x)
