"""AnimeGAN's nets (Chen, Liu, Chen 2020) and AnimeGANv2's, the latter in the layout of the public PyTorch port.

`tensorflow` chooses the details of the authors' TensorFlow code: the epsilons of its norms, and how AnimeGAN halves an
image. Without it they are those of PyTorch: the port of AnimeGANv2 and weights that facekit 0.1 trained expect them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import InstanceNorm2d, Residual, initialise, normal_002
from .spectral_norm import SpectralConv2d

EVEN = (0, 1, 0, 1)  # px of reflection left, right, top, bottom before a 3 x 3 convolution of stride 2
EPS = 1e-5  # PyTorch's, and that of the authors' own instance norm
LAYER_EPS, SEPARABLE_EPS = 1e-12, 1e-6  # TensorFlow's defaults of layer norm and of instance norm


def layer_norm(channels: int, tensorflow: bool) -> nn.GroupNorm:
    """Make a layer norm over (C, H, W) with a scale and a shift per channel."""
    return nn.GroupNorm(1, channels, eps=LAYER_EPS if tensorflow else EPS)


class ConvNorm(nn.Sequential):
    """Reflection padding, convolution, normalisation, LR .2; with `instance` the first AnimeGAN's, else layer norm."""

    def __init__(
        self,
        inside: int,
        outside: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        instance: bool = False,
        tensorflow: bool = True,
    ):
        super().__init__(
            nn.ReflectionPad2d(EVEN if stride == 2 else kernel // 2),
            nn.Conv2d(inside, outside, kernel, stride, groups=groups, bias=bias),
            InstanceNorm2d(outside, affine=True) if instance else layer_norm(outside, tensorflow),
            nn.LeakyReLU(0.2, inplace=True),
        )


class Separable(nn.Sequential):
    """Depthwise and pointwise convolution, then one instance norm and LR .2."""

    def __init__(self, inside: int, outside: int, stride: int = 1, tensorflow: bool = True):
        super().__init__(
            nn.ReflectionPad2d(EVEN if stride == 2 else 1),
            nn.Conv2d(inside, inside, 3, stride, groups=inside, bias=False),
            nn.Conv2d(inside, outside, 1, bias=False),
            InstanceNorm2d(outside, eps=SEPARABLE_EPS if tensorflow else EPS, affine=True),
            nn.LeakyReLU(0.2),
        )


class Inverted(nn.Module):
    """Inverted residual block: twice as wide, depthwise, narrow again without activation; plus x if it fits."""

    def __init__(self, inside: int, outside: int, instance: bool = False, tensorflow: bool = True):
        super().__init__()
        wide = 2 * inside
        self.skip = inside == outside
        self.layers = nn.Sequential(
            ConvNorm(inside, wide, 1, instance=instance, tensorflow=tensorflow),
            ConvNorm(wide, wide, 3, groups=wide, bias=not instance, instance=instance, tensorflow=tensorflow),
            nn.Conv2d(wide, outside, 1, bias=False),
            InstanceNorm2d(outside, affine=True) if instance else layer_norm(outside, tensorflow),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.skip else self.layers(x)


class Halved(nn.Module):
    """The sum of a strided separable convolution and a separable convolution of the halved image.

    TensorFlow 1 halves an image by taking every second pixel: its bilinear resize does not average. Without
    `tensorflow` it is the mean of 2 x 2 px.
    """

    def __init__(self, inside: int, outside: int, tensorflow: bool = True):
        super().__init__()
        self.tensorflow = tensorflow
        self.strided = Separable(inside, outside, 2, tensorflow)
        self.resized = Separable(inside, outside, 1, tensorflow)

    def forward(self, x: Tensor) -> Tensor:
        half = x[..., ::2, ::2] if self.tensorflow else F.avg_pool2d(x, 2)
        return self.strided(x) + self.resized(half)


class AnimeGenerator(nn.Module):
    """The first AnimeGAN's: [N, 3, H, W] in [-1, 1], H and W multiples of 4; `width` is 64 in the paper."""

    def __init__(self, width: int = 64, tensorflow: bool = True):
        super().__init__()
        w, c = width, 4 * width

        def conv(inside: int, outside: int) -> nn.Module:
            return ConvNorm(inside, outside, instance=True)

        def separable(inside: int, outside: int) -> nn.Module:
            return Separable(inside, outside, 1, tensorflow)

        self.layers = nn.Sequential(
            conv(3, w),
            conv(w, w),
            Halved(w, 2 * w, tensorflow),  # S/2
            conv(2 * w, 2 * w),
            separable(2 * w, 2 * w),
            Halved(2 * w, c, tensorflow),  # S/4
            conv(c, c),
            *[Inverted(c, c, instance=True) for _ in range(8)],
            conv(c, c),
            nn.Upsample(scale_factor=2, mode="bilinear"),  # S/2
            separable(c, 2 * w),
            separable(2 * w, 2 * w),
            conv(2 * w, 2 * w),
            nn.Upsample(scale_factor=2, mode="bilinear"),  # S
            separable(2 * w, 2 * w),
            conv(2 * w, w),
            conv(w, w),
            nn.Conv2d(w, 3, 1, bias=False),
            nn.Tanh(),
        )
        initialise(self, nn.init.xavier_uniform_)
        for block in self.modules():
            if isinstance(block, Inverted):
                nn.init.trunc_normal_(block.layers[1][1].weight, std=0.02, a=-0.04, b=0.04)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class AnimeGenerator2(nn.Module):
    """AnimeGANv2's: [N, 3, H, W] in [-1, 1], H and W multiples of 4; `width` is 32 in the authors' code.

    Its parameters are named as in the public PyTorch port, whose weights fit. They were converted for
    `align_corners`; without it the edges of the image differ.
    """

    def __init__(self, width: int = 32, align_corners: bool = True, tensorflow: bool = True):
        super().__init__()
        w, c = width, 4 * width
        self.align_corners = align_corners
        conv = partial(ConvNorm, tensorflow=tensorflow)
        inverted = partial(Inverted, tensorflow=tensorflow)
        self.block_a = nn.Sequential(conv(3, w, 7), conv(w, 2 * w, stride=2), conv(2 * w, 2 * w))  # S/2
        self.block_b = nn.Sequential(conv(2 * w, c, stride=2), conv(c, c))  # S/4
        self.block_c = nn.Sequential(
            conv(c, c), inverted(c, 2 * c), *[inverted(2 * c, 2 * c) for _ in range(3)], conv(2 * c, c)
        )
        self.block_d = nn.Sequential(conv(c, c), conv(c, c))  # S/2
        self.block_e = nn.Sequential(conv(c, 2 * w), conv(2 * w, 2 * w), conv(2 * w, w, 7))  # S
        self.out_layer = nn.Sequential(nn.Conv2d(w, 3, 1, bias=False), nn.Tanh())
        initialise(self, he_normal)

    def forward(self, x: Tensor) -> Tensor:
        half = self.block_a(x)
        y = self.block_c(self.block_b(half))
        y = self.block_d(self.resized(y, half))
        return self.out_layer(self.block_e(self.resized(y, x)))

    def resized(self, x: Tensor, like: Tensor) -> Tensor:
        """Bring x to the size of `like`."""
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=self.align_corners)


def bottleneck(width: int, tensorflow: bool = True) -> Residual:
    """Build x + [1 x 1 to a quarter, 3 x 3, 1 x 1 back]."""
    narrow, conv = width // 4, partial(ConvNorm, tensorflow=tensorflow)
    return Residual(conv(width, narrow, 1), conv(narrow, narrow), nn.Conv2d(narrow, width, 1, bias=False))


class AnimeLite(nn.Module):
    """AnimeGANv2's lite net, with skips by addition: [N, 3, H, W] in [-1, 1], H and W multiples of 8; `width` is 32."""

    def __init__(self, width: int = 32, tensorflow: bool = True):
        super().__init__()
        w, c = width, 4 * width
        conv = partial(ConvNorm, tensorflow=tensorflow)
        self.stem = conv(3, w, 7)
        self.down_half = nn.Sequential(conv(w, w, stride=2), conv(w, 2 * w))  # S/2
        self.down_quarter = nn.Sequential(conv(2 * w, 2 * w, stride=2), conv(2 * w, c))  # S/4
        self.down_eighth = nn.Sequential(conv(c, 2 * w, stride=2), conv(2 * w, c))  # S/8
        self.middle = nn.Sequential(*[bottleneck(c, tensorflow) for _ in range(4)])
        self.twice = nn.Upsample(scale_factor=2, mode="bilinear")
        self.up_quarter, self.at_quarter = conv(c, c), conv(c, 2 * w)
        self.up_half, self.at_half = conv(2 * w, 2 * w), conv(2 * w, w)
        self.up_full, self.at_full = conv(w, w), conv(w, w, 7)
        self.head = nn.Conv2d(w, 3, 1, bias=False)
        initialise(self, he_normal)

    def forward(self, x: Tensor) -> Tensor:
        full = self.stem(x)
        half = self.down_half(full)
        quarter = self.down_quarter(half)
        y = self.middle(self.down_eighth(quarter))
        y = self.at_quarter(self.up_quarter(self.twice(y)) + quarter)
        y = self.at_half(self.up_half(self.twice(y)) + half)
        y = self.at_full(self.up_full(self.twice(y)) + full)
        return self.head(y).tanh()


class AnimeDiscriminator(nn.Module):
    """[N, 3, S, S] -> [N, 1, S/4, S/4], without sigmoid; `instance` is the first AnimeGAN's norm, layer norm v2's."""

    def __init__(self, width: int = 32, instance: bool = False, tensorflow: bool = True):
        super().__init__()
        w = width

        def norm(channels: int) -> nn.Module:
            return InstanceNorm2d(channels, affine=True) if instance else layer_norm(channels, tensorflow)

        self.layers = nn.Sequential(
            normalised(3, w),
            nn.LeakyReLU(0.2),
            normalised(w, 2 * w, 2),  # S/2
            nn.LeakyReLU(0.2),
            normalised(2 * w, 4 * w),
            norm(4 * w),
            nn.LeakyReLU(0.2),
            normalised(4 * w, 4 * w, 2),  # S/4
            nn.LeakyReLU(0.2),
            normalised(4 * w, 8 * w),
            norm(8 * w),
            nn.LeakyReLU(0.2),
            normalised(8 * w, 8 * w),
            norm(8 * w),
            nn.LeakyReLU(0.2),
            normalised(8 * w, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def he_normal(weight: Tensor) -> None:
    """Draw from N(0, 2 / fan-in) as TensorFlow counts it: all input channels, for a depthwise convolution too.

    A depthwise weight is [C, 1, k, k] here and [k, k, C, 1] in TensorFlow, where the fan-in is k k C.
    """
    out, inside, *kernel = weight.shape
    channels = out if inside == 1 else inside
    nn.init.normal_(weight, 0.0, (2 / (channels * kernel[0] * kernel[1])) ** 0.5)


def normalised(inside: int, outside: int, stride: int = 1) -> nn.Module:
    """Zero padding and a 3 x 3 convolution with spectral normalisation; stride 2 pads at the top and left only."""
    conv = SpectralConv2d(inside, outside, 3, stride, bias=False)
    normal_002(conv.weight)
    conv.settle()
    padding = (1, 0, 1, 0) if stride == 2 else (1, 1, 1, 1)
    return nn.Sequential(nn.ZeroPad2d(padding), conv)


@torch.no_grad()
def load_port(net: AnimeGenerator2, found: Mapping[str, Tensor]) -> str | None:
    """Give a generator the weights of the public PyTorch port; returns the first name that is missing or does not fit.

    A `module.` in front of the names, or a dictionary's entry for the generator, is looked through; None: all loaded.
    """
    for key in ("generator", "state_dict", "model", "ab"):
        if isinstance(found.get(key), Mapping):
            found = found[key]  # type: ignore[assignment]
    found = {name.removeprefix("module.").removeprefix("ab."): value for name, value in found.items()}
    for name, value in net.state_dict().items():
        if not isinstance(found.get(name), Tensor) or found[name].shape != value.shape:
            return name
    net.load_state_dict({name: found[name] for name in net.state_dict()})
    return None
