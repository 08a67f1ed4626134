"""The layer that places the landmarks of upright faces, fitted to labelled squares in closed form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..data.face_squares import COUNTS, FACE
from ..data.reader import Sample
from ..nets.face_points import FacePoints

RIDGE = 0.03  # how much the weights are held back, in mean squares of what the layer sees
ROUNDS = 3  # of least squares, each weighted by the distances that the one before has left
NEAR = 0.007  # sides of a square: distances below count as this one
SURE = 4.0  # the logit that a face is fitted to
TOGETHER = 100  # squares that the net is shown at once


@torch.no_grad()
def fit(net: FacePoints, squares: Iterable[Sample]) -> None:
    """Fit the layer `upright` of a net to squares as `data.face_squares.SquareReader` cuts them."""
    net.eval()
    seen, known = [], []
    for shown, labels in _together(squares):
        seen.append(net.trunk(shown).flatten(1).double())
        known.append(labels.double())
    x, y = torch.cat(seen), torch.cat(known)
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    points = weights_of(x, y[:, :10], y[:, COUNTS])
    score = weights_of(x, SURE * (2 * y[:, FACE, None] - 1), torch.ones_like(y[:, FACE]), rounds=1)
    weights = torch.cat([points, score], 1).T
    net.upright.weight.copy_(weights[:, :-1])
    net.upright.bias.copy_(weights[:, -1])


def _together(squares: Iterable[Sample]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield squares as what the net takes [n, 3, S, S] and their labels [n, LABELS], TOGETHER at a time."""
    batch: list[Sample] = []
    for square in squares:
        batch.append(square)
        if len(batch) == TOGETHER:
            yield _stacked(batch)
            batch = []
    if batch:
        yield _stacked(batch)


def _stacked(batch: list[Sample]) -> tuple[Tensor, Tensor]:
    shown = torch.from_numpy(np.stack([square["a"] for square in batch]))
    labels = torch.from_numpy(np.stack([square["a_faces"] for square in batch]))
    return shown.permute(0, 3, 1, 2).float().div(127.5).sub(1), labels


def weights_of(x: Tensor, y: Tensor, counts: Tensor, rounds: int = ROUNDS, ridge: float = RIDGE) -> Tensor:
    """Return weights [D, M] for which x [N, D] @ weights is near y [N, M], by mean distance: reweighted least squares.

    Each row counts as much as `counts` [N] says; the last column of x, ones, is not held back.
    """
    hold = ridge * len(x) * x[:, :-1].square().mean() * torch.eye(x.shape[1], dtype=x.dtype)
    hold[-1, -1] = 0
    share = counts / counts.mean().clamp(min=1e-9)
    weights = x.new_zeros(x.shape[1], y.shape[1])
    for _ in range(rounds):
        weighted = x * share[:, None]
        weights = torch.linalg.solve(x.T @ weighted + hold, weighted.T @ y)
        share = counts / (x @ weights - y).abs().mean(1).clamp(min=NEAR)
        share = share / share.mean().clamp(min=1e-9)
    return weights
