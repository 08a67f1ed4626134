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


def wide(x: Tensor) -> Tensor:
    """Return x in at least 32 bits: sums of 16-bit numbers lose digits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
