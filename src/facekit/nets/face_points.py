"""A second, smaller net that sees one face: it places the landmarks, and says whether there is a face."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .detector import Conv

SIDE = 64  # px, the edge of what the net is shown
BOXED = 1.4  # the first square's side, in the larger sides of the face's box
DOUBT = 1.0  # the logit below which a face may stand another way up than it seemed
FRAMED = 4.4  # the upright square's side, in root mean square distances of the five landmarks from their middle
VIEWS = ((0.92, -0.1), (1.09, 0.1))  # two squares seen besides, the other mirrored: how much larger, turned (radians)
ROUGH, FINE, SEEN = slice(0, 10), slice(10, 20), 20  # what the net says: two times five points, and a logit
MIRRORED = [1, 0, 2, 4, 3]  # the points of a face in a mirror


class FacePoints(nn.Module):
    """[N, 3, SIDE, SIDE] in [-1, 1] to [N, 21]: ROUGH points at any roll, FINE ones of upright faces, and SEEN.

    Points are x, y in sides of the square from its middle; SEEN is a logit: whether an upright face fills the square.
    """

    def __init__(self, width: int = 33):
        super().__init__()
        widths = (width, 5 * width // 3, 8 * width // 3, 4 * width)
        self.trunk = nn.Sequential(
            Conv(3, widths[0], stride=2),
            Conv(widths[0], widths[1], stride=2),
            Conv(widths[1], widths[2], stride=2),
            Conv(widths[2], widths[2]),
            Conv(widths[2], widths[3], stride=2),
        )
        self.hidden = nn.Linear(widths[3] * 16, 4 * width)
        self.head = nn.Linear(4 * width, 10)
        self.upright = nn.Linear(widths[3] * 16, 11)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.trunk(x).flatten(1)
        return torch.cat([self.head(F.relu(self.hidden(seen))), self.upright(seen)], 1)


def squares(images: Tensor, which: Tensor, middle: Tensor, side: Tensor, turn: Tensor) -> Tensor:
    """Cut squares [K, 3, SIDE, SIDE] out of images [N, 3, H, W]: `which` image, `middle` [K, 2] and `side` [K] in px.

    A face that is turned clockwise by `turn` [K] radians stands upright in its square.
    """
    cos, sin = turn.cos() * side, turn.sin() * side
    height, width = images.shape[2:]
    rows = [
        torch.stack([cos / width, -sin / width, 2 * middle[:, 0] / width - 1], 1),
        torch.stack([sin / height, cos / height, 2 * middle[:, 1] / height - 1], 1),
    ]
    moves = torch.stack(rows, 1).mT
    grid = (torch.from_numpy(places()).to(moves) @ moves).unflatten(1, (2 * SIDE, 2 * SIDE))
    shown = images if len(images) == len(which) == 1 else images[which]
    fine = F.grid_sample(shown, grid, "bilinear", "border", align_corners=False)
    above, below = fine[:, :, ::2], fine[:, :, 1::2]  # means of four; F.avg_pool2d is far slower
    return (above[..., ::2] + above[..., 1::2]).add_(below[..., ::2]).add_(below[..., 1::2]).div_(4)


@functools.cache
def places() -> np.ndarray:
    """Return x, y, 1 of the places of a square of twice SIDE px, row after row, from -1 to 1 at its edges: float32."""
    along = (np.arange(2 * SIDE, dtype=np.float32) + np.float32(0.5)) / np.float32(SIDE) - np.float32(1)
    y, x = np.meshgrid(along, along, indexing="ij")
    return np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)


def to_square(points: Tensor, middle: Tensor, side: Tensor, turn: Tensor) -> Tensor:
    """Return points [K, 5, 2] of the image in sides of their squares, from the middle."""
    x, y = ((points - middle[:, None]) / side[:, None, None]).unbind(2)
    cos, sin = turn.cos()[:, None], turn.sin()[:, None]
    return torch.stack([x * cos + y * sin, y * cos - x * sin], 2)


def from_square(points: Tensor, middle: Tensor, side: Tensor, turn: Tensor) -> Tensor:
    """Undo `to_square`."""
    x, y = points.unbind(2)
    cos, sin = turn.cos()[:, None], turn.sin()[:, None]
    return torch.stack([x * cos - y * sin, x * sin + y * cos], 2) * side[:, None, None] + middle[:, None]


def turns(points: Tensor) -> Tensor:
    """Return how far faces with points [K, 5, 2] are turned clockwise, in radians [K], by eyes and mouth."""
    along = points[:, 1] - points[:, 0]
    down = points[:, 3:].mean(1) - points[:, :2].mean(1)
    return torch.atan2(along[:, 1] - down[:, 0], along[:, 0] + down[:, 1])


Square = tuple[Tensor, Tensor, Tensor]
"""Where squares lie: middles [K, 2] and sides [K] in px, and how far they are turned clockwise [K], in radians."""


def boxed(boxes: Tensor) -> Square:
    """Return the level squares around faces with boxes [K, 4]."""
    side = BOXED * (boxes[:, 2:] - boxes[:, :2]).amax(1)
    return (boxes[:, :2] + boxes[:, 2:]) / 2, side, torch.zeros_like(side)


def framed(points: Tensor) -> Square:
    """Return the squares in which faces with points [K, 5, 2] stand upright, of 1 px or more."""
    middle = points.mean(1)
    side = FRAMED * (points - middle[:, None]).square().sum(2).mean(1).sqrt()
    return middle, side.clamp(min=1.0), turns(points)


@torch.no_grad()
def look(net: nn.Module, cut: Callable[[Tensor, Tensor, Tensor], Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points [K, 5, 2] of faces with `boxes` [K, 4], and the logits [K] that they are faces.

    `cut` gives the squares [K, 3, SIDE, SIDE] of middles, sides and turns: first the boxes', then those that are turned
    upright by what the net has found in them, where that leaves it in doubt, those turned on by quarters, and in the
    end VIEWS: points are means over all three.
    """
    where = boxed(boxes)
    points = from_square(net(cut(*where)).float()[:, ROUGH].unflatten(1, (5, 2)), *where)
    middle, side, turn = framed(points)
    placed, logits = both_ways(net, cut(middle, side, turn))
    points = from_square(placed, middle, side, turn)
    doubt = (logits < DOUBT).nonzero()[:, 0]
    for quarters in (2, 1, 3) if len(doubt) else ():
        where = middle[doubt], side[doubt], turn[doubt] + quarters * torch.pi / 2
        placed, seen = both_ways(net, cut(*where))
        better = seen > logits[doubt]
        points[doubt[better]] = from_square(placed, *where)[better]
        logits[doubt[better]] = seen[better]
    middle, side, turn = framed(points)
    sides = torch.cat([larger * side for larger, _ in VIEWS])
    where = middle.repeat(len(VIEWS), 1), sides, torch.cat([turn + angle for _, angle in VIEWS])
    straight, other = cut(*where).chunk(2)
    found = net(torch.cat([straight, other.flip(3)])).float()[:, FINE].unflatten(1, (5, 2))
    straight, other = found.chunk(2)
    more = from_square(torch.cat([straight, unmirrored(other)]), *where)
    return torch.cat([points, more]).unflatten(0, (1 + len(VIEWS), -1)).mean(0), logits


def both_ways(net: nn.Module, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Return the fine points [K, 5, 2] and logits [K] of squares: means of what they and their mirror images give."""
    found = net(torch.cat([shown, shown.flip(3)])).float()
    straight, mirrored = found[:, FINE].unflatten(1, (5, 2)).chunk(2)
    return (straight + unmirrored(mirrored)) / 2, found[:, SEEN].unflatten(0, (2, -1)).mean(0)


def unmirrored(points: Tensor) -> Tensor:
    """Return points [K, 5, 2] of mirrored squares, in their sides from the middle, as they lie in the squares."""
    return points[:, MIRRORED] * points.new_tensor([-1.0, 1.0])
