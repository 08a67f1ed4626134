"""Convolution on the processor with fewer products: by Winograd's algorithm and by FFT, as NNPACK has them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

NARROW = 16  # channels; with fewer the transforms cost more than they save


class QuickConvolution(TorchFunctionMode):
    """While it is entered, large float32 convolutions of stride 1 take 1/2 to 1/4 of their time on one thread.

    Results differ from torch's by about 1e-5 of their size (Lavin and Gray 2016: 3 x 3 by Winograd; 7 x 7 by FFT).
    Others, and those of a torch without NNPACK, stay as they are. Without gradients; contiguous tensors are best.
    """

    def __init__(self) -> None:
        super().__init__()
        ready = torch.backends.nnpack.is_available()  # type: ignore[no-untyped-call]  # asking makes it so
        self.here = ready and hasattr(torch, "_nnpack_spatial_convolution")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and self.here and not kwargs and takes(*args):
            image, weight, bias, _, padding = args[:5]
            try:
                return torch._nnpack_spatial_convolution(image, weight, bias, padding)
            except RuntimeError:  # no room for what it works in
                return func(*args)
        return func(*args, **(kwargs or {}))


def takes(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether a convolution, given as `torch.conv2d` takes it, is one that becomes quicker."""
    channels, kernel = tuple(weight.shape[:2]), tuple(weight.shape[2:])
    return (
        groups == 1
        and kernel in ((3, 3), (7, 7))
        and (max if kernel == (7, 7) else min)(channels) >= NARROW
        and stride in (1, (1, 1))
        and dilation in (1, (1, 1))
        and isinstance(padding, (int, tuple))
        and image.dim() == 4
        and len(image) == 1
        and image.device.type == "cpu"
        and image.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and (image.requires_grad or weight.requires_grad))
    )
