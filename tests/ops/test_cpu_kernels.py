"""`run.cpu_kernels` switches all of facekit's own code on the processor, and changes no result."""

import pytest
import torch
from torch import Tensor, nn

from facekit.nets.blocks import ILN, InstanceNorm2d
from facekit.ops import cpu_conv, cpu_norm, winograd
from facekit.ops.cpu_kernels import CpuKernels
from facekit.recipe_api.base import Phase, Progress, term
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

import toy  # isort: skip


class Head(nn.Linear):
    """A linear layer of each pixel's channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Net(nn.Sequential):
    """One layer for each kernel: Winograd, one matrix product, a large linear layer, both normalisations."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 64, 3, padding=1), InstanceNorm2d(64, affine=True), nn.Conv2d(64, 128, 3, padding=1), ILN(128),
            nn.Conv2d(128, 64, 4, stride=4), Head(64, 48, bias=False), nn.PixelShuffle(4),
        )  # fmt: skip


class Scene(toy.ToyScene):
    """Has one loss."""

    noise = judge = adversarial = identity = None

    @term("G", 1)
    def far(self) -> Tensor:
        """Distance to the other domain."""
        return (self.nets.net(self.a) - self.b).square().mean()


class Method(toy.Toy):
    """Trains a net that takes every kernel."""

    Scene, phases, exports = Scene, (Phase("G", ("net",)),), ("net",)

    def nets(self):
        return {"net": Net()}


@pytest.fixture
def used(monkeypatch):
    """The names of the kernels that were called; thresholds are lowered so that small tensors take them."""
    names = set()
    for owner, name, value in (
        (winograd, "TILES", 1),
        (cpu_conv, "MANY_WEIGHTS", 3000),
        (cpu_norm, "PIECE", 1000),
        (cpu_norm, "FEW", 1),
    ):
        monkeypatch.setattr(owner, name, value)
    monkeypatch.setattr(winograd, "wide", lambda: False)
    places = (winograd, "conv2d"), (cpu_conv, "by_matrix_product"), (cpu_norm, "in_pieces")
    for owner, name in (*places, (cpu_conv.HeavyLinear, "apply")):
        real = getattr(owner, name)

        def noted(*given, real=real, name=name, **how):
            names.add(name)
            return real(*given, **how)

        monkeypatch.setattr(owner, name, noted)
    return names


@pytest.mark.parametrize("recompute", [False, True])
def test_the_switch_changes_who_computes_and_not_the_result(used, recompute):
    torch.manual_seed(0)
    batch = {name: torch.rand(2, 3, 32, 32) for name in "ab"}
    found = []
    for on in (True, False):
        used.clear()
        run = {"steps": 1, "cpu_kernels": on, "recompute": recompute}
        values = card.TrainCard.model_validate({"recipe": "toy", "data": {"size": 32}, "run": run})
        state = build_state(Method({}, 32), weighted_terms(Method, {}), values, torch.device("cpu"))
        losses = train_step(state, [batch], Progress(0, 1))
        moments = state.optims["G"].state  # after one step the first is the gradient, but for a factor
        gradients = {name: moments[p]["exp_avg"] for name, p in state.nets.named_parameters()}
        found.append((losses["far"], gradients))
        assert used == ({"conv2d", "by_matrix_product", "in_pieces", "apply"} if on else set())
    (loss, gradients), (plain_loss, plain_gradients) = found
    assert loss.item() == pytest.approx(plain_loss.item(), rel=1e-5) and gradients.keys() == plain_gradients.keys()
    largest = max(gradient.abs().max() for gradient in plain_gradients.values())
    for name, gradient in gradients.items():
        assert (gradient - plain_gradients[name]).abs().max() < 1e-5 * largest, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("piece", "places", "large"), [(287, 36, True), (288, 36, False), (287, 37, False)])
def test_torch_normalises_instances_but_where_it_is_slow(monkeypatch, dtype, layout, piece, places, large):
    monkeypatch.setattr(cpu_norm, "PIECE", piece)
    monkeypatch.setattr(cpu_norm, "PLACES", places)
    x = torch.rand(2, 4, 6, 6, dtype=dtype).to(memory_format=layout).requires_grad_()
    with CpuKernels():
        y = InstanceNorm2d(4, affine=True)(x)
    assert ("InstanceNorm" in type(y.grad_fn).__name__) == (large and layout is torch.channels_last)
    assert y.is_contiguous(memory_format=layout)
