"""A second, smaller net that places the five landmarks in a square around one face."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .detector import Conv

SIDE = 64  # px, the edge of what the net is shown
ROOM = 1.4  # the square's side, in the larger sides of the face's box


class FacePoints(nn.Module):
    """[N, 3, SIDE, SIDE] in [-1, 1] to five points [N, 5, 2], in sides of the square from its middle, at any roll."""

    def __init__(self, width: int = 24):
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

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.hidden(self.trunk(x).flatten(1)))).unflatten(1, (5, 2))


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
    grid = F.affine_grid(torch.stack(rows, 1), [len(which), 3, 2 * SIDE, 2 * SIDE], align_corners=False)
    return F.avg_pool2d(F.grid_sample(images[which], grid, "bilinear", "border", align_corners=False), 2)


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


@torch.no_grad()
def refine(net: nn.Module, images: Tensor, which: Tensor, boxes: Tensor) -> Tensor:
    """Return the points [K, 5, 2] of faces with `boxes` [K, 4], px of images [N, 3, H, W]: looked for twice.

    The second look is at the square turned upright by what the first one has found.
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = ROOM * (boxes[:, 2:] - boxes[:, :2]).amax(1)
    turn = torch.zeros_like(side)
    for _ in range(2):
        points = from_square(net(squares(images, which, middle, side, turn)), middle, side, turn)
        turn = turns(points)
    return points
