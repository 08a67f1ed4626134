"""Normalisations and residual blocks that several networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.cpu_norm import normalise

EPS = 1e-5


def mixed_norm(x: Tensor, rho: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """gamma (rho IN(x) + (1 - rho) LN(x)) + beta: AdaLIN's function (Kim et al. 2020, eq. 1), variances unbiased.

    x is [N, C, H, W]; the others broadcast to [N, C, 1, 1]. The layer's moments follow from the instances' by the law
    of total variance, and all is one affine map of x: two passes over it instead of eight.
    """
    area = x.shape[2] * x.shape[3]
    count = area * x.shape[1]

    def affine(mean: Tensor, variance: Tensor, rho: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        between, layer_mean = torch.var_mean(mean, 1, correction=0, keepdim=True)  # [N, 1, 1, 1]
        layer_variance = (variance.mean(1, keepdim=True) * ((area - 1) / area) + between) * (count / (count - 1))
        instance = rho * (variance + EPS).rsqrt()
        layer = (1 - rho) * (layer_variance + EPS).rsqrt()
        return gamma * (instance + layer), beta - gamma * (instance * mean + layer * layer_mean)

    return normalise(affine, 1, x, rho, gamma, beta)


class AdaLIN(nn.Module):
    """Adaptive layer-instance normalisation: gamma and beta [N, C] come with the input, rho [1, C, 1, 1] is learnt."""

    def __init__(self, channels: int):
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), 0.9))

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return mixed_norm(x, self.rho, gamma[:, :, None, None], beta[:, :, None, None])


class ILN(nn.Module):
    """Layer-instance normalisation with learnt gamma and beta; it starts as pure layer normalisation."""

    cheap = True  # to recompute in the backward pass

    def __init__(self, channels: int):
        super().__init__()
        self.rho = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return mixed_norm(x, self.rho, self.gamma, self.beta)


@torch.no_grad()
def clip_rho_(net: nn.Module) -> None:
    """Bring every rho of a net back to [0, 1]; nothing else changes (U-GAT-IT does so after each generator step)."""
    for module in net.modules():
        if isinstance(module, (AdaLIN, ILN)):
            module.rho.clamp_(0, 1)


class InstanceNorm2d(nn.InstanceNorm2d):
    """Instance normalisation with right gradients on the processor.

    `F.instance_norm` (torch 2.13 to 2.15) returns a wrong gradient on the processor where the batch is one image and
    the gradient is in channels-last memory. Group normalisation with one channel per group computes the same values.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not x.requires_grad:
            return super().forward(x)
        return F.group_norm(x, self.num_features, self.weight, self.bias, self.eps)


class Residual(nn.Module):
    """x + body(x), with no ReLU after the sum (He et al. 2016, without their last ReLU)."""

    def __init__(self, *body: nn.Module):
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def reflect_residual(channels: int, bias: bool = True, activation: Callable[[], nn.Module] = nn.ReLU) -> Residual:
    """Build CycleGAN's residual block: 3 x 3 convolution, IN, activation, 3 x 3 convolution, IN; reflection padding."""
    return Residual(
        nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias),
        InstanceNorm2d(channels),
        activation(),
        nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=bias),
        InstanceNorm2d(channels),
    )


def initialise(net: nn.Module, weight: Callable[[Tensor], object]) -> nn.Module:
    """Apply `weight` to every convolution's weight and set its bias to 0; returns the net."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            weight(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


def normal_002(weight: Tensor) -> None:
    """Draw from N(0, 0.02)."""
    nn.init.normal_(weight, 0.0, 0.02)
