"""Nets of expression transfer (Rao et al.): labels control the decoder, a mask says what may change; from StarGAN."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from .blocks import InstanceNorm2d
from .stargan import StarGANGenerator, decoder, encoder


class MappingNetwork(nn.Module):
    """Labels [N, K] to control information [N, features], 0 or more: fully connected layers, a ReLU after each (F).

    He's initialisation, for the default would take the labels' differences away: a factor of 2.4 in every layer.
    """

    def __init__(self, labels: int, features: int = 256, width: int = 512, layers: int = 9):
        super().__init__()
        self.layers = nn.Sequential()
        widths = [labels, *[width] * (layers - 1), features]
        for before, after in itertools.pairwise(widths):
            linear = nn.Linear(before, after)
            nn.init.kaiming_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            self.layers.extend([linear, nn.ReLU()])

    def forward(self, label: Tensor) -> Tensor:
        return self.layers(label)


class AdaIN(nn.Module):
    """(1 + f1) IN(x) + f2, with [f1, f2] a linear layer of the control information (eq. 5); f is near 0 at first."""

    def __init__(self, channels: int, control: int):
        super().__init__()
        self.norm = InstanceNorm2d(channels)
        self.f = nn.Linear(control, 2 * channels)
        nn.init.normal_(self.f.weight, 0.0, 0.02)
        nn.init.zeros_(self.f.bias)

    def forward(self, x: Tensor, control: Tensor) -> Tensor:
        f1, f2 = self.f(control)[:, :, None, None].chunk(2, 1)
        return (1 + f1) * self.norm(x) + f2


class ControlledConv(nn.Module):
    """A convolution, AdaIN and an optional ReLU."""

    def __init__(self, conv: nn.Module, channels: int, control: int, activation: nn.Module):
        super().__init__()
        self.conv, self.norm, self.activation = conv, AdaIN(channels, control), activation

    def forward(self, x: Tensor, control: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x), control))


class ControlledResidual(nn.Module):
    """x + [c3p1 AdaIN ReLU c3p1 AdaIN], zero-padded."""

    def __init__(self, channels: int, control: int):
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.first = ControlledConv(first, channels, control, nn.ReLU())
        self.second = ControlledConv(second, channels, control, nn.Identity())

    def forward(self, x: Tensor, control: Tensor) -> Tensor:
        return x + self.second(self.first(x, control), control)


class ControlledGenerator(nn.Module):
    """Images [N, 3, H, W] and control information [N, N'] to images in [-1, 1]: F and G_trans (section 4.1, fig. 6).

    StarGAN's layers, of whose residual blocks the first half belongs to the encoder, which does not see the label; in
    the decoder every convolution but the last is followed by AdaIN.
    """

    def __init__(self, labels: int, width: int = 64, blocks: int = 6, control: int = 256, mapping: int = 512):
        super().__init__()
        w = width
        self.mapping = MappingNetwork(labels, control, mapping)
        self.encoder = encoder(3, w, blocks // 2)  # S/4
        up = nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1, bias=False)  # S/2
        more = nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1, bias=False)  # S
        self.decoder = nn.ModuleList(
            [
                *(ControlledResidual(4 * w, control) for _ in range(blocks - blocks // 2)),
                ControlledConv(up, 2 * w, control, nn.ReLU()),
                ControlledConv(more, w, control, nn.ReLU()),
            ]
        )
        self.head = nn.Sequential(nn.Conv2d(w, 3, 7, padding=3, bias=False), nn.Tanh())

    def control(self, label: Tensor) -> Tensor:
        """Return the control information of labels [N, K] (eq. 2)."""
        return self.mapping(label)

    def forward(self, x: Tensor, control: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and their mask [N, 1, H, W]: all 1, since the whole image is redrawn (eq. 4)."""
        mask = x.new_ones(1).expand(len(x), 1, *x.shape[2:])
        x = self.encoder(x)
        for layer in self.decoder:
            x = layer(x, control)
        return self.head(x), mask


class AttentionNetwork(nn.Module):
    """Images [N, 3, H, W] to the mask M of what belongs to the expression, [N, 1, H, W] in [0, 1] (eq. 6, fig. 7)."""

    def __init__(self, width: int = 64, blocks: int = 6):
        super().__init__()
        self.layers = nn.Sequential(encoder(3, width, blocks), decoder(1, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MaskedGenerator(nn.Module):
    """A generator that draws where an attention network lets it; elsewhere the image stays (eq. 8)."""

    def __init__(self, painter: StarGANGenerator | ControlledGenerator, attention: AttentionNetwork):
        super().__init__()
        self.painter, self.attention = painter, attention

    def control(self, label: Tensor) -> Tensor:
        """Return what `forward` takes for labels [N, K]."""
        return self.painter.control(label)

    def forward(self, x: Tensor, control: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and their mask [N, 1, H, W]."""
        mask = self.attention(x)
        return blend(mask, self.painter(x, control)[0], x), mask


def blend(mask: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """y* = M y + (1 - M) x (eq. 7)."""
    return mask * y + (1 - mask) * x
