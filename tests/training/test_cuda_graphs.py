"""A recorded step may be repeated: shown on the processor, with a tape of torch's calls in place of a CUDA graph.

The tape holds the tensors that the calls took and made, as a CUDA graph holds their places; it is played on the same
ones. What Python alone does between the calls, it misses, as a CUDA graph does.
"""

import contextlib
import copy

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import toy
from facekit.errors import FacekitError
from facekit.nets.spectral_norm import SpectralConv2d
from facekit.recipe_api import registry
from facekit.recipe_api.base import Progress, term
from facekit.runtime import console, distributed
from facekit.storage import card
from facekit.training import cuda_graphs
from facekit.training.loop import make_learner, train_step, weighted_terms
from support import small
from test_device import CUDA, Refusing, fakes  # noqa: F401

pytestmark = pytest.mark.usefixtures("random_helpers")

CPU = torch.device("cpu")
STEPS = 6


class Tape(TorchDispatchMode):
    """The calls of torch that were made while it was entered, with what they took and made."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("the host reads a number")
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func.namespace != "profiler":
            self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def play(self):
        """Make the calls again; what they return takes the place of what they returned when they were recorded."""
        for func, args, kwargs, out in self.calls:
            for kept, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(kept, Tensor) and kept is not new:
                    kept.copy_(new)


class Recorder:
    """In place of `graphs.CudaRecorder`: it does the work while it records it, and then undoes that."""

    def __init__(self, device=CPU):
        self.device, self.learner, self.tapes = device, None, []

    aside = contextlib.nullcontext

    def lasting(self) -> list[Tensor]:
        kept = [*self.learner.nets.parameters(), *self.learner.nets.buffers()]
        for optim in self.learner.optims.values():
            kept += [x for state in optim.state.values() for x in state.values()]
        return kept

    @torch.no_grad()
    def record(self, work):
        drawn, before = torch.get_rng_state(), [(x, x.clone()) for x in self.lasting()]
        tape = Tape()
        with tape, torch.enable_grad():
            made = work()
        for x, old in before:
            x.copy_(old)
        made[1].fill_(torch.nan)
        torch.set_rng_state(drawn)
        self.tapes.append(tape)
        return made, tape.play


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setattr(cuda_graphs, "recorder_for", lambda device: made)
    monkeypatch.setattr(cuda_graphs, "WARM", 1)
    return made


@pytest.fixture
def notes(monkeypatch):
    said = []
    monkeypatch.setattr(console, "note", said.append)
    return said


def learner_of(name, recorder, recorded=True, on=True, kind=None, run=None, **params):
    """A learner whose steps are recorded, with a recorder; or are to be, but never are; or are taken without it."""
    values = card.merge(small(name).model_dump(), {"data": {"batch": 1}}) if kind is None else {"recipe": name}
    values = card.merge(kind.defaults if kind else {}, values)
    values = card.merge(values, {"params": params, "run": {"graphs": on, "ema": 0.9, **(run or {})}})
    made = card.TrainCard.model_validate(values)
    kind = kind or registry.find(name)[0]
    learner = make_learner(kind(made.params, made.data.size), weighted_terms(kind, {}), made, CPU)
    if recorded:
        recorder.learner = learner
    elif on:
        learner.graphs = None  # rates stay tensors, as they are where steps are recorded
    return learner


def batches(learner, step):
    """Batches that differ from step to step."""
    data, generator = learner.card.data, torch.Generator().manual_seed(step)

    def filled(x):
        if x.is_floating_point():
            return torch.rand(x.shape, generator=generator) * 2 - 1
        return torch.randint(0, 2, x.shape, generator=generator)

    return [
        {name: filled(x) for name, x in learner.recipe.blank(data.batch, data.size).items()}
        for _ in range(learner.card.run.accumulate)
    ]


def trained(learner, steps=STEPS):
    """Take steps; return the losses of each, what lasts at the end, and the rates."""
    losses, rates = [], []
    for step in range(steps):
        learner.step = step
        found = train_step(learner, batches(learner, step), Progress(step, steps))
        losses.append({name: value.item() for name, value in found.items()})
        rates.append([float(optim.param_groups[0]["lr"]) for optim in learner.optims.values()])
    return losses, {**learner.nets.state_dict(), **learner.ema.state_dict(prefix="ema.")}, rates


def same(found, expected, **tolerance):
    """Whether losses, weights and rates are the same: to the bit, or within a tolerance."""
    if not tolerance:
        assert found[0] == expected[0] and all(torch.equal(x, expected[1][name]) for name, x in found[1].items())
    for one, other in zip(found[0], expected[0], strict=True):
        assert one == pytest.approx(other, **tolerance)
    for name, x in found[1].items():
        torch.testing.assert_close(x, expected[1][name], rtol=1e-4, atol=1e-6)
    assert found[2] == [pytest.approx(row) for row in expected[2]]


METHODS = {
    "cyclegan": ({"pool": 3}, {}, 1),
    "ugatit-light": ({}, {}, 1),
    "stargan": ({"critic_steps": 2}, {"precision": "bf16"}, 2),
    "unit": ({}, {}, 1),
    "xgan": ({"schedule": "constant"}, {"recompute": False}, 1),
}


@pytest.mark.parametrize("name", METHODS)
def test_recorded_steps_are_the_steps(name, recorder, notes):
    params, run, kinds = METHODS[name]
    found = trained(learner_of(name, recorder, run=run, **params))
    same(found, trained(learner_of(name, recorder, recorded=False, run=run, **params)))
    assert not notes, notes
    assert len(recorder.tapes) == kinds


def test_rates_that_are_tensors_change_nothing_but_their_rounding(recorder):
    found = trained(toy_of(recorder))
    same(found, trained(toy_of(recorder, recorded=False, on=False)), rel=1e-5, abs=1e-6)
    assert len({*map(tuple, found[2])}) == STEPS and len(recorder.tapes) == 1


class Falling(toy.Toy):
    """A toy whose rate falls at each step and whose weights are clipped after it."""

    def lr_factor(self, clock):
        return 1 / (1 + clock.step)

    def after(self, nets, phase):
        with torch.no_grad():
            nets.ab[0].bias.clamp_(-1e-3, 1e-3)


def toy_of(recorder, kind=Falling, accumulate=1, **options):
    return learner_of("toy", recorder, kind=kind, run={"accumulate": accumulate}, **options)


def test_a_toy_is_recorded_and_then_python_does_nothing(recorder, monkeypatch):
    monkeypatch.setattr(toy.ToyScene, "calls", {})
    expected = trained(toy_of(recorder, recorded=False))
    assert toy.ToyScene.calls.pop("fake") == STEPS
    same(trained(toy_of(recorder)), expected)
    assert toy.ToyScene.calls["fake"] == cuda_graphs.WARM + 1


def test_losses_given_before_stay_when_a_step_is_repeated(recorder):
    learner = toy_of(recorder)
    losses = [train_step(learner, batches(learner, step), Progress(step, STEPS)) for step in range(STEPS)]
    assert len({found["judge"].item() for found in losses}) == STEPS


def test_accumulated_batches_are_recorded_together(recorder):
    learner, plain = (toy_of(recorder, recorded=on, accumulate=2) for on in (True, False))
    same(trained(learner), trained(plain))
    assert len(recorder.tapes) == 1


def test_batches_of_another_size_have_a_record_of_their_own(recorder):
    learner, plain = toy_of(recorder), toy_of(recorder, recorded=False)
    for step in range(8):
        one = [{name: x[: 1 + step % 2] for name, x in batch.items()} for batch in batches(learner, step)]
        found, expected = (train_step(kind, one, Progress(step, 8)) for kind in (learner, plain))
        assert found == expected
    assert len(recorder.tapes) == 2


def test_a_resume_records_anew(recorder):
    learner = toy_of(recorder)
    trained(learner, 4)
    again = toy_of(recorder)
    trained(again, 3)
    again.restore(copy.deepcopy(learner.state()))
    learner.step = again.step = 4
    for step in range(4, STEPS):
        recorder.learner = again
        found, expected = (train_step(kind, batches(kind, step), Progress(step, STEPS)) for kind in (again, learner))
        assert found == expected
    assert len(recorder.tapes) == 3


def changed(fault):
    """A toy method with another judge."""
    scene = type("Changed", (toy.ToyScene,), {"judge": term("D")(lambda self: toy.ToyScene.judge(self) + fault(self))})
    return type("Faulty", (toy.Toy,), {"Scene": scene})


class Rebinding(nn.Module):
    """Puts a new buffer in the place of the old one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return self.mean


