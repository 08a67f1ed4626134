"""StarGAN's nets (Choi et al. 2018), as in the authors' code: one generator for all labels, one discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import InstanceNorm2d, Residual


def zero_residual(channels: int) -> Residual:
    """Build StarGAN's residual block: zero padding, no biases, norms with scale and shift."""
    return Residual(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        InstanceNorm2d(channels, affine=True),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        InstanceNorm2d(channels, affine=True),
    )


def encoder(in_channels: int, width: int, blocks: int) -> nn.Sequential:
    """Build the stem, two halvings and `blocks` residual blocks: [N, in_channels, S, S] to [N, 4 width, S/4, S/4]."""
    w = width
    return nn.Sequential(
        nn.Conv2d(in_channels, w, 7, padding=3, bias=False),  # S
        InstanceNorm2d(w, affine=True),
        nn.ReLU(),
        nn.Conv2d(w, 2 * w, 4, stride=2, padding=1, bias=False),  # S/2
        InstanceNorm2d(2 * w, affine=True),
        nn.ReLU(),
        nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1, bias=False),  # S/4
        InstanceNorm2d(4 * w, affine=True),
        nn.ReLU(),
        *(zero_residual(4 * w) for _ in range(blocks)),
    )


def decoder(out_channels: int, width: int) -> nn.Sequential:
    """Build two doublings and the last convolution: [N, 4 width, S/4, S/4] to [N, out_channels, S, S], unbounded."""
    w = width
    return nn.Sequential(
        nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1, bias=False),  # S/2
        InstanceNorm2d(2 * w, affine=True),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1, bias=False),  # S
        InstanceNorm2d(w, affine=True),
        nn.ReLU(),
        nn.Conv2d(w, out_channels, 7, padding=3, bias=False),
    )


class StarGANGenerator(nn.Module):
    """Images [N, 3, H, W] and their control, label planes, to images in [-1, 1]; H and W are multiples of 4.

    Instance normalisation takes away what is the same everywhere, and reflection padding would leave a plane just so:
    here the zeros around the image let the labels through. Normalises by each image's own statistics, as
    the authors' code does in effect: it keeps running ones, and never uses them.
    """

    def __init__(self, labels: int, width: int = 64, blocks: int = 6):
        super().__init__()
        self.layers = nn.Sequential(encoder(3 + labels, width, blocks), decoder(3, width), nn.Tanh())

    def control(self, label: Tensor) -> Tensor:
        """Return what `forward` takes for labels [N, K]: the labels."""
        return label

    def forward(self, x: Tensor, control: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and their mask [N, 1, H, W]: all 1, since the whole image is redrawn."""
        planes = control[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.layers(torch.cat([x, planes], 1)), torch.ones_like(x[:, :1])


class StarGANDiscriminator(nn.Module):
    """Judge images [N, 3, S, S] by patches, [N, 1, S/2^layers, S/2^layers], and predict their labels: logits [N, K].

    No norms, no sigmoid. The labels are predicted from the whole image, which ties the net to `size`, a multiple of
    2^layers. Contiguous in memory: so are a gradient penalty's gradients, and others take long to add to.
    """

    memory_format = torch.contiguous_format

    def __init__(self, labels: int, size: int = 128, width: int = 64, layers: int = 6):
        super().__init__()
        self.trunk = nn.Sequential()
        channels = 3
        for depth in range(layers):
            out = width * 2**depth
            self.trunk.append(nn.Conv2d(channels, out, 4, stride=2, padding=1))  # S / 2^(depth + 1)
            self.trunk.append(nn.LeakyReLU(0.01))
            channels = out
        self.source = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        self.label = nn.Conv2d(channels, labels, size // 2**layers, bias=False)  # 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x.contiguous())
        return self.source(features), self.label(features).flatten(1)
