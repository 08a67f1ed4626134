"""What tests of scores are made of: features files, and nets that see parts and faces in plain pictures."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

CLASSES = ("background", "skin", "hair", "eyes", "nose", "mouth")
FACE = {"skin": (2, 2, 14, 14), "eyes": (3, 4, 7, 6), "nose": (7, 7, 9, 10), "mouth": (5, 11, 11, 13)}


def model(size: int = 16, classes: tuple[str, ...] = CLASSES, **methods) -> SimpleNamespace:
    """A model whose recipe has the given methods."""
    recipe = SimpleNamespace(params=SimpleNamespace(classes=classes), **methods)
    return SimpleNamespace(recipe=recipe, nets=nn.ModuleDict(), card=SimpleNamespace(data=SimpleNamespace(size=size)))


def segnet(**options) -> SimpleNamespace:
    """Labels each pixel by its red level: class times 40."""
    return model(label=lambda nets, x: ((x[:, 0] + 1) * 127.5 / 40).round().long(), **options)


def face(**options) -> SimpleNamespace:
    """Embeds a face as its mean colour, around grey."""
    return model(embed=lambda nets, x: x.mean((2, 3)), **options)


def draw(path: Path, boxes: dict[str, tuple[int, int, int, int]], size: int = 16) -> None:
    """Write an image of labelled boxes (left, top, right, bottom)."""
    pixels = np.zeros((size, size, 3), np.uint8)
    for name, (left, top, right, bottom) in boxes.items():
        pixels[top:bottom, left:right] = CLASSES.index(name) * 40
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_onnx(path, shape=("n", 3, 32, 32), kind=TensorProto.FLOAT, pool=8):
    """Write an ONNX file that averages squares of `pool` px: 48 features of an image of 32 px."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[pool, pool], strides=[pool, pool]),
        helper.make_node("Flatten", ["pooled"], ["feat"]),
    ]
    x = helper.make_tensor_value_info("x", kind, shape)
    feat = helper.make_tensor_value_info("feat", kind, ("n", "d"))
    graph = helper.make_graph(nodes, "toy", [x], [feat])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def write_script(path, *layers):
    """Write a TorchScript file."""
    torch.jit.script(nn.Sequential(*layers)).save(str(path))
    return path


class Clean(nn.Module):
    """Laid out as the file that clean-fid downloads: `layers` makes 2048 features."""

    def __init__(self, layers=None):
        super().__init__()
        torch.manual_seed(0)
        self.layers = layers or nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 2048))

    def forward(self, x):
        return self.layers(x)


def write_clean(path, layers=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.script(Clean(layers)).save(str(path))
    return path
