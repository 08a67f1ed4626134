"""Convolutions with spectral normalisation (Miyato et al. 2018), without copies of their weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SETTLED = 15  # power iterations before the first pass, as torch's spectral_norm


class Sigma(torch.autograd.Function):
    """A weight and its u W v as a matrix; the gradients of both are accumulated in one pass over the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(u, v)
        return weight.detach(), torch.dot(u, torch.mv(matrix(weight), v))

    @staticmethod
    def backward(ctx: Any, of_weight: Tensor, of_sigma: Tensor) -> tuple[Tensor, None, None]:
        u, v = ctx.saved_tensors
        total = torch.addr(matrix(of_weight), u * of_sigma, v)
        return total.view(len(u), *of_weight.shape[2:], -1).permute(0, 3, 1, 2), None, None


def matrix(weight: Tensor) -> Tensor:
    """Return the weight of a convolution as a matrix [out, k k in]; in channels-last without a copy."""
    return weight.permute(0, 2, 3, 1).flatten(1)


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight, a matrix [out, in k k], is divided by its largest singular value, sigma.

    Each pass in training mode takes one power iteration to it (Miyato et al. 2018, algorithm 1). The output is
    divided instead of the weight, and a weight in channels-last needs no copy to be a matrix: for large layers and
    small images torch's parametrization takes twice the time, for its copies.
    """

    u: Tensor  # [out], the left singular vector
    v: Tensor  # [k k in], the right one

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        for name, length in (("u", self.weight.shape[0]), ("v", self.weight[0].numel())):
            self.register_buffer(name, self.weight.detach().new_zeros(length))
        self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Find the singular vectors of new weights, from random ones."""
        if self.weight.is_meta:
            return
        for vector in (self.u, self.v):
            vector.copy_(F.normalize(torch.randn_like(vector), dim=0))
        for _ in range(SETTLED):
            self.iterate()

    @torch.no_grad()
    def iterate(self) -> tuple[Tensor, Tensor]:
        """Take one power iteration; return copies of the vectors, since the next one overwrites the buffers."""
        flat = self.matrix()
        u = F.normalize(torch.mv(flat, self.v), dim=0, eps=1e-12)
        v = F.normalize(torch.mv(flat.T, u), dim=0, eps=1e-12)
        self.u.copy_(u)
        self.v.copy_(v)
        return u, v

    def matrix(self) -> Tensor:
        """Return the weight as a matrix [out, k k in]."""
        return matrix(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            u, v = self.iterate() if self.training else (self.u.clone(), self.v.clone())
            weight, sigma = Sigma.apply(self.weight, u, v)  # type: ignore[no-untyped-call]
        out = self._conv_forward(x, weight, None)
        out = out / sigma.to(out.dtype)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)
