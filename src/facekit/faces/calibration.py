"""Scores that mean what they say: a net's logits are stretched and shifted until its 0.9 is right nine times in ten."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from .trial import Trial
from .types import Face

BINS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)


def judged(pictures: Iterable[tuple[list[Face], np.ndarray]], least: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Return score and rightness (0 or 1) of every face found, from pairs of faces found and labels [n, COLUMNS]."""
    scores: list[float] = []
    right: list[bool] = []
    for found, truth in pictures:
        for face, verdict in Trial().match(found, truth, least):
            if verdict is not None:
                scores.append(face.score)
                right.append(verdict)
    return np.array(scores), np.array(right, float)


def fit(scores: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Return scale and shift of the logits that make right answers likeliest (Platt 1999), a little drawn to (1, 0)."""
    logits = np.log(np.clip(scores, 1e-6, 1 - 1e-6) / (1 - np.clip(scores, 1e-6, 1 - 1e-6)))

    def loss(values: np.ndarray) -> float:
        z = logits * values[0] + values[1]
        return float(np.logaddexp(0, z).sum() - (right * z).sum() + 0.5 * ((values - (1, 0)) ** 2).sum())

    scale, shift = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return float(scale), float(shift)


def applied(
    tensors: dict[str, Tensor], scale: float, shift: float, layer: str = "head", row: int = 0
) -> dict[str, Tensor]:
    """Return a net's tensors with scale and shift in a row of its last layer: it then gives the new logits itself."""
    weight, bias = tensors[f"{layer}.weight"].clone(), tensors[f"{layer}.bias"].clone()
    with torch.no_grad():
        weight[row] *= scale
        bias[row] = bias[row] * scale + shift
    return {**tensors, f"{layer}.weight": weight, f"{layer}.bias": bias}


def table(scores: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int, float, float]]:
    """Return by bin of scores: its ends, how many faces it holds, their mean score, and the share that is right."""
    rows = []
    for low, high in zip((0.0, *BINS), BINS, strict=False):
        chosen = (scores > low) & (scores <= high)
        if chosen.any():
            rows.append((low, high, int(chosen.sum()), float(scores[chosen].mean()), float(right[chosen].mean())))
    return rows
