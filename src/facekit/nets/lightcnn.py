"""LightCNN: face features by max-feature-map (Wu, He, Sun, Tan, "A light CNN for deep face representation", 2018)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

GREY = (0.299, 0.587, 0.114)  # of red, green and blue: Pillow's mode L


def mfm(x: Tensor) -> Tensor:
    """Max-feature-map: the larger of the two halves of the channels, place by place; [N, 2C, ...] to [N, C, ...]."""
    first, second = x.chunk(2, 1)
    return first + F.relu(second - first)  # the backward of torch.maximum takes longer than the convolutions' forward


def grey(x: Tensor) -> Tensor:
    """Return the brightness in [0, 1] of RGB images [N, 3, H, W] in [-1, 1]: [N, 1, H, W]."""
    red, green, blue = (weight * part for weight, part in zip(GREY, ((x + 1) / 2).split(1, 1), strict=True))
    return red + green + blue


def resized(x: Tensor, size: int) -> Tensor:
    """Return images [N, C, H, W] at `size` px, bilinear, smoothed where they shrink; those of that size as they are."""
    if x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)


class MFMConv(nn.Module):
    """A convolution to twice `out` channels, then the max-feature-map."""

    def __init__(self, channels: int, out: int, kernel: int = 3):
        super().__init__()
        self.filter = nn.Conv2d(channels, 2 * out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return mfm(self.filter(x))


class MFMLinear(nn.Module):
    """A linear layer to twice `out` numbers, then the max-feature-map."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.filter = nn.Linear(channels, 2 * out)

    def forward(self, x: Tensor) -> Tensor:
        return mfm(self.filter(x))


class Group(nn.Module):
    """A 1 x 1 MFM convolution, then a 3 x 3 one to `out` channels."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.conv_a = MFMConv(channels, channels, 1)
        self.conv = MFMConv(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv_a(x))


class MFMResidual(nn.Module):
    """x + two 3 x 3 MFM convolutions of it."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = MFMConv(channels, channels)
        self.conv2 = MFMConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


class SumPool(nn.Module):
    """Maximum and mean of each 2 x 2 px, added up: the pooling of LightCNN-29v2."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) + F.avg_pool2d(x, 2)


class FaceNet(nn.Module):
    """What the three LightCNNs share: images [N, 3, H, W] in [-1, 1] RGB to embeddings [N, 256].

    Images are made grey in [0, 1] and brought to 128 px, differentiably. The nets saw faces with the middle between
    the eyes at (64, 40) of 128 px and the mouth 48 px below it. There is neither dropout nor classifier here: both
    are for training LightCNN only. Parameters are named as in the authors' PyTorch code.
    """

    size = 128

    def trunk(self, x: Tensor) -> Tensor:
        """Return features [N, 128, 8, 8] of grey images [N, 1, 128, 128] in [0, 1]."""
        raise NotImplementedError

    def head(self, x: Tensor) -> Tensor:
        """Return embeddings [N, 256] of flat features [N, 8192]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(grey(resized(x, self.size))).flatten(1))


class LightCNN9(FaceNet):
    """LightCNN-9: 5,480,864 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            MFMConv(1, 48, 5),  # 48, 128
            nn.MaxPool2d(2),  # 48, 64
            Group(48, 96),
            nn.MaxPool2d(2),  # 96, 32
            Group(96, 192),
            nn.MaxPool2d(2),  # 192, 16
            Group(192, 128),
            Group(128, 128),
            nn.MaxPool2d(2),  # 128, 8
        )
        self.fc1 = MFMLinear(8 * 8 * 128, 256)

    def trunk(self, x: Tensor) -> Tensor:
        return self.features(x)

    def head(self, x: Tensor) -> Tensor:
        return self.fc1(x)


class LightCNN29(FaceNet):
    """LightCNN-29: 12,573,280 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = self.make_pool()
        self.conv1 = MFMConv(1, 48, 5)
        self.block1 = nn.Sequential(*(MFMResidual(48) for _ in range(1)))
        self.group1 = Group(48, 96)
        self.block2 = nn.Sequential(*(MFMResidual(96) for _ in range(2)))
        self.group2 = Group(96, 192)
        self.block3 = nn.Sequential(*(MFMResidual(192) for _ in range(3)))
        self.group3 = Group(192, 128)
        self.block4 = nn.Sequential(*(MFMResidual(128) for _ in range(4)))
        self.group4 = Group(128, 128)
        self.fc = self.make_head()

    def make_pool(self) -> nn.Module:
        """Make the pooling that halves the edges; it has no parameters."""
        return nn.MaxPool2d(2)

    def make_head(self) -> nn.Module:
        """Make the last layer."""
        return MFMLinear(8 * 8 * 128, 256)

    def trunk(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x))  # 48, 64
        x = self.pool(self.group1(self.block1(x)))  # 96, 32
        x = self.pool(self.group2(self.block2(x)))  # 192, 16
        x = self.group3(self.block3(x))  # 128, 16
        return self.pool(self.group4(self.block4(x)))  # 128, 8

    def head(self, x: Tensor) -> Tensor:
        return self.fc(x)


class LightCNN29v2(LightCNN29):
    """LightCNN-29v2: max and mean pooling added up, a plain last layer; 10,475,872 parameters."""

    def make_pool(self) -> nn.Module:
        return SumPool()

    def make_head(self) -> nn.Module:
        return nn.Linear(8 * 8 * 128, 256)


LIGHTCNN: dict[str, type[FaceNet]] = {
    "lightcnn-9": LightCNN9,
    "lightcnn-29": LightCNN29,
    "lightcnn-29v2": LightCNN29v2,
}


class Unit(nn.Module):
    """A convolution to twice `out` channels, batch normalisation, the max-feature-map."""

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(2 * out)

    def forward(self, x: Tensor) -> Tensor:
        return mfm(self.norm(self.conv(x)))


class UnitResidual(nn.Module):
    """x + two 3 x 3 units of it."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(Unit(channels, channels), Unit(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SmallLightCNN(nn.Module):
    """A small LightCNN of ours with batch normalisation: images [N, 3, H, W] in [-1, 1] RGB to embeddings [N, out].

    Images are brought to 96 px. `width` is the number of channels at 24 px; 48 makes about 1.6 M parameters.
    """

    size = 96

    def __init__(self, width: int = 48, out: int = 128):
        super().__init__()
        self.trunk = nn.Sequential(
            Unit(3, width // 2, 5, 2),  # width / 2, 48
            Unit(width // 2, width, 3, 2),  # width, 24
            UnitResidual(width),
            Unit(width, 2 * width, 3, 2),  # 2 width, 12
            UnitResidual(2 * width),
            UnitResidual(2 * width),
            Unit(2 * width, 7 * width // 3, 3, 2),  # 7/3 width, 6
            UnitResidual(7 * width // 3),
            Unit(7 * width // 3, 5 * width, 1),  # 5 width, 6
        )
        self.place = nn.Conv2d(5 * width, 5 * width, 6, groups=5 * width, bias=False)  # 5 width, 1
        self.norm = nn.BatchNorm2d(5 * width)
        self.fc = nn.Linear(5 * width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.place(self.trunk(resized(x, self.size)))).flatten(1))
