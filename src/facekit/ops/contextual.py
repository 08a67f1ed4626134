"""The contextual loss (Mechrez et al. 2018): each feature of one image has a close match in the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import augment
from .losses import wide


def points(*maps: Tensor, most: int = 65 * 65) -> tuple[Tensor, ...]:
    """Return feature maps [N, C, H, W] of one shape as sets of points [N, P, C], P at most `most`.

    If there are more, positions are sampled at random, the same from every map.
    """
    flat = [x.flatten(2).transpose(1, 2) for x in maps]
    count = flat[0].shape[1]
    if count <= most:
        return tuple(flat)
    chosen = augment.order(count, maps[0].device)[:most]
    return tuple(x[:, chosen] for x in flat)


def similarities(x: Tensor, y: Tensor, bandwidth: float = 0.5) -> Tensor:
    """CX_ij [N, P, Q]: similarity of point i of x [N, P, C] to point j of y [N, Q, C], relative to y's other points.

    Both are taken relative to the mean of y over the whole batch (eqs. 1 to 4). exp((1 - d') / h) over its sum is a
    softmax of -d' / h, which does not overflow where a point has an exact match.
    """
    centre = y.mean((0, 1), keepdim=True)
    u, v = (F.normalize(z - centre, dim=2, eps=1e-6) for z in (x, y))  # a vector of 0 has no direction
    distance = ((1 - u @ v.transpose(1, 2)) / 2).clamp(min=0)
    relative = distance / (distance.amin(2, keepdim=True) + 1e-5)
    return torch.softmax(-relative / bandwidth, 2)


def contextual(x: Tensor, y: Tensor, bandwidth: float = 0.5) -> Tensor:
    """-log(mean over j of max over i of CX_ij) of generated x [N, P, C] and target points y [N, Q, C] (eqs. 5, 6).

    Ranges from 0, when every point of y is found at exactly one point of x, to log Q; mean over the images. The points'
    positions and lengths do not matter. Computed in 32 bits even under autocast: the distances are small
    differences of cosines.
    """
    with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
        best = similarities(wide(x), wide(y), bandwidth).amax(1)  # [N, Q]
        return -best.mean(1).log().mean()
