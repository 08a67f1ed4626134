"""CartoonGAN's nets (Chen et al., CVPR 2018), as the authors' Torch code has them, and ArtifyGAN's (Bismi et al.)."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor, nn

from .blocks import InstanceNorm2d, Residual, initialise, normal_002


class CartoonGenerator(nn.Module):
    """Image to image, [N, 3, H, W] in [-1, 1], H and W multiples of 4; `width` is 64 in the paper.

    `blocks` is 8 in the paper, the authors' options and the released weights. Every change of size has a second
    convolution, with nothing in between. `padding` is that of the first and last layer and of the residual blocks.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 8,
        affine: bool = True,
        padding: Literal["reflect", "zeros"] = "reflect",
        norm_eps: float = 1e-5,
    ):
        super().__init__()
        w, c = width, 4 * width
        norm = partial(InstanceNorm2d, eps=norm_eps, affine=affine)
        self.layers = nn.Sequential(
            nn.Conv2d(3, w, 7, padding=3, padding_mode=padding),
            norm(w),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),  # S/2
            nn.Conv2d(2 * w, 2 * w, 3, padding=1),
            norm(2 * w),
            nn.ReLU(),
            nn.Conv2d(2 * w, c, 3, stride=2, padding=1),  # S/4
            nn.Conv2d(c, c, 3, padding=1),
            norm(c),
            nn.ReLU(),
            *[
                Residual(
                    nn.Conv2d(c, c, 3, padding=1, padding_mode=padding),
                    norm(c),
                    nn.ReLU(),
                    nn.Conv2d(c, c, 3, padding=1, padding_mode=padding),
                    norm(c),
                )
                for _ in range(blocks)
            ],
            nn.ConvTranspose2d(c, 2 * w, 3, stride=2, padding=1, output_padding=1),  # S/2
            nn.Conv2d(2 * w, 2 * w, 3, padding=1),
            norm(2 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 3, stride=2, padding=1, output_padding=1),  # S
            nn.Conv2d(w, w, 3, padding=1),
            norm(w),
            nn.ReLU(),
            nn.Conv2d(w, 3, 7, padding=3, padding_mode=padding),
            nn.Tanh(),
        )
        initialise(self, normal_002)
        draw_scales(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class CartoonDiscriminator(nn.Module):
    """[N, 3, S, S] -> one judgement of every fourth px, [N, 1, S/4, S/4]; no sigmoid."""

    def __init__(self, width: int = 32, affine: bool = True):
        super().__init__()
        w = width
        norm = partial(InstanceNorm2d, affine=affine)
        self.layers = nn.Sequential(
            nn.Conv2d(3, w, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),  # S/2
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * w, 4 * w, 3, padding=1),
            norm(4 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * w, 4 * w, 3, stride=2, padding=1),  # S/4
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * w, 8 * w, 3, padding=1),
            norm(8 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8 * w, 8 * w, 3, padding=1),
            norm(8 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8 * w, 1, 3, padding=1),
        )
        initialise(self, normal_002)
        draw_scales(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ArtifyGenerator(nn.Module):
    """Image to image, [N, 3, H, W] in [-1, 1], H and W multiples of 4: one convolution where CartoonGAN has two.

    Batch normalisation; the sigmoid's [0, 1] is brought to [-1, 1]. `kernel` is the first layer's. The paper does not
    say how it upsamples: here by transposed convolutions, as in CartoonGAN.
    """

    def __init__(self, width: int = 64, blocks: int = 10, kernel: int = 7):
        super().__init__()
        w, c = width, 4 * width
        self.layers = nn.Sequential(
            nn.Conv2d(3, w, kernel, padding=kernel // 2),
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),  # S/2
            nn.BatchNorm2d(2 * w),
            nn.ReLU(),
            nn.Conv2d(2 * w, c, 3, stride=2, padding=1),  # S/4
            nn.BatchNorm2d(c),
            nn.ReLU(),
            *[
                Residual(
                    nn.Conv2d(c, c, 3, padding=1),
                    nn.BatchNorm2d(c),
                    nn.ReLU(),
                    nn.Conv2d(c, c, 3, padding=1),
                    nn.BatchNorm2d(c),
                )
                for _ in range(blocks)
            ],
            nn.ConvTranspose2d(c, 2 * w, 3, stride=2, padding=1, output_padding=1),  # S/2
            nn.BatchNorm2d(2 * w),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 3, stride=2, padding=1, output_padding=1),  # S
            nn.BatchNorm2d(w),
            nn.ReLU(),
            nn.Conv2d(w, 3, 7, padding=3),
            nn.Sigmoid(),
        )
        initialise(self, normal_002)
        initialise_norms(self)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.layers(x) - 1


class ArtifyDiscriminator(nn.Module):
    """[N, 3, S, S] -> logits [N, 1, S/4, S/4]: CartoonGAN's with batch normalisation after all but the last layer.

    The paper's sigmoid is part of the loss.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        w = width
        self.layers = nn.Sequential(
            nn.Conv2d(3, w, 3, padding=1),
            nn.BatchNorm2d(w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),  # S/2
            nn.BatchNorm2d(2 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * w, 4 * w, 3, padding=1),
            nn.BatchNorm2d(4 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * w, 4 * w, 3, stride=2, padding=1),  # S/4
            nn.BatchNorm2d(4 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * w, 8 * w, 3, padding=1),
            nn.BatchNorm2d(8 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8 * w, 8 * w, 3, padding=1),
            nn.BatchNorm2d(8 * w),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8 * w, 1, 3, padding=1),
        )
        initialise(self, normal_002)
        initialise_norms(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def draw_scales(net: nn.Module) -> None:
    """Draw every instance norm's scale from U(0, 1), its shift stays 0: as the authors' Torch code starts."""
    for module in net.modules():
        if isinstance(module, nn.InstanceNorm2d) and module.affine:
            nn.init.uniform_(module.weight)


def initialise_norms(net: nn.Module) -> None:
    """Draw every batch norm's scale from N(1, 0.02); its shift stays 0."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
