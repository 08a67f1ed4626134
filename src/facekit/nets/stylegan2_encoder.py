"""An encoder from faces to the styles of a StyleGAN2 generator."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from .stylegan2 import DownBlock, EqualConv2d, EqualLinear, activate, channels_at


class Encoder(nn.Module):
    """Images [N, 3, size, size] to one style [N, D] for all layers, and what each layer differs from it, [N, L, D].

    The trunk is that of the discriminator. Tov, Alaluf, Nitzan, Patashnik and Cohen-Or 2021, "Designing an Encoder for
    StyleGAN Image Manipulation", section 4. Styles are counted from `mean`, the mean latent.
    """

    mean: Tensor

    def __init__(self, size: int, style: int, latents: int, multiplier: float = 2.0, most_channels: int = 512):
        super().__init__()
        edges = [2**i for i in range(int(math.log2(size)), 1, -1)]
        counts = [channels_at(edge, multiplier, most_channels) for edge in edges]
        self.latents, self.style = latents, style
        self.from_rgb = EqualConv2d(3, counts[0], 1)
        self.rgb_bias = nn.Parameter(torch.zeros(counts[0]))
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in itertools.pairwise(counts))
        self.hidden = EqualLinear(counts[-1] * 16, 2 * style, activation=True)
        self.base = EqualLinear(2 * style, style)
        self.layers = EqualLinear(2 * style, latents * style)
        nn.init.zeros_(self.layers.weight)  # begins in W
        self.register_buffer("mean", torch.zeros(style))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the common style [N, D] and each layer's difference from it, [N, L, D]."""
        x = activate(self.from_rgb(x), self.rgb_bias)
        for block in self.blocks:
            x = block(x)
        x = self.hidden(x.flatten(1))
        return self.mean + self.base(x), self.layers(x).unflatten(1, (self.latents, self.style))

    def forward(self, x: Tensor) -> Tensor:
        """Return the styles of images, [N, L, D]."""
        base, apart = self.parts(x)
        return base[:, None] + apart
