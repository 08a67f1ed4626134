"""A small residual net that says which labels a face has."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """ReLU([c3 BN ReLU c3 BN](x) + x), batch norm throughout; with `stride` 2 half as large, x through a 1x1 conv."""

    def __init__(self, inside: int, out: int, stride: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inside != out:
            self.skip = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class FaceClassifier(nn.Module):
    """A ResNet (He et al. 2016) for small faces: [N, 3, H, W] to logits [N, labels]; 619,493 parameters for 5 labels.

    Each image is brought to mean 0 and variance 1 first. Without `colour` the net sees brightness alone, so a grey
    photo and a coloured one are the same to it.
    """

    def __init__(self, labels: int, width: int = 32, blocks: int = 1, colour: bool = False, dropout: float = 0.0):
        super().__init__()
        self.colour = colour
        widths = (width, width, 2 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = [
            nn.Conv2d(3 if colour else 1, width, 3, 2, 1, bias=False),  # S/2
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        for level, (inside, out) in enumerate(itertools.pairwise(widths)):  # S/2, S/4, S/8, S/16
            layers += [Block(inside, out, 2 if level else 1), *(Block(out, out) for _ in range(blocks - 1))]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], labels))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.colour else x.mean(1, keepdim=True)
        x = F.layer_norm(x, x.shape[1:])
        return self.head(self.trunk(x).mean((2, 3)))
