"""A small residual net whose averaged feature maps describe an image."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from .classifier import Block


class FeatureNet(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] RGB to features [N, 9 width]: 288 numbers and 488,784 parameters at width 32.

    The features are the means of the maps at three sizes, so that both texture and the shape of the face count; over
    the training images each has mean 0 and variance 1.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        first = max(8, width // 2)  # torch 2.14 crashes in the backward pass of channels-last convolutions to 4
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 3, 2, 1, bias=False),  # width / 2, S/2
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            Block(first, width, 2),  # width, S/4
        )
        self.levels = nn.ModuleList(  # 2 width, S/4; 3 width, S/8; 4 width, S/16
            Block(inside, out, 1 if level == 0 else 2) for level, (inside, out) in enumerate(itertools.pairwise(widths))
        )
        self.norm = nn.BatchNorm1d(sum(widths[1:]), affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        means = []
        for level in self.levels:
            x = level(x)
            means.append(x.mean((2, 3)))
        return self.norm(torch.cat(means, 1))


class ProjectionHead(nn.Module):
    """What only training needs: features [N, inside] to vectors [N, out] in which two views of an image agree."""

    def __init__(self, inside: int, out: int = 64):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(inside, inside, bias=False), nn.BatchNorm1d(inside), nn.ReLU(inplace=True), nn.Linear(inside, out)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)
