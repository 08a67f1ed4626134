"""Nets that name the part of a face that each pixel shows: a small U-Net, and VGG with a light decoder."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VGG_WIDTHS = (64, 128, 256, 512, 512)


def _double(inside: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inside, out):
        layers += [nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) with batch norm, four halvings, `width` to 8 `width` channels.

    [N, 3, H, W] in [-1, 1] to logits [N, classes, H, W]; H and W multiples of 16.
    """

    def __init__(self, classes: int, width: int = 16):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.down = nn.ModuleList(_double(i, o) for i, o in itertools.pairwise([3, *widths]))
        self.up = nn.ModuleList(_double(i + o, o) for i, o in itertools.pairwise(reversed(widths)))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels: list[Tensor] = []
        for index, level in enumerate(self.down):
            x = level(F.max_pool2d(x, 2) if index else x)
            levels.append(x)
        for level in self.up:
            levels.pop()
            x = level(torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), levels[-1]], 1))
        return self.head(x)


class VGGSegmenter(nn.Module):
    """VGG16 or 19 (Simonyan and Zisserman 2015) without its linear layers, and a decoder that sums five levels.

    [N, 3, H, W] in [-1, 1] to logits [N, classes, H, W]; H and W multiples of 16. The trunk is torchvision's, so that
    its published ImageNet weights fit: 14,714,688 parameters for VGG16. Each level passes a 1x1 convolution to
    `width` channels and is added to the level below, twice as large (Lin et al. 2017, feature pyramid).
    """

    def __init__(self, classes: int, kind: str = "vgg16", batch_norm: bool = False, width: int = 64):
        super().__init__()
        import torchvision.models as models

        make = getattr(models, f"{kind}_bn" if batch_norm else kind)
        self.features: nn.Sequential = make(weights=None, init_weights=False).features
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in VGG_WIDTHS)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in VGG_WIDTHS[1:])
        self.head = nn.Conv2d(width, classes, 3, padding=1)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.register_buffer("factor", (0.5 / deviation).view(1, 3, 1, 1))
        self.register_buffer("offset", ((0.5 - mean) / deviation).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.get_buffer("factor") + self.get_buffer("offset")
        levels = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                levels.append(x)
            x = layer(x)
        sums = self.lateral[-1](levels[-1])
        for index in reversed(range(len(levels) - 1)):
            sums = F.interpolate(sums, scale_factor=2, mode="bilinear")
            sums = F.relu(self.smooth[index](sums + self.lateral[index](levels[index])))
        return self.head(sums)
