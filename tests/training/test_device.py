"""On a GPU a training step waits for nothing and mixes no devices: shown without one, on fake CUDA tensors.

A fake tensor has a device and a shape but no numbers: torch refuses to read one (`.item()`, a mask as an index), and to
compute with tensors of two devices. `Refusing` refuses the rest of what makes the host wait: copies between the two.
"""

import pytest
import torch
from torch import nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

import toy
from facekit.nets import spectral_norm
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress, term
from facekit.storage import card
from facekit.training.loop import make_learner, train_step, weighted_terms
from support import small

pytestmark = pytest.mark.usefixtures("random_helpers")

CUDA, ENGINE = torch.device("cuda"), torch.device("lazy")
aten = torch.ops.aten


class Refusing(TorchDispatchMode):
    """Refuses copies between host and device that wait, and tensors of the host as indices of the device's.

    Places that are drawn on the host (`augment.shift`, `augment.crop`) are real numbers: they are there to be read.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten.randint.low and kwargs.get("device") == torch.device("cpu"):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if func in (aten._to_copy.default, aten.copy_.default):
            source = args[0] if func is aten._to_copy.default else args[1]
            waits = kind(out) == "cpu" or not (kwargs.get("non_blocking") or args[2:])
            if kind(source) != kind(out) and waits:
                raise Waiting(f"for a copy from {kind(source)} to {kind(out)}")
        indexed = func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
        if indexed and {kind(index) for index in args[1] if index is not None} != {kind(args[0])}:
            raise Waiting("for a copy of an index")
        return out


class Waiting(Exception):
    """The host waits for the device."""


def kind(x: torch.Tensor) -> str:
    """Return the type of device that a tensor is on."""
    return x.device.type


def placed(module: nn.Module, change, recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` without swapping tensors in place, which fake ones do not allow."""
    for child in module.children():
        placed(child, change)
    for name, p in module._parameters.items():
        if p is not None:
            module._parameters[name] = nn.Parameter(change(p.detach()), p.requires_grad)
    for name, buffer in module._buffers.items():
        module._buffers[name] = buffer if buffer is None else change(buffer)
    return module


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    """Fake CUDA tensors that have gradients, nets that can be placed, models of random weights in place of files.

    Torch's autograd asks the driver for the streams of CUDA devices, and there is no driver. So C++ is told that the
    fakes are on ENGINE, a device without streams; what it makes there is on CUDA.
    """

    def load(name):
        values = small(name)
        method, _ = registry.find(values.recipe)
        made = method(values.params, values.data.size)
        return checkpoint.Model(made, nn.ModuleDict(made.nets()).eval(), values, checkpoint.SHIPPED / name)

    def device(args):
        return ENGINE if args[0].device.type == "cuda" else args[0].device

    def normal(device):
        return real(CUDA if device == ENGINE else device)

    real = FakeTensor._normalize_fake_device
    monkeypatch.setitem(fake_tensor._DISPATCH_META_HANDLERS, torch.ops.prim.device.default, device)
    monkeypatch.setattr(FakeTensor, "_normalize_fake_device", staticmethod(normal))
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda self, memo: self, raising=False)
    monkeypatch.setattr(spectral_norm, "SETTLED", 1)
    monkeypatch.setattr(nn.Module, "_apply", placed)
    monkeypatch.setattr(checkpoint, "load_model", load)


def step(method, values: card.TrainCard) -> None:
    """Take a step with every term that there is, half-way through a run, when no warm-up is left."""
    unweighted = {name: 1.0 for name, found in method.terms().items() if not found.weight}
    with FakeTensorMode():
        made = method(values.params, values.data.size)
        learner = make_learner(made, weighted_terms(method, unweighted), values, CUDA)
        blank = made.blank(values.data.batch, values.data.size)
        batch = {name: torch.empty_like(x, device="cuda") for name, x in blank.items()}
        with Refusing():
            found = train_step(learner, [batch], Progress(500, 1000))
    assert set(found) == set(method.terms())
    assert all(kind(value) == "cuda" and not value.shape for value in found.values())
    assert all(kind(x) == "cuda" for x in [*learner.nets.parameters(), *learner.nets.buffers()])


def of_their_own() -> list[str]:
    """Every recipe, but of presets that differ in weights, rates and the sizes of nets only the first.

    A step of the others is the same sequence: `step` takes all terms, `small` sets the sizes.
    """
    found = {}
    for name, entry in registry.catalogue().items():
        params = entry.preset.get("params", {}).items()
        own = {key: value for key, value in params if key != "blocks" and not key.endswith("width") and "lr" not in key}
        found.setdefault((entry.target, str(own)), name)
    return list(found.values())


@pytest.mark.parametrize("name", of_their_own())
def test_a_step_never_waits_for_the_device(name):
    step(registry.find(name)[0], small(name))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (lambda x: x.mean().item(), DataDependentOutputException),
        (lambda x: x[x > 0].mean(), DynamicOutputShapeException),
        (lambda x: x[torch.zeros((), dtype=torch.long, device=x.device)].mean(), DataDependentOutputException),
        (lambda x: x[torch.zeros(1, dtype=torch.long, device="cpu")].mean(), Waiting),
        (lambda x: torch.rand(2, device="cpu").to(x.device).mean(), Waiting),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device).mean(), Waiting),
        (lambda x: x.cpu().mean().item(), Waiting),
        (lambda x: (x * torch.rand(16, device="cpu")).mean(), FakeTensorDeviceMismatchError),
    ],
    ids=["item", "mask", "place", "index", "sent", "constant", "fetched", "mixed"],
)
def test_a_step_that_waits_or_mixes_devices_is_found(fault, error):
    class FaultyScene(toy.ToyScene):
        judge = term("D")(lambda scene: fault(scene.fake) + scene.nets.d(scene.b).mean())

    class Faulty(toy.Toy):
        Scene = FaultyScene

    values = card.TrainCard.model_validate(card.merge(toy.Toy.defaults, {"recipe": "toy"}))
    step(toy.Toy, values)
    with pytest.raises(error):
        step(Faulty, values)
