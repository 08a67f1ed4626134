"""U-GAT-IT (Kim et al. 2020), as the authors' PyTorch code has it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ILN, AdaLIN, InstanceNorm2d, reflect_residual
from .spectral_norm import SpectralConv2d


class Attended(NamedTuple):
    """What a net with class activation maps returns."""

    out: Tensor  # the image [N, 3, S, S], or the judgement of each patch [N, 1, h, w]
    cam: Tensor  # [N, 2]: the auxiliary classifier's logits, of average and of maximum pooling
    heatmap: Tensor  # [N, 1, h, w]: the attended features summed over channels


class AttentionMap(nn.Module):
    """Class activation attention: a classifier on pooled features, whose weights then weight the feature maps.

    With `spectral` the classifier's logits come from spectrally normalised weights but the maps from the weights as
    they are: so does the authors' discriminator. The one singular value of a single row is its length.
    """

    def __init__(self, channels: int, activation: nn.Module, spectral: bool = False):
        super().__init__()
        self.average = nn.Linear(channels, 1, bias=False)
        self.maximum = nn.Linear(channels, 1, bias=False)
        self.spectral = spectral
        self.merge = nn.Conv2d(2 * channels, channels, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return attended features [N, C, h, w], logits [N, 2] and heatmap [N, 1, h, w] of features x."""
        logits = torch.cat([self.average(x.mean((2, 3))), self.maximum(x.amax((2, 3)))], 1)
        weights = torch.cat([self.average.weight, self.maximum.weight])  # [2, C]
        if self.spectral:
            logits = logits / weights.norm(dim=1).to(logits.dtype)
        maps = [x * weight.view(1, -1, 1, 1).to(x.dtype) for weight in weights]
        x = self.activation(self.merge(torch.cat(maps, 1)))
        return x, logits, x.sum(1, keepdim=True)


class AdaLINBlock(nn.Module):
    """x + [RP1 c3 AdaLIN ReLU RP1 c3 AdaLIN], both with the same gamma and beta."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm1 = AdaLIN(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False)
        self.norm2 = AdaLIN(channels)

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x), gamma, beta))
        return x + self.norm2(self.conv2(y), gamma, beta)


class UGATITGenerator(nn.Module):
    """Image to image, [N, 3, S, S] in [-1, 1]; `width` is 64 in the paper.

    The full net computes gamma and beta from the whole feature map and is tied to `size`; the light one uses its
    mean and takes any multiple of 4.
    """

    def __init__(self, width: int = 64, blocks: int = 4, size: int = 256, light: bool = False):
        super().__init__()
        w, c = width, 4 * width
        self.size, self.light = size, light
        self.encoder = nn.Sequential(
            nn.Conv2d(3, w, 7, padding=3, padding_mode="reflect", bias=False),
            InstanceNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1, padding_mode="reflect", bias=False),  # S/2
            InstanceNorm2d(2 * w),
            nn.ReLU(),
            nn.Conv2d(2 * w, c, 3, stride=2, padding=1, padding_mode="reflect", bias=False),  # S/4
            InstanceNorm2d(c),
            nn.ReLU(),
            *[reflect_residual(c, bias=False) for _ in range(blocks)],
        )
        self.attention = AttentionMap(c, nn.ReLU())
        self.style = nn.Sequential(
            nn.Linear(c if light else c * (size // 4) ** 2, c, bias=False),
            nn.ReLU(),
            nn.Linear(c, c, bias=False),
            nn.ReLU(),
        )
        self.gamma = nn.Linear(c, c, bias=False)
        self.beta = nn.Linear(c, c, bias=False)
        self.decoder = nn.ModuleList([AdaLINBlock(c) for _ in range(blocks)])
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),  # S/2
            nn.Conv2d(c, 2 * w, 3, padding=1, padding_mode="reflect", bias=False),
            ILN(2 * w),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),  # S
            nn.Conv2d(2 * w, w, 3, padding=1, padding_mode="reflect", bias=False),
            ILN(w),
            nn.ReLU(),
            nn.Conv2d(w, 3, 7, padding=3, padding_mode="reflect", bias=False),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Attended:
        if not self.light and x.shape[2:] != (self.size, self.size):
            raise ValueError(f"the full U-GAT-IT net takes {self.size} x {self.size} px only, not {tuple(x.shape[2:])}")
        features, cam, heatmap = self.attention(self.encoder(x))
        style = self.style(features.mean((2, 3)) if self.light else features.flatten(1))
        gamma, beta = self.gamma(style), self.beta(style)
        for block in self.decoder:
            features = block(features, gamma, beta)
        return Attended(self.up(features), cam, heatmap)


class UGATITDiscriminator(nn.Module):
    """Patch judgements with attention, [N, 3, S, S] -> [N, 1, h, w]; `layers` is 5 for the local net, 7 for the global.

    The global net needs images of at least 96 px.
    """

    def __init__(self, width: int = 64, layers: int = 5):
        super().__init__()
        body: list[nn.Module] = []
        channels = 3
        for number in range(layers - 2):
            wider = width * 2**number
            body += [strided(channels, wider, 2), nn.LeakyReLU(0.2)]  # S / 2^(number + 1)
            channels = wider
        body += [strided(channels, 2 * channels, 1), nn.LeakyReLU(0.2)]  # one px less
        self.body = nn.Sequential(*body)
        self.attention = AttentionMap(2 * channels, nn.LeakyReLU(0.2), spectral=True)
        self.out = strided(2 * channels, 1, 1, bias=False)  # one px less

    def forward(self, x: Tensor) -> Attended:
        features, cam, heatmap = self.attention(self.body(x))
        return Attended(self.out(features), cam, heatmap)


def strided(inside: int, outside: int, stride: int, bias: bool = True) -> nn.Module:
    """RP1 and a 4 x 4 convolution with spectral normalisation."""
    return SpectralConv2d(inside, outside, 4, stride, padding=1, padding_mode="reflect", bias=bias)
