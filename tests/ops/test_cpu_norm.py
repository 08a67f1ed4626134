"""Normalisation in pieces: values, gradients and second gradients are those of torch's own functions."""

import contextlib

import pytest
import torch
from torch import nn

from facekit.nets.blocks import AdaLIN, InstanceNorm2d
from facekit.ops import cpu_norm
from facekit.ops.cpu_kernels import CpuKernels


def affine(mean, variance, weight):
    scale = weight * (variance + 1e-5).rsqrt()
    return scale, weight - mean * scale


@pytest.fixture(params=[7, 64, 10**9], ids=["rows", "images", "whole"])
def piece(request, monkeypatch):
    monkeypatch.setattr(cpu_norm, "PIECE", request.param)
    monkeypatch.setattr(cpu_norm, "PLACES", 0)
    monkeypatch.setattr(cpu_norm, "FEW", 0)


@pytest.mark.slow
@pytest.mark.parametrize("correction", [0, 1])
def test_gradients_and_second_gradients_are_right(piece, correction):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(1, 2, 1, 1, dtype=torch.float64, requires_grad=True)

    def function(x, weight):
        return cpu_norm.in_pieces(affine, correction, x, weight)

    assert torch.allclose(function(x, weight), cpu_norm.normalise(affine, correction, x, weight), atol=1e-12)
    assert torch.autograd.gradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(function, (x, weight))


@pytest.mark.parametrize("correction", [0, 1])
def test_moments_are_those_of_torch(piece, correction):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64) + 10
    variance, mean = torch.var_mean(x, (2, 3), correction=correction, keepdim=True)
    found = cpu_norm.moments(x, correction)
    assert torch.allclose(found[0], mean) and torch.allclose(found[1], variance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("learnt", [True, False])
def test_instance_norm_is_that_of_torch(piece, layout, learnt):
    torch.manual_seed(0)
    ours, theirs = InstanceNorm2d(4, affine=learnt), nn.InstanceNorm2d(4, affine=learnt)
    if learnt:
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.data = q.data = torch.rand(4) + 0.5
    gradient = torch.randn(2, 4, 6, 6).to(memory_format=layout)
    given, found = torch.randn(2, 4, 6, 6) + 3, []
    for norm in ours, theirs:
        x = given.clone().to(memory_format=layout if norm is ours else torch.contiguous_format).requires_grad_()
        with CpuKernels() if norm is ours else contextlib.nullcontext():
            y = norm(x)
        found.append([y, *torch.autograd.grad(y, [x, *norm.parameters()], gradient)])
    assert found[0][0].is_contiguous(memory_format=layout)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))


def test_sixteen_bits_are_summed_in_thirty_two(piece):
    torch.manual_seed(0)
    x = (torch.randn(2, 3, 8, 8) + 5).bfloat16().requires_grad_()
    gamma, beta = torch.rand(2, 3) + 1, torch.rand(2, 3)
    norm, gradient = AdaLIN(3), torch.randn(2, 3, 8, 8)
    with CpuKernels():
        y = norm(x, gamma, beta)
    wide = x.detach().float().requires_grad_()
    expected = norm(wide, gamma, beta)
    assert y.dtype == torch.bfloat16 and torch.allclose(y.float(), expected, rtol=1e-2, atol=1e-2)
    (of_x,), (of_wide,) = torch.autograd.grad(y, x, gradient.bfloat16()), torch.autograd.grad(expected, wide, gradient)
    assert of_x.dtype == torch.bfloat16 and torch.allclose(of_x.float(), of_wide, rtol=3e-2, atol=3e-2)


@pytest.mark.slow
@pytest.mark.parametrize("learnt", [True, False])
def test_instance_norms_gradients_and_second_gradients_are_right(piece, learnt):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 5, 3, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.rand(2, dtype=torch.float64, requires_grad=True) if learnt else None for _ in range(2))
    given = [part for part in (x, weight, bias) if part is not None]

    def function(x, weight=None, bias=None):
        return cpu_norm.instance_norm(x, weight, bias, 1e-5)

    assert torch.autograd.gradcheck(function, given) and torch.autograd.gradgradcheck(function, given)


@pytest.mark.parametrize("learnt", [None, torch.float32, torch.bfloat16])
def test_instance_norm_of_sixteen_bits_has_the_gradients_of_thirty_two(piece, learnt):
    torch.manual_seed(0)
    given = torch.randn(2, 3, 16, 16) + 3  # far from 0: means in 16 bits would show
    weight, bias = ((torch.rand(3) + 0.5).to(learnt) if learnt else None for _ in range(2))
    gradient, found = torch.randn(2, 3, 16, 16).bfloat16(), []
    for dtype in (torch.bfloat16, torch.float64):
        x = given.bfloat16().to(dtype).to(memory_format=torch.channels_last).requires_grad_()
        parts = [part.to(learnt if dtype is torch.bfloat16 else dtype) for part in (weight, bias) if learnt]
        parts = [part.clone().requires_grad_() for part in parts]
        y = cpu_norm.instance_norm(x, *(parts or (None, None)), 1e-5)
        gradients = torch.autograd.grad(y, [x, *parts], gradient.to(dtype))
        assert y.dtype == dtype and [part.dtype for part in gradients] == [part.dtype for part in (x, *parts)]
        found.append((y, *gradients))
    for ours, exact in zip(*found, strict=True):
        assert torch.allclose(ours.double(), exact, rtol=2e-2, atol=2e-2)
