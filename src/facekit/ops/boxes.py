"""Overlap of boxes (x0, y0, x1, y1), and the choice of the best of overlapping ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

MOST = 0.4  # overlap with a better box from which a box is left out


def _parts(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return intersection and union of boxes [..., 4]."""
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (one[..., 2:] - one[..., :2]).prod(-1) + (other[..., 2:] - other[..., :2]).prod(-1)
    return shared, areas - shared


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes [..., 4], which broadcast."""
    shared, union = _parts(one, other)
    return shared / union.clamp(min=1e-6)


def generalised_overlap(one: Tensor, other: Tensor) -> Tensor:
    """IoU less the share of the hull that neither covers, -1 to 1 (Rezatofighi et al. 2019)."""
    shared, union = _parts(one, other)
    hull = (torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])).prod(-1)
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def suppress(boxes: np.ndarray, scores: np.ndarray, most: float = MOST) -> list[int]:
    """Return the indices of boxes [n, 4], best score first, without those that overlap a better one by over `most`."""
    order = [int(index) for index in np.argsort(-scores, kind="stable")]
    area = np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)
    kept: list[int] = []
    while order:
        best = order.pop(0)
        kept.append(best)
        rest = np.array(order, int)
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.maximum(high - low, 0).prod(1)
        order = [int(index) for index in rest[shared <= most * (area[best] + area[rest] - shared)]]
    return kept
