"""Differentiable augmentation: the discriminator never sees the same image twice (Zhao et al. 2020, DiffAugment).

All functions take and return [N, C, H, W]; they draw from torch's global generator, one draw per image.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def shift(x: Tensor, share: float = 1 / 8, together: int = 1) -> Tensor:
    """Move each image by up to `share` of its edge; zeros fill the gap.

    The batch consists of `together` equal parts; images at the same position of each part move alike.
    """
    count, _, height, width = x.shape
    reach = max(1, int(height * share)) if share else 0
    padded = F.pad(x, (reach,) * 4)
    moves = torch.randint(0, 2 * reach + 1, (count // together, 2), device="cpu").tolist() * together
    return torch.stack([padded[i, :, top : top + height, left : left + width] for i, (top, left) in enumerate(moves)])


def colour(x: Tensor, strength: float = 1.0, together: int = 1) -> Tensor:
    """Change brightness, saturation and contrast of each image at random."""
    count = len(x) // together

    def draw(reach: float) -> Tensor:
        random = torch.rand(count, 1, 1, 1, device=x.device, dtype=x.dtype)
        return ((random - 0.5) * reach * strength).repeat(together, 1, 1, 1)

    x = x + draw(0.6)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (1 + draw(1.2)) + grey
    level = x.mean((1, 2, 3), keepdim=True)
    return (x - level) * (1 + draw(0.6)) + level


def cutout(x: Tensor, share: float = 0.4, chance: float = 0.5, together: int = 1) -> Tensor:
    """Blank a square of `share` of the edge in about `chance` of the images."""
    count, _, height, width = x.shape
    count //= together
    edge = int(height * share)
    hit = torch.rand(count, 1, device=x.device) < chance

    def covered(length: int) -> Tensor:
        """Return which positions along an edge lie in each image's square, [count, length]."""
        start = torch.randint(-edge // 2, length - edge // 2, (count, 1), device=x.device)
        place = torch.arange(length, device=x.device)
        return hit & (place >= start) & (place < start + edge)

    blank = covered(height)[:, None, :, None] & covered(width)[:, None, None, :]
    return x * ~blank.repeat(together, 1, 1, 1)


def crop(x: Tensor, size: int) -> Tensor:
    """Take a random square of `size` px from each image."""
    count, _, height, width = x.shape
    tops = torch.randint(0, height - size + 1, (count,), device="cpu").tolist()
    lefts = torch.randint(0, width - size + 1, (count,), device="cpu").tolist()
    return torch.stack([x[i, :, t : t + size, s : s + size] for i, (t, s) in enumerate(zip(tops, lefts, strict=True))])


def lighting(x: Tensor, strength: float = 1.0) -> Tensor:
    """Change gamma, exposure, white balance and saturation of photos in [-1, 1]; a tenth of them turn grey."""
    count = len(x)

    def draw(channels: int = 1) -> Tensor:
        return (torch.rand(count, channels, 1, 1, device=x.device, dtype=x.dtype) * 2 - 1) * strength

    light = ((x + 1) / 2).clamp(1e-3, 1)
    light = light.pow(torch.exp(0.5 * draw())) * (1 + 0.15 * draw()) * (1 + 0.1 * draw(3))
    grey = light.mean(1, keepdim=True)
    kept = torch.rand(count, 1, 1, 1, device=x.device) >= 0.1 * strength
    light = (light - grey) * (1 + 0.3 * draw()) * kept + grey
    return light.clamp(0, 1) * 2 - 1


def coarse(x: Tensor, chance: float, least: int = 16) -> Tensor:
    """Show about `chance` of the images as enlarged from fewer pixels, `least` to half of their edge."""
    if not chance:
        return x
    sizes = torch.exp(torch.rand(len(x), device="cpu") * math.log(max(1.0, x.shape[2] / 2 / least))) * least
    hit = torch.rand(len(x), device="cpu") < chance
    shown = list(x.split(1))
    for index in hit.nonzero()[:, 0].tolist():
        small = F.interpolate(shown[index], (int(sizes[index]),) * 2, mode="bilinear", antialias=True)
        shown[index] = F.interpolate(small, x.shape[2:], mode="bicubic").clamp(-1, 1)
    return torch.cat(shown)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Blur each image by a Gaussian of its own, of up to `sigma` px; edges are mirrored."""
    count, channels = x.shape[:2]
    drawn = torch.rand(count, 1, device=x.device, dtype=x.dtype) * sigma
    reach = max(1, round(3 * sigma))
    away = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (away / drawn.clamp(min=1e-3)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]  # [N C, 1, taps]
    padded = F.pad(x, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    rows = F.conv2d(padded, kernel[:, :, None], groups=count * channels)
    return F.conv2d(rows, kernel[..., None], groups=count * channels)[0].unflatten(0, (count, channels))


def affine_grid(x: Tensor, degrees: float = 20.0, scale: float = 0.2, move: float = 0.1) -> Tensor:
    """Return random similarity warps of images x [N, C, S, S]: grids [N, S, S, 2] for `F.grid_sample`.

    Rotated by up to `degrees`, scaled by up to 1 + `scale` either way, moved by up to `move` of the edge.
    """
    draw = torch.rand(4, len(x), device=x.device, dtype=x.dtype) * 2 - 1
    angle, zoom, shift = draw[0] * degrees * torch.pi / 180, (1 + scale) ** draw[1], draw[2:] * 2 * move
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = torch.stack([torch.stack([cos, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)], 1)
    return F.affine_grid(rows, list(x.shape), align_corners=False)


def order(count: int, device: torch.device) -> Tensor:
    """Return 0 to `count` - 1 in random order, drawn on the device."""
    return torch.rand(count, device=device).argsort()
