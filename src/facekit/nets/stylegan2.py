"""The generator and discriminator of StyleGAN2.

Karras, Laine, Aittala, Hellsten, Lehtinen and Aila 2020, "Analyzing and Improving the Image Quality of StyleGAN";
"config F": a generator with RGB skips, a residual discriminator. Without CUDA extensions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.losses import wide
from ..ops.resample import blur, upsample

GAIN = math.sqrt(2)  # keeps the variance after a leaky ReLU


def channels_at(size: int, multiplier: float, most: int) -> int:
    """Return how many channels feature maps of `size` px have: 16384 x multiplier / size, at most `most`."""
    return max(1, min(most, int(16384 * multiplier / size)))


def activate(x: Tensor, bias: Tensor) -> Tensor:
    """Add a bias per channel and apply a leaky ReLU of slope 0.2 that keeps the variance; x is [N, C, ...]."""
    return F.leaky_relu(x + bias.view(1, -1, *[1] * (x.ndim - 2)).to(x.dtype), 0.2) * GAIN


class EqualLinear(nn.Module):
    """A linear layer whose weights are scaled when they are used, so that all learn at the same rate.

    Karras et al. 2018, "Progressive Growing of GANs", section 4.1. `lr_mul` makes the layer learn slower.
    """

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, lr_mul: float = 1.0, activation: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale, self.lr_mul, self.activation = lr_mul / math.sqrt(inputs), lr_mul, activation

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x * self.scale, self.weight)  # the weights would be the larger product
        return activate(x, self.bias * self.lr_mul) if self.activation else x + (self.bias * self.lr_mul).to(x.dtype)


class EqualConv2d(nn.Module):
    """A convolution without bias whose weights are scaled when they are used; see `EqualLinear`."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale, self.stride, self.padding = 1 / math.sqrt(inputs * kernel**2), stride, padding

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() < self.weight.numel():
            return F.conv2d(x * self.scale, self.weight, stride=self.stride, padding=self.padding)
        return F.conv2d(x, self.weight * self.scale, stride=self.stride, padding=self.padding)


class ModulatedConv2d(nn.Module):
    """A convolution whose weights are scaled per image by a style (sections 2.2 and appendix B).

    The style scales the input channels and the norm of the scaled weights divides the output channels. Both commute
    with the convolution, so one convolution serves the whole batch: no weights per image are computed.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, style: int, demodulate: bool = True, up: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.affine = EqualLinear(style, inputs, bias=1.0)
        self.scale, self.demodulate, self.up = 1 / math.sqrt(inputs * kernel**2), demodulate, up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style, weight = self.affine(w) * self.scale, self.weight  # style is [N, I]
        x = x * style[:, :, None, None].to(x.dtype)
        if self.up:
            x = blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), pad=1, gain=4.0)
        else:
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        if self.demodulate:
            with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):  # sums of many squares
                energy = wide(style).square() @ wide(weight).square().sum((2, 3)).t()
                norm = torch.rsqrt(energy + 1e-8)  # [N, O]
            x = x * norm[:, :, None, None].to(x.dtype)
        return x


class StyledLayer(nn.Module):
    """A modulated convolution, noise, bias and activation."""

    def __init__(self, inputs: int, outputs: int, style: int, up: bool = False):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, style, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.conv(x, w)
        if noise is None:
            noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        return activate(x + self.noise_strength.to(x.dtype) * noise.to(x.dtype), self.bias)


class ToRGB(nn.Module):
    """Turn feature maps into an image that is added to the image of the resolution before."""

    def __init__(self, inputs: int, style: int):
        super().__init__()
        self.conv = ModulatedConv2d(inputs, 3, 1, style, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x, w) + self.bias.view(1, 3, 1, 1).to(x.dtype)


class Mapping(nn.Module):
    """Map latents z [N, D] to intermediate latents w [N, D]: normalised, then layers that learn at a hundredth."""

    def __init__(self, width: int, layers: int = 8):
        super().__init__()
        self.layers = nn.Sequential(*(EqualLinear(width, width, lr_mul=0.01, activation=True) for _ in range(layers)))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8))


class Generator(nn.Module):
    """Latents to images of `size` px (a power of 2), [N, 3, size, size], about [-1, 1].

    A styled layer at 4 px, then two per resolution; `latents` styles in all, the last one for the last `to_rgb` alone.
    `noises` are fixed noise maps, for pictures that must not change from call to call.
    """

    def __init__(self, size: int, width: int = 512, layers: int = 8, multiplier: float = 2.0, most_channels: int = 512):
        super().__init__()
        self.size, self.width = size, width
        self.resolutions = [2**i for i in range(2, int(math.log2(size)) + 1)]
        counts = [channels_at(edge, multiplier, most_channels) for edge in self.resolutions]
        self.latents = 2 * len(counts)
        self.mapping = Mapping(width, layers)
        self.const = nn.Parameter(torch.randn(1, counts[0], 4, 4))
        self.layers = nn.ModuleList([StyledLayer(counts[0], counts[0], width)])
        self.to_rgb = nn.ModuleList([ToRGB(counts[0], width)])
        for before, count in itertools.pairwise(counts):
            self.layers += [StyledLayer(before, count, width, up=True), StyledLayer(count, count, width)]
            self.to_rgb.append(ToRGB(count, width))
        edges = [self.resolutions[0], *(edge for edge in self.resolutions[1:] for _ in range(2))]
        for number, edge in enumerate(edges):
            self.register_buffer(f"noise_{number}", torch.randn(1, 1, edge, edge))
        self.frozen: tuple[str, ...] = ()  # prefixes of parameters that never train

    @property
    def noises(self) -> list[Tensor]:
        """The fixed noise maps, one per styled layer: [1, 1, H, W]."""
        return [self.get_buffer(f"noise_{number}") for number in range(len(self.layers))]

    def requires_grad_(self, requires_grad: bool = True) -> Generator:
        """As `nn.Module.requires_grad_`, except for what `frozen` names."""
        super().requires_grad_(requires_grad)
        for name, parameter in self.named_parameters():
            if name.startswith(self.frozen) and self.frozen:
                parameter.requires_grad_(False)
        return self

    def styles(self, w: Tensor) -> Tensor:
        """Return w [N, D], or [N, L, D] as it is, as one style per layer: [N, L, D]."""
        return w[:, None].expand(-1, self.latents, -1) if w.ndim == 2 else w

    def rgb(self, w: Tensor, noise: Sequence[Tensor | None] | None = None, until: int | None = None) -> list[Tensor]:
        """Return the image after each resolution, from 4 px on, for styles w [N, L, D].

        `noise` holds a map per layer, or None for a fresh one; without `noise` all are fresh. `until` ends the list at
        that many resolutions.
        """
        maps = list(noise) if noise is not None else [None] * len(self.layers)
        x = self.layers[0](self.const.expand(len(w), -1, -1, -1), w[:, 0], maps[0])
        images = [self.to_rgb[0](x, w[:, 1])]
        for level in range(1, len(self.resolutions)):
            if until is not None and len(images) == until:
                break
            first = 2 * level - 1
            x = self.layers[first](x, w[:, first], maps[first])
            x = self.layers[first + 1](x, w[:, first + 1], maps[first + 1])
            images.append(upsample(images[-1]) + self.to_rgb[level](x, w[:, first + 2]))
        return images

    def synthesis(self, w: Tensor, noise: Sequence[Tensor | None] | None = None) -> Tensor:
        """Return the images for styles w [N, D] or [N, L, D]; see `rgb`."""
        return self.rgb(self.styles(w), noise)[-1]

    def forward(self, z: Tensor) -> Tensor:
        """Return images for latents z [N, D], with fresh noise."""
        return self.synthesis(self.mapping(z))

    @torch.no_grad()
    def mean_w(self, count: int = 4096) -> Tensor:
        """Return the mean intermediate latent [1, D] of `count` random latents, always the same ones."""
        source = self.const
        z = torch.randn(count, self.width, generator=torch.Generator().manual_seed(0))
        return self.mapping(z.to(source.device, source.dtype)).mean(0, keepdim=True)


class DownBlock(nn.Module):
    """Two convolutions and a skip, at half the resolution: [N, I, H, W] -> [N, O, H/2, W/2]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = EqualConv2d(inputs, inputs, 3, padding=1)
        self.first_bias = nn.Parameter(torch.zeros(inputs))
        self.second = EqualConv2d(inputs, outputs, 3, stride=2)
        self.second_bias = nn.Parameter(torch.zeros(outputs))
        self.skip = EqualConv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = activate(self.first(x), self.first_bias)
        y = activate(self.second(blur(y, pad=2)), self.second_bias)
        return (y + self.skip(blur(x, pad=1, down=2))) / GAIN


