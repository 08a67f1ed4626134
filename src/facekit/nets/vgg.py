"""The convolutional trunk of VGG (Simonyan and Zisserman 2015), up to the deepest layer that is used."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # convolutions between poolings
WIDTHS = (64, 128, 256, 512, 512)

Preprocessing = Literal["torchvision", "caffe", "caffe-bgr"]
EXPECTED = "what the VGG weights expect; caffe: 0..255, red first; caffe-bgr: blue first, as Caffe's own files"


def layer_names(kind: str) -> list[str]:
    """Return the names of the trunk's layers in torchvision's order: conv1_1, relu1_1, …, pool5."""
    names = []
    for block, count in enumerate(BLOCKS[kind], 1):
        for conv in range(1, count + 1):
            names += [f"conv{block}_{conv}", f"relu{block}_{conv}"]
        names.append(f"pool{block}")
    return names


def channels(layer: str) -> int:
    """Return the number of channels at a layer, such as relu3_1."""
    return WIDTHS[int(layer[4]) - 1]


def _pool(kept: bool) -> nn.Module:
    """Make a pooling layer, or an identity that keeps its index."""
    return nn.MaxPool2d(2) if kept else nn.Identity()


class VGG(nn.Module):
    """Features of images [N, 3, H, W] in [-1, 1] at named layers; parameters are named as torchvision names them.

    `preprocessing` is what the weights expect: "torchvision" (0..1, less the mean, over the deviation) and "caffe"
    (0..255, less the mean colour) take red, green and blue in this order; "caffe-bgr" is "caffe" with blue first, as
    the authors' Caffe files and their plain conversions have it. A "conv" layer is taken before its ReLU, a "relu"
    layer after it. The poolings named in `without` are left out: what follows keeps its resolution. Raises ValueError
    for a layer or a preprocessing that does not exist.
    """

    def __init__(
        self, kind: str, layers: Sequence[str], preprocessing: str = "torchvision", without: Collection[str] = ()
    ):
        super().__init__()
        if preprocessing not in get_args(Preprocessing):
            raise ValueError(f"preprocessing is one of {', '.join(get_args(Preprocessing))}, not {preprocessing!r}")
        names = layer_names(kind)
        unknown = {*layers, *without} - set(names)
        if unknown:
            raise ValueError(f"{kind} has no layer {', '.join(sorted(unknown))}; it has {', '.join(names)}")
        self.layers = tuple(layers)
        self.names = names[: 1 + max(names.index(layer) for layer in layers)]
        self.features = nn.Sequential()
        inputs = 3
        for name in self.names:
            if name.startswith("conv"):
                self.features.append(nn.Conv2d(inputs, channels(name), 3, padding=1))
                inputs = channels(name)
            else:
                self.features.append(_pool(name not in without) if name.startswith("pool") else nn.ReLU())
        self.bgr = preprocessing == "caffe-bgr"
        if preprocessing.startswith("caffe"):
            scale, mean, deviation = 127.5, (123.68, 116.78, 103.94), (1.0, 1.0, 1.0)
        else:
            scale, mean, deviation = 0.5, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        factor = torch.tensor([scale / d for d in deviation])
        offset = torch.tensor([(scale - m) / d for m, d in zip(mean, deviation, strict=True)])
        self.register_buffer("factor", factor.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", offset.view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = x * self.get_buffer("factor") + self.get_buffer("offset")
        x = x.flip(1) if self.bgr else x
        found = {}
        for name, layer in zip(self.names, self.features, strict=True):
            x = layer(x)
            if name in self.layers:
                found[name] = x
        return found
