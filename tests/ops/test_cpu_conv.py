"""Convolution with fewer products gives the values, gradients and second gradients of torch."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from facekit.ops import cpu_conv, cpu_kernels, winograd

SHAPES = [  # images, channels, results, height, width, kernel, padding
    (2, 3, 5, 16, 16, 3, (1, 1)),
    (3, 4, 2, 17, 10, 3, (0, 0)),
    (1, 2, 3, 6, 6, 3, (2, 0)),
    (2, 3, 4, 15, 16, 4, (1, 1)),
    (1, 5, 3, 4, 21, 4, (0, 2)),
]


def by_winograd(*given):
    return winograd.conv2d(winograd.Conv2dCall(*given))


def by_product(*given):
    return cpu_conv.by_matrix_product(winograd.Conv2dCall(*given))


def inputs_of(shape, dtype=torch.float64, layout=torch.channels_last):
    torch.manual_seed(0)
    count, channels, results, height, width, kernel, padding = shape
    x = torch.randn(count, channels, height, width, dtype=dtype).to(memory_format=layout).requires_grad_()
    weight = torch.randn(results, channels, kernel, kernel, dtype=dtype).to(memory_format=layout).requires_grad_()
    return x, weight, torch.randn(results, dtype=dtype, requires_grad=True), padding


def results(y, inputs):
    torch.manual_seed(1)
    return y, *torch.autograd.grad(y, inputs, torch.randn(y.shape, dtype=y.dtype), retain_graph=True)


def same(found, expected, within=1e-11):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and (one - other).abs().max() <= within * other.abs().max()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("piece", [256, 3])
def test_winograd_is_convolution_forward_and_backward(shape, piece, layout, monkeypatch):
    monkeypatch.setattr(winograd, "PIECE", piece)
    x, weight, bias, padding = inputs_of(shape, layout=layout)
    inputs = x, weight, bias
    expected = results(F.conv2d(*inputs, padding=padding), inputs)
    same(results(by_winograd(*inputs, 1, padding), inputs), expected)
    for wanted in (0,), (1,), (2,), (1, 2):  # only the gradients that are needed
        chosen = [inputs[i] if i in wanted else inputs[i].detach() for i in range(3)]
        leaves = [inputs[i] for i in wanted]
        same(results(by_winograd(*chosen, 1, padding), leaves), [expected[0], *(expected[1 + i] for i in wanted)])
    same([by_winograd(x, weight, None, (1, 1), padding)], [F.conv2d(x, weight, padding=padding)])


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("shape", "stride"), [(SHAPES[0], 1), (SHAPES[3], 2), (SHAPES[4], (2, 1))])
def test_one_matrix_product_is_convolution_forward_and_backward(shape, stride, layout):
    x, weight, bias, padding = inputs_of(shape, layout=layout)
    expected = F.conv2d(x, weight, bias, stride, padding)
    found = by_product(x, weight, bias, stride, padding)
    assert found.stride() == expected.stride()
    same(results(found, (x, weight, bias)), results(expected, (x, weight, bias)))


@pytest.mark.parametrize("how", [by_winograd, by_product])
def test_second_derivatives_are_those_of_convolution(how):
    x, weight, bias, padding = inputs_of(SHAPES[0])

    def penalty(conv):
        (gradient,) = torch.autograd.grad(conv(x, weight, bias, 1, padding).square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), (x, weight, bias))

    same(penalty(how), penalty(F.conv2d))


@pytest.mark.parametrize("kernel", [3, 4])
def test_winograd_rounds_to_about_a_millionth(kernel):
    x, weight, bias, padding = inputs_of((2, 64, 64, 33, 33, kernel, (1, 1)), torch.float32)
    inputs = x, weight, bias
    wide = [leaf.detach().double().requires_grad_() for leaf in inputs]
    expected = results(F.conv2d(*wide, padding=padding), wide)
    found = by_winograd(*inputs, 1, padding)
    torch.manual_seed(1)
    gradient = torch.randn(found.shape, dtype=torch.float64).float()
    for one, other in zip((found, *torch.autograd.grad(found, inputs, gradient)), expected, strict=True):
        assert (one - other).norm() < 3e-6 * other.norm()


@pytest.mark.parametrize(
    ("channels", "results", "kernel", "narrow", "wide"),
    [(64, 128, 3, True, False), (256, 256, 3, True, True), (256, 512, 4, True, False), (32, 512, 3, False, False)],
)
def test_with_avx512_only_wide_convolutions_take_winograd(monkeypatch, channels, results, kernel, narrow, wide):
    call = winograd.Conv2dCall(torch.empty(1, channels, 66, 66), torch.empty(results, channels, kernel, kernel))
    for has, expected in ((False, narrow), (True, wide)):
        monkeypatch.setattr(winograd, "wide", lambda has=has: has)
        assert winograd.is_faster(call) is expected


def test_scratch_memory_of_inference_mode_works_in_training():
    x, weight, bias, _ = inputs_of((1, 4, 4, 20, 20, 3, (1, 1)))
    winograd.scratch.kept.clear()
    with torch.inference_mode():
        expected = by_winograd(x, weight, bias, 1, 1)
    found = by_winograd(x, weight, bias, 1, 1)
    found.sum().backward()
    assert torch.equal(found, expected)


def test_threads_do_not_share_scratch_memory():
    x, weight, bias, _ = inputs_of((2, 16, 16, 40, 40, 3, (1, 1)))
    expected = by_winograd(x, weight, bias, 1, 1)
    wrong = []

    def work():
        wrong.extend(not torch.equal(by_winograd(x, weight, bias, 1, 1), expected) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 60 and not any(wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"bias": False},
        {"kernel": 4},
        {"kernel": 5},
        {"kernel": (3, 4)},
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "reflect"},
        {"channels": 32},
        {"size": 16},
        {"dtype": torch.float64},
        {"channels": 512, "results": 512, "size": 8},
        {"channels": 512, "results": 512, "size": 4, "kernel": 4, "stride": 2, "padding": 1},
    ],
    ids=str,
)
def test_every_convolution_gives_the_result_and_the_gradients_of_torch(change):
    torch.manual_seed(0)
    change = dict(change)
    size, channels, results = change.pop("size", 34), change.pop("channels", 128), change.pop("results", 128)
    dtype = change.pop("dtype", torch.float32)
    conv = nn.Conv2d(channels, results, change.pop("kernel", 3), **change).to(dtype)
    x = torch.randn(1, channels, size, size, dtype=dtype, requires_grad=True)

    def computed():
        y = conv(x)
        return y, *torch.autograd.grad(y.square().sum(), [x, *conv.parameters()])

    expected = computed()
    with cpu_kernels.CpuKernels():
        found = computed()
    same(found, expected, within=1e-5)


def test_under_autocast_convolution_stays_in_16_bits():
    conv, x = nn.Conv2d(128, 128, 3), torch.randn(1, 128, 34, 34)
    with torch.autocast("cpu", torch.bfloat16):
        expected = conv(x)
        with cpu_kernels.CpuKernels():
            found = conv(x)
    assert found.dtype == torch.bfloat16 and torch.equal(found, expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_large_linear_layer_gives_the_results_and_gradients_of_torch(bias, precision, monkeypatch):
    monkeypatch.setattr(cpu_conv, "MANY_WEIGHTS", 12)
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 5, bias=bias), torch.randn(2, 3, 4, requires_grad=True)

    def computed():
        with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
            y = layer(x)
            y = layer(y.sin() @ layer.weight)  # the weight is used three times: its gradients are added up
        return y, *torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])

    expected = computed()
    with cpu_kernels.CpuKernels():
        found = computed()
    same(found, expected, within=1e-5)


def test_second_derivatives_of_a_large_linear_layer_are_right(monkeypatch):
    monkeypatch.setattr(cpu_conv, "MANY_WEIGHTS", 12)
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    with cpu_kernels.CpuKernels():
        assert torch.autograd.gradcheck(F.linear, (x, weight))
        assert torch.autograd.gradgradcheck(F.linear, (x, weight))
