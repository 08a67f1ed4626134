"""Recomputing activations keeps less for the backward pass and changes no bit."""

import copy

import pytest
import torch
from torch import nn

from facekit.nets.blocks import ILN, InstanceNorm2d
from facekit.nets.patchgan import PatchDiscriminator
from facekit.nets.resnet import ResnetGenerator
from facekit.nets.stargan import StarGANDiscriminator
from facekit.nets.ugatit import UGATITGenerator
from facekit.nets.unit import MultiScaleDiscriminator
from facekit.ops import cpu_conv, cpu_norm, winograd
from facekit.ops.cpu_kernels import CpuKernels, InputsOnly
from facekit.ops.losses import gradient_penalty
from facekit.training.activation_checkpointing import recompute


def total(out):
    """A number that depends on everything that a net returns."""
    parts = [out] if isinstance(out, torch.Tensor) else list(out)
    return sum(part.square().mean() for part in parts)


def run(net, x):
    """Return the bytes that a forward pass keeps beside the weights, and the output with all gradients."""
    kept, weights = {}, {id(p.untyped_storage()) for p in net.parameters()}

    def keep(y):
        if id(y.untyped_storage()) not in weights:
            kept[id(y.untyped_storage())] = y
        return y

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda y: y):
        loss = total(net(x))
    size = sum(y.untyped_storage().nbytes() for y in kept.values())
    return size, [loss, *torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "share"),
    [
        (lambda: ResnetGenerator(8, 3), 0.6),
        (lambda: UGATITGenerator(8, 2, 64, light=True), 0.8),
        (lambda: PatchDiscriminator(8), 0.8),
        (lambda: MultiScaleDiscriminator(8), 0.8),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_less_is_kept_and_no_bit_changes(net, share, precision):
    torch.manual_seed(0)
    plain = net().to(memory_format=torch.channels_last)
    lean = copy.deepcopy(plain)
    recompute(lean)
    x = torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        whole, expected = run(plain, x)
        less, found = run(lean, x)
    assert less < share * whole
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert lean.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.slow
def test_a_gradient_penalty_is_the_same():
    torch.manual_seed(0)
    plain = StarGANDiscriminator(2, 32, 4, 3)
    lean = copy.deepcopy(plain)
    recompute(lean)
    x, found = torch.rand(2, 3, 32, 32), []
    for net in plain, lean:
        point = x.clone().requires_grad_()
        loss = gradient_penalty(net(point)[0], point)
        found.append([loss, *torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)])
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.slow
def test_second_derivatives_are_the_same_through_norms():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), InstanceNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 2, 3)).double()
    lean = copy.deepcopy(plain)
    recompute(lean)
    x, found = torch.randn(2, 3, 12, 12, dtype=torch.float64), []
    for net in plain, lean:
        point = x.clone().requires_grad_()
        loss = gradient_penalty(net(point), point)
        found.append([loss, *torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)])
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 64, 3, padding=1)],
        [nn.Conv2d(64, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 8, 4, 4)],
        [nn.Conv2d(64, 16, 1), InstanceNorm2d(16, affine=True), nn.Conv2d(16, 8, 1)],
        [nn.Conv2d(64, 16, 1), ILN(16), nn.Conv2d(16, 8, 1)],
    ],
    ids=["winograd", "matrix product", "instance norm", "layer-instance norm"],
)
def test_layers_are_recomputed_with_the_kernels_of_the_forward_pass(layers, monkeypatch):
    monkeypatch.setattr(winograd, "TILES", 1)
    monkeypatch.setattr(winograd, "wide", lambda: False)
    monkeypatch.setattr(cpu_conv, "MANY_WEIGHTS", 2000)
    monkeypatch.setattr(cpu_norm, "PIECE", 1000)
    plain = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    lean = copy.deepcopy(plain)
    recompute(lean, CpuKernels)
    x = torch.rand(1, 64, 32, 32).to(memory_format=torch.channels_last)
    found = []
    for net in plain, lean:
        with CpuKernels():
            y = net(x)
        found.append([y, *torch.autograd.grad(y.square().mean(), list(net.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_of_a_convolution_by_winograd_only_the_input_is_computed_again(monkeypatch):
    monkeypatch.setattr(winograd, "TILES", 1)
    monkeypatch.setattr(winograd, "wide", lambda: False)
    blocks, computed = winograd.Grid.blocks, []
    monkeypatch.setattr(winograd.Grid, "blocks", lambda *given: computed.append(1) or blocks(*given))
    layers = (nn.Conv2d(64, 128, 3), nn.ReLU(), nn.Conv2d(128, 128, 3), nn.InstanceNorm2d(128), nn.Conv2d(128, 64, 3))
    plain = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    lean, x = copy.deepcopy(plain), torch.rand(1, 64, 24, 24).to(memory_format=torch.channels_last)
    recompute(lean, CpuKernels, InputsOnly)
    found, counts = [], []
    for net in plain, lean:
        image = x.clone().requires_grad_()
        computed.clear()
        with CpuKernels():
            y = net(image)
            (slope,) = torch.autograd.grad(y.square().mean(), image, create_graph=True)
            gradients = torch.autograd.grad(slope.square().mean() + y.mean(), list(net.parameters()))
        found.append([y, slope, *gradients])
        counts.append(len(computed))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert counts[0] == counts[1] >= 3


def test_layers_with_state_or_chance_run_once():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(), nn.Conv2d(4, 4, 3))
    recompute(net)
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    assert net[1].num_batches_tracked == 1


def test_without_gradients_nothing_changes():
    torch.manual_seed(0)
    net, x = ResnetGenerator(4, 1), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = net(x)
        recompute(net)
        assert torch.equal(net(x), expected)


def test_what_is_to_happen_between_layers_happens_in_both_passes():
    net, calls = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3)), []
    recompute(net, between=lambda: calls.append(len(calls)))
    result = net(torch.ones(1, 3, 8, 8, requires_grad=True))
    forward = len(calls)
    assert forward == 3  # the first convolution, the activation with the second, and what follows: nothing
    result.sum().backward()
    assert len(calls) == forward + 1  # the activation with the second convolution, computed again