class Discriminator(nn.Module):
    """Images [N, 3, size, size] to one logit each, [N, 1]; sees how much the images of a group differ."""

    GROUP = 4  # images whose deviation is one more channel

    def __init__(self, size: int, multiplier: float = 2.0, most_channels: int = 512):
        super().__init__()
        edges = [2**i for i in range(int(math.log2(size)), 1, -1)]
        counts = [channels_at(edge, multiplier, most_channels) for edge in edges]
        self.from_rgb = EqualConv2d(3, counts[0], 1)
        self.rgb_bias = nn.Parameter(torch.zeros(counts[0]))
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in itertools.pairwise(counts))
        self.last = EqualConv2d(counts[-1] + 1, counts[-1], 3, padding=1)
        self.last_bias = nn.Parameter(torch.zeros(counts[-1]))
        self.hidden = EqualLinear(counts[-1] * 16, counts[-1], activation=True)
        self.out = EqualLinear(counts[-1], 1)
        self.frozen_blocks = 0  # high-resolution blocks that never train (Mo et al. 2020, FreezeD)

    def requires_grad_(self, requires_grad: bool = True) -> Discriminator:
        """As `nn.Module.requires_grad_`, except for the first `frozen_blocks` blocks and what precedes them."""
        super().requires_grad_(requires_grad)
        if self.frozen_blocks:
            self.from_rgb.requires_grad_(False)
            self.rgb_bias.requires_grad_(False)
            for block in self.blocks[: self.frozen_blocks]:
                block.requires_grad_(False)
        return self

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps after `from_rgb` and after each block, the largest first."""
        maps = [activate(self.from_rgb(x), self.rgb_bias)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)[-1]
        x = activate(self.last(torch.cat([x, self.deviation(x)], 1)), self.last_bias)
        return self.out(self.hidden(x.flatten(1)))

    def deviation(self, x: Tensor) -> Tensor:
        """Return the mean deviation within each image's group as a channel: [N, 1, H, W].

        Image i is in the group of images i, i + N/G, ...; groups have `GROUP` images, or the largest number below that
        divides N. Karras et al. 2018, section 3.
        """
        count = len(x)
        group = next(size for size in range(min(self.GROUP, count), 0, -1) if count % size == 0)
        spread = wide(x).view(group, count // group, *x.shape[1:]).var(0, correction=0).add(1e-8).sqrt()
        return spread.mean((1, 2, 3)).to(x.dtype).view(-1, 1, 1, 1).repeat(group, 1, *x.shape[2:])