class Rebound(changed(lambda scene: scene.nets.last(scene.b))):
    """A toy with a net that holds its state so that a record could not write it."""

    def nets(self):
        return {**super().nets(), "last": Rebinding()}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (changed(lambda scene: scene.progress), "read the scene's progress"),
        (changed(lambda scene: scene.step % 7), "read the scene's step"),
        (changed(lambda scene: torch.initial_seed() % 2), "read the step's seed"),
        (Rebound, "replace tensors of the nets in place of writing to them"),
    ],
)
def test_what_must_change_is_not_recorded_and_that_is_said_once(kind, reason, recorder, notes):
    found = trained(toy_of(recorder, kind))
    same(found, trained(toy_of(recorder, kind, recorded=False)))
    assert not recorder.tapes and len(notes) == 1 and notes[0].endswith(f"are not recorded: they {reason}")


def test_a_step_that_the_host_waits_in_is_an_error_with_a_way_out(recorder):
    with pytest.raises(FacekitError, match="cannot be recorded: the host reads a number") as caught:
        trained(toy_of(recorder, changed(lambda scene: scene.b.mean().item())))
    assert "run.graphs=false" in caught.value.hint


def test_without_a_cuda_device_or_with_more_processes_steps_are_taken_as_ever(notes, monkeypatch):
    learner = learner_of("toy", None, recorded=False, kind=toy.Toy)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    assert learner.graphs is None and cuda_graphs.recorder_for(CUDA) is None
    assert len(notes) == 2 and all("one process on a CUDA device" in note for note in notes)
    assert isinstance(learner.optims["G"].param_groups[0]["lr"], float)


