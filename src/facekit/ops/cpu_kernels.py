"""The switch for facekit's own code on the processor: convolution, linear layers, normalisation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import cpu_conv, cpu_norm, winograd
from .winograd import Conv2dCall


class CpuKernels(TorchFunctionMode):
    """Within this context large operations on the processor are faster; outside everything is plain torch.

    It replaces calls of `torch.conv2d` (`cpu_conv.conv2d`), of `F.linear` with many weights (`cpu_conv.HeavyLinear`),
    and, where gradients are wanted, of `cpu_norm.normalise` (`cpu_norm.in_pieces`) and instance normalisation in
    channels-last memory (`cpu_norm.instance_norm`).
    Results differ from torch's by at most about 1e-5 of their size. docs/cpu-kernels.md has the gains.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and not kwargs:
            return cpu_conv.conv2d(Conv2dCall(*args))
        if func is F.linear and not kwargs and cpu_conv.HeavyLinear.suits(*args):
            return cpu_conv.HeavyLinear.apply(*args[:2])  # type: ignore[no-untyped-call]
        if func is cpu_norm.normalise and _learns(args[2]) and args[2].numel() > cpu_norm.FEW:
            return cpu_norm.in_pieces(*args)
        if func is F.group_norm:
            call = GroupNormCall(*args, **kwargs)
            if call.is_slow_instance_norm():
                return cpu_norm.instance_norm(call.input, call.weight, call.bias, call.eps)
        return func(*args, **kwargs)


class InputsOnly(TorchFunctionMode):
    """Within this context, inside that of CpuKernels, results of convolutions by `winograd` are arbitrary numbers.

    What their backward pass needs is right: for layers that are computed again for that alone. torch stops by itself
    before its own convolutions compute (`torch.utils.checkpoint.set_checkpoint_early_stop`).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and not kwargs:
            call = Conv2dCall(*args)
            if cpu_conv.fastest(call) is winograd.conv2d:
                return winograd.conv2d(call, computed=False)
        return func(*args, **(kwargs or {}))


def _learns(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.requires_grad


class GroupNormCall(NamedTuple):
    """The arguments of a call of `F.group_norm`."""

    input: Tensor
    num_groups: int
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5

    def is_slow_instance_norm(self) -> bool:
        """Return whether each channel is a group, of 32 bits or fewer, in channels-last memory."""
        x = self.input
        return (
            x.dim() == 4
            and self.num_groups == x.shape[1]
            and _learns(x)
            and x.dtype in (torch.float32, torch.bfloat16)
            and x.is_contiguous(memory_format=torch.channels_last)
            and not x.is_contiguous()
        )
