"""Losses as pure functions of tensors; weights are never inside them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def lsgan(prediction: Tensor, real: bool) -> Tensor:
    """mean((D - 1)^2) for real, mean(D^2) for fake, without a half (Mao et al. 2017, eq. 9)."""
    prediction = wide(prediction)
    return (prediction - 1).square().mean() if real else prediction.square().mean()


def binary(logits: Tensor, positive: bool) -> Tensor:
    """Mean binary cross-entropy of logits against all ones or all zeros."""
    logits = wide(logits)
    return F.softplus(-logits if positive else logits).mean()


def l1(x: Tensor, y: Tensor) -> Tensor:
    """mean(|x - y|)."""
    return (wide(x) - wide(y)).abs().mean()


def hinge_g(fake: Tensor) -> Tensor:
    """-mean(D(fake)) (Lim and Ye 2017, eq. 5)."""
    return -wide(fake).mean()


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """mean(max(0, 1 - D(real))) + mean(max(0, 1 + D(fake))) (Lim and Ye 2017, eq. 4)."""
    return F.relu(1 - wide(real)).mean() + F.relu(1 + wide(fake)).mean()


def patch_nce(query: Tensor, key: Tensor, tau: float = 0.07) -> Tensor:
    """PatchNCE of unit vectors [N, S, C] (Park et al. 2020, eq. 3): place s of the query belongs to place s of the key.

    The other places of the same image are the negatives; no gradient reaches the key.
    """
    logits = torch.bmm(wide(query), wide(key.detach()).transpose(1, 2)) / tau  # [N, S, S]
    places = torch.arange(query.shape[1], device=query.device).repeat(len(query))
    return F.cross_entropy(logits.flatten(0, 1), places)


def cosine_distance(x: Tensor, y: Tensor) -> Tensor:
    """mean(1 - cos(x, y)) of vectors [N, d]."""
    return 1 - F.cosine_similarity(wide(x), wide(y), dim=1).mean()


def dice(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Soft Dice loss, 1 - mean over classes of 2 |p t| / (|p| + |t|), smoothed by 1 (Milletari et al. 2016, eq. 2).

    `probabilities` [N, C, H, W], `labels` [N, H, W]; each class is summed over the batch.
    """
    p = wide(probabilities)
    truth = F.one_hot(labels, p.shape[1]).movedim(-1, 1).to(p.dtype)
    both, sums = (p * truth).sum((0, 2, 3)), (p + truth).sum((0, 2, 3))
    return 1 - ((2 * both + 1) / (sums + 1)).mean()


def wide(x: Tensor) -> Tensor:
    """Return x in at least 32 bits: sums of 16-bit numbers lose digits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
