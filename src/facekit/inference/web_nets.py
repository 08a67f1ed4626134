"""The nets around a translation as ONNX files for a page: the detector's two, the segmenter and the upscaler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..faces import neural
from ..nets import face_points
from ..nets.detector_file import load_detector
from ..recipe_api import checkpoint
from . import onnx_export
from .enlarger import SHIPPED


class Parts(nn.Module):
    """A segmenter's probabilities of the parts: images [N, 3, H, W] to [N, classes, H, W]."""

    def __init__(self, model: checkpoint.Model):
        super().__init__()
        self.recipe: Any = model.recipe
        self.nets = model.nets

    def forward(self, image: Tensor) -> Tensor:
        return self.recipe.probabilities(self.nets, image)


class Doubled(nn.Module):
    """An upscaler's picture of twice the size: images [1, 3, H, W] to [1, 3, 2 H, 2 W]."""

    def __init__(self, model: checkpoint.Model):
        super().__init__()
        self.recipe: Any = model.recipe
        self.nets = model.nets

    def forward(self, image: Tensor) -> Tensor:
        return self.recipe.doubled(self.nets, image)


def write_detector(path: Path) -> float:
    """Write the shipped detector, [1, 3, H, W] to a map for each stride; returns the largest difference to PyTorch."""
    net, _ = load_detector(neural.WEIGHTS)
    free = {2: "height", 3: "width"}
    axes = {"image": free} | {name: {2: f"{name}_h", 3: f"{name}_w"} for name in ("fine", "middle", "coarse")}
    onnx_export.write_net(net, path, torch.zeros(1, 3, 64, 96), axes)
    return onnx_export.largest_difference(net, path, [onnx_export.portraits((1, 3, 128, 96))])


def write_points(path: Path) -> float:
    """Write the second look, [N, 3, SIDE, SIDE] to [N, 21]; returns the largest difference to PyTorch."""
    _, points = load_detector(neural.WEIGHTS)
    shape = (1, 3, face_points.SIDE, face_points.SIDE)
    onnx_export.write_net(points, path, torch.zeros(shape), {"image": {0: "faces"}, "points": {0: "faces"}})
    return onnx_export.largest_difference(points, path, [onnx_export.portraits((2, *shape[1:]))])


def write_parts(path: Path, model: checkpoint.Model) -> float:
    """Write a segmenter's probabilities, [1, 3, S, S] at its own size; returns the largest difference to PyTorch."""
    size, net = model.card.data.size, Parts(model).eval()
    onnx_export.write_net(net, path, torch.zeros(1, 3, size, size), {"image": {}, "parts": {}})
    return onnx_export.largest_difference(net, path, [onnx_export.portraits((1, 3, size, size))])


def write_upscaler(path: Path) -> float:
    """Write the shipped upscaler, [1, 3, H, W] to [1, 3, 2 H, 2 W]; returns the largest difference to PyTorch."""
    net, free = Doubled(checkpoint.load_model(SHIPPED)).eval(), {2: "height", 3: "width"}
    axes = {"image": free, "larger": {2: "larger_h", 3: "larger_w"}}
    onnx_export.write_net(net, path, torch.zeros(1, 3, 32, 48), axes)
    return onnx_export.largest_difference(net, path, [onnx_export.portraits((1, 3, 64, 96))])
