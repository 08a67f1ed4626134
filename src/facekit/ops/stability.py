"""Whether a drawing moves with its photo: what keeps films from flickering."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from . import augment, losses


def unsteadiness(translate: Callable[[Tensor], Tensor], photos: Tensor, drawn: Tensor) -> Tensor:
    """Return how far drawings of slightly moved photos are from the drawings, moved: a mean absolute difference.

    `photos` [N, 3, S, S] in [-1, 1] and what `translate` has `drawn` of them, of the same shape, go through one random
    warp each (2 degrees, 2 %, 1 % of the edge); compared is where both lie inside.
    """
    both = losses.wide(photos), losses.wide(drawn)
    grid = augment.affine_grid(both[0], 2.0, 0.02, 0.01)
    moved, wanted = (F.grid_sample(x, grid, padding_mode="reflection", align_corners=False) for x in both)
    inside = (grid.abs().amax(-1) < 1).to(wanted.dtype)[:, None]
    apart = (losses.wide(translate(moved.to(photos.dtype))) - wanted).abs() * inside
    return apart.sum() / (3 * inside.sum()).clamp(min=1)
