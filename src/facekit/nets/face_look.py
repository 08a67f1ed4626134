"""How a small face net sees images: feature maps to compare them by, and whose face they show."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.losses import wide
from .lightcnn import SmallLightCNN, resized

SEEN = (0, 2, 5)  # layers of the trunk: 48, 24 and 12 px


class FaceLook(nn.Module):
    """Frozen features of faces [N, 3, H, W] in [-1, 1], by the net of `facefeat`: no other weights are needed.

    A face net sees little of colour and background: compare px as well.
    """

    def __init__(self, net: SmallLightCNN):
        super().__init__()
        self.net = net

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return feature maps of 48, 24 and 12 px."""
        x, found = resized(wide(x), self.net.size), []
        for number, layer in enumerate(self.net.trunk[: SEEN[-1] + 1]):
            x = layer(x)
            if number in SEEN:
                found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings [N, d]."""
        return self.net(wide(x))

    def identity(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the cosine of the embeddings of two batches of faces, [N]: 1 for the same face."""
        return F.cosine_similarity(self(x), self(y))


@torch.no_grad()
def open_look(net: object) -> FaceLook:
    """Return how the net of `facefeat` weights sees; raises TypeError for another net."""
    if not isinstance(net, SmallLightCNN):
        raise TypeError(f"{type(net).__name__} is no SmallLightCNN")
    return FaceLook(net)
