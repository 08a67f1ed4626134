"""Passes that two-way recipes share: a generator on both of its domains, a discriminator on real and fake images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops.losses import lsgan


def translate_both(net: nn.Module, x: Tensor, same: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """Return net(x) and net(same), computed in one pass; if the second is not `wanted`, return `same` unchanged.

    With instance normalisation both results are as in separate passes; batch normalisation uses the moments of both.
    """
    if not wanted:
        return net(x), same
    translated, kept = net(torch.cat([x, same])).chunk(2)
    return translated, kept


def judge_both(net: nn.Module, real: Tensor, fake: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return a discriminator's outputs for real and for fake images, taken in one pass: a pair for each output."""
    judged = net(torch.cat([real, fake]))
    outputs = [judged] if isinstance(judged, Tensor) else judged
    halves = [output.chunk(2) for output in outputs]
    return [(on_real, on_fake) for on_real, on_fake in halves]


def lsgan_d(net: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return LSGAN's discriminator loss, without a half, summed over the outputs of `net` (Mao et al. 2017, eq. 9)."""
    pairs = judge_both(net, real, fake)
    return torch.stack([lsgan(on_real, True) + lsgan(on_fake, False) for on_real, on_fake in pairs]).sum()
