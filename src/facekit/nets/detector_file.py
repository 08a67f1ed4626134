"""Reads the nets of a face detector from the file that `train-detector` writes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import MissingError
from .detector import Conv, FaceDetector, Step
from .face_points import FacePoints


def load_detector(file: Path) -> tuple[nn.Module, nn.Module]:
    """Return the nets that a run has saved, for finding faces and placing landmarks; batch norm is folded in.

    Raises MissingError where the file is missing, cut short, or holds other nets.
    """
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
        net = FaceDetector(len(tensors["net.lateral.0.weight"]))
        points = FacePoints(len(tensors["points.trunk.0.0.weight"]))
        nn.ModuleDict({"net": net, "points": points}).load_state_dict(tensors)
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(f"{file} holds no face detector: {reason}", "`facekit train-detector` writes one") from error
    return folded(net).requires_grad_(False), folded(points).requires_grad_(False)


def folded(net: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that computes the same without batch norm."""
    net = copy.deepcopy(net).eval()
    for module in list(net.modules()):
        if isinstance(module, Conv):
            module[0] = fuse_conv_bn_eval(cast(nn.Conv2d, module[0]), cast(nn.BatchNorm2d, module[1]))
            module[1] = nn.Identity()
        elif isinstance(module, Step):
            module.conv = fuse_conv_bn_eval(module.conv, cast(nn.BatchNorm2d, module.norm))
            module.norm = nn.Identity()
    return net.to(memory_format=torch.channels_last)