# On a CUDA device random numbers of the host can be told from the device's


REASONS = {
    "projected-cut": "draw random numbers on the host",
    "combogan": "read the step's seed",
    "animegan2": "read the scene's progress",
    "difference-vector": "read the scene's progress",
    "cyclegan-angle": None,
    "facefeat": None,
    "segnet": None,
}


@pytest.mark.parametrize("name", REASONS)
def test_recipes_are_recorded_but_for_a_reason(name, notes, monkeypatch):
    class Taking(Refusing):
        """Takes Adam's step with a rate that is a tensor, for which torch has no fake."""

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._fused_adam_.tensor_lr:
                return None
            return super().__torch_dispatch__(func, types, args, kwargs)

    def host_state():
        with unset_fake_temporarily():
            return real()

    real = cuda_graphs.host_state
    monkeypatch.setattr(cuda_graphs, "host_state", host_state)
    monkeypatch.setattr(cuda_graphs, "recorder_for", lambda device: Recorder(CUDA))
    values = card.TrainCard.model_validate(card.merge(small(name).model_dump(), {"run": {"graphs": True}}))
    method = registry.find(name)[0]
    with FakeTensorMode():
        made = method(values.params, values.data.size)
        learner = make_learner(made, weighted_terms(method, {}), values, CUDA)
        batch = {k: torch.empty_like(x, device="cuda") for k, x in made.blank(2, values.data.size).items()}
        with Taking():
            train_step(learner, [batch], Progress(500, 1000))
    assert [note.rpartition(" they ")[2] for note in notes] == ([REASONS[name]] if REASONS[name] else [])
    rates = [group for optim in learner.optims.values() for group in optim.param_groups]
    assert all(group["lr"].device.type == "cuda" and group["capturable"] for group in rates)


def test_a_pass_under_way_keeps_its_singular_vectors():
    net = SpectralConv2d(3, 4, 3).double()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    expected = []
    for first in (True, False):
        torch.manual_seed(0)
        net.settle()
        net.train(first)
        out = net(x).sin().sum()
        if len(expected) < 2:
            expected += torch.autograd.grad(out, net.weight, retain_graph=True)
        places = net.u.data_ptr(), net.v.data_ptr()
        net.train()(x)
        assert torch.equal(torch.autograd.grad(out, net.weight)[0], expected[-1])
        assert places == (net.u.data_ptr(), net.v.data_ptr())
