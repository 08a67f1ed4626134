"""A small net that finds faces: for each cell of three grids a score, a box, five landmarks, and photo or drawing."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32)
OUTPUTS = 16  # score, kind, box (4), landmarks (10)
UNIT = 4.0  # a box side of exp(0) is this many strides
PRIOR = 0.01  # the score of every cell before training (Lin et al. 2017, Focal loss, section 3.3)


class Cells(NamedTuple):
    """What the net says of every cell of its grids; P is the number of cells, px are those of the net's input."""

    score: Tensor  # [N, P] logits: a face
    kind: Tensor  # [N, P] logits: a drawing
    box: Tensor  # [N, P, 4] px: x0, y0, x1, y1
    points: Tensor  # [N, P, 5, 2] px: the face's own right eye, left eye, nose, right and left mouth corner


class Conv(nn.Sequential):
    """Convolution, batch norm, ReLU; the convolution has no bias."""

    def __init__(self, inside: int, out: int, kernel: int = 3, stride: int = 1):
        padding = (kernel - stride + 1) // 2 if kernel > 3 else kernel // 2
        super().__init__(
            nn.Conv2d(inside, out, kernel, stride, padding, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
        )


class Step(nn.Module):
    """relu(x + norm(conv(x))): a residual step of one 3 x 3 convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.conv(x)))


class FaceDetector(nn.Module):
    """Single-shot and without anchors (after Tian et al. 2019, FCOS): a trunk, three levels and one shared head.

    [N, 3, H, W] in [-1, 1], H and W multiples of 32, to one map for each of the strides 8, 16 and 32: [N, 16, h, w].
    `decode` turns the maps into boxes and points. Plain 3 x 3 convolutions: per operation they train twice as fast on
    a processor as depthwise ones.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        wide = (width, 2 * width, 3 * width)
        self.stem = Conv(3, width // 2, 6, 4)
        self.fine = nn.Sequential(Conv(width // 2, wide[0], stride=2), Step(wide[0]), Step(wide[0]))
        self.middle = nn.Sequential(Conv(wide[0], wide[1], stride=2), Step(wide[1]), Step(wide[1]))
        self.coarse = nn.Sequential(Conv(wide[1], wide[2], stride=2), Step(wide[2]), Step(wide[2]))
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in wide)
        self.smooth = nn.ModuleList(Conv(width, width) for _ in wide)
        self.body = Conv(width, width)
        self.head = nn.Conv2d(width, OUTPUTS, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.head.weight, 0.0, 0.01)
        with torch.no_grad():
            self.head.bias[0] = -math.log((1 - PRIOR) / PRIOR)  # type: ignore[index]

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [self.fine(self.stem(x))]
        levels.append(self.middle(levels[0]))
        levels.append(self.coarse(levels[1]))
        out: list[Tensor] = []
        above: Tensor | None = None
        for index in (2, 1, 0):
            here = self.lateral[index](levels[index])
            above = here if above is None else here + F.interpolate(above, scale_factor=2.0, mode="nearest")
            out.insert(0, self.head(self.body(self.smooth[index](above))))
        return out


def grid(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the middle of each cell (x, y) [P, 2] and its stride [P, 1], in px, in the order of `decode`."""
    middles, strides = _cells(tuple((level.shape[2], level.shape[3]) for level in maps))
    return torch.from_numpy(middles).to(maps[0]), torch.from_numpy(strides).to(maps[0])


@functools.lru_cache(maxsize=32)
def _cells(shapes: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    middles, strides = [], []
    for shape, stride in zip(shapes, STRIDES, strict=True):
        places = np.indices(shape, np.float32)[::-1].reshape(2, -1).T
        middles.append((places + np.float32(0.5)) * np.float32(stride))
        strides.append(np.full((len(places), 1), stride, np.float32))
    return np.concatenate(middles), np.concatenate(strides)


def decode(maps: list[Tensor]) -> Cells:
    """Turn the net's maps into scores, boxes and points of all cells, level after level, row after row."""
    centres, strides = grid(maps)
    flat = torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2)  # [N, P, 16]
    middle = centres + flat[..., 2:4] * strides
    half = flat[..., 4:6].clamp(-4, 4).exp() * (strides * UNIT / 2)
    points = centres[:, None] + flat[..., 6:].unflatten(2, (5, 2)) * (strides[:, None] * UNIT)
    return Cells(flat[..., 0], flat[..., 1], torch.cat([middle - half, middle + half], 2), points)
