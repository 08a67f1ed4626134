"""ComboGAN's nets (Anoosheh et al. 2018): the two halves of CycleGAN's generator, and a discriminator of two views."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import InstanceNorm2d, initialise, normal_002, reflect_residual

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class ComboEncoder(nn.Module):
    """Images [N, 3, H, W] in [-1, 1], H and W multiples of 4, to codes [N, 4 width, H/4, W/4]."""

    def __init__(self, width: int = 64, blocks: int = 4):
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            nn.Conv2d(3, w, 7, padding=3, padding_mode="reflect"),
            InstanceNorm2d(w),
            nn.PReLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),  # S/2
            InstanceNorm2d(2 * w),
            nn.PReLU(),
            nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1),  # S/4
            InstanceNorm2d(4 * w),
            nn.PReLU(),
            *[reflect_residual(4 * w, activation=nn.PReLU) for _ in range(blocks)],
        )
        initialise(self, normal_002)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ComboDecoder(nn.Module):
    """Codes [N, 4 width, H/4, W/4] to images [N, 3, H, W] in [-1, 1]."""

    def __init__(self, width: int = 64, blocks: int = 5):
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            *[reflect_residual(4 * w, activation=nn.PReLU) for _ in range(blocks)],
            nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1),  # S/2
            InstanceNorm2d(2 * w),
            nn.PReLU(),
            nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1),  # S
            InstanceNorm2d(w),
            nn.PReLU(),
            nn.Conv2d(w, 3, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        initialise(self, normal_002)

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(code)


class DepthPatch(nn.Module):
    """A PatchGAN that judges at four depths: [N, in_channels, S, S] to [N, 1, s, s], s = S/4+1, S/8+1, S/16+1, S/16+3.

    A depth's judgement is the last channel of its output, and no input of the next one. As in the authors' code it is
    normalised and activated with the others, except at the last depth.
    """

    def __init__(self, in_channels: int, width: int = 64):
        super().__init__()
        w = width
        self.stem = nn.Sequential(nn.Conv2d(in_channels, w, 4, stride=2, padding=2), nn.PReLU())  # S/2 + 1
        self.depths = nn.ModuleList(
            [
                self.down(w, 2 * w + 1),  # S/4 + 1
                self.down(2 * w, 4 * w + 1),  # S/8 + 1
                self.down(4 * w, 8 * w + 1),  # S/16 + 1
                nn.Sequential(
                    nn.Conv2d(8 * w, 8 * w, 4, padding=2),  # S/16 + 2
                    InstanceNorm2d(8 * w),
                    nn.PReLU(),
                    nn.Conv2d(8 * w, 1, 4, padding=2),  # S/16 + 3
                ),
            ]
        )

    @staticmethod
    def down(channels: int, out: int) -> nn.Sequential:
        """Halve the edges."""
        return nn.Sequential(nn.Conv2d(channels, out, 4, stride=2, padding=2), InstanceNorm2d(out), nn.PReLU())

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.stem(x), []
        for depth in self.depths:
            x = depth(x)
            found.append(x[:, -1:])
            x = x[:, :-1]
        return found


class ComboDiscriminator(nn.Module):
    """Judge images [N, 3, S, S] by their luminance, for texture, and by their blurred colours, for tone.

    Returns four depths' judgements [N, 1, 2s, s] (see `DepthPatch`), luminance above colours.
    """

    luma: Tensor
    blur: Tensor

    def __init__(self, width: int = 64):
        super().__init__()
        self.grey, self.colour = DepthPatch(1, width), DepthPatch(3, width)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("blur", blur_kernel(5, 3.0).expand(3, 1, -1, -1).clone(), persistent=False)
        initialise(self, normal_002)

    def forward(self, x: Tensor) -> list[Tensor]:
        grey = F.conv2d(x, self.luma)
        blurred = F.conv2d(x, self.blur, padding=2, groups=3)
        return [torch.cat(pair, 2) for pair in zip(self.grey(grey), self.colour(blurred), strict=True)]


def blur_kernel(size: int, sigma: float) -> Tensor:
    """Return a blur kernel [size, size] of sum 1: a point blurred by a Gaussian of `sigma` px, reflected at the edges.

    The authors' code blurs a point in a `size` x `size` image, with reflected borders and a Gaussian cut off at
    4 sigma. For 5 px and sigma 3 the result is almost a box, far from a Gaussian of sigma 3.
    """
    reach = round(4 * sigma)
    weights = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    places = (torch.arange(-reach, reach + 1) + size // 2) % (2 * size)
    reflected = torch.minimum(places, 2 * size - 1 - places)
    row = torch.zeros(size, dtype=torch.float64).index_add_(0, reflected, weights / weights.sum())
    return (row[:, None] * row).float()
