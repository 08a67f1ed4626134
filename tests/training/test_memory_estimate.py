"""The estimate before the first step, against what autograd really keeps."""

import pytest
import torch

import toy
from facekit.errors import CardError
from facekit.recipe_api.base import Progress
from facekit.recipe_api.registry import find
from facekit.recipes.cyclegan import CycleGAN
from facekit.storage import card
from facekit.training import memory_estimate
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms


def card_of(size, batch=2, **run):
    return card.TrainCard.model_validate({"recipe": "x", "data": {"size": size, "batch": batch}, "run": run})


def test_parameters_are_counted_net_by_net():
    guess = memory_estimate.estimate(toy.Toy({}, 16), toy.Toy.terms(), card_of(16))
    expected = {name: sum(p.numel() for p in net.parameters()) for name, net in toy.Toy({}, 16).nets().items()}
    assert guess.parameters == expected
    assert f"{sum(expected.values()):,} parameters" in str(guess)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "params", "size"), [(toy.Toy, {}, 16), (CycleGAN, {"width": 8, "blocks": 2, "d_width": 8}, 64)]
)
@pytest.mark.parametrize("lean", [True, False])
def test_activations_are_those_that_autograd_keeps(kind, params, size, lean):
    made = card_of(size, recompute=lean)
    guess = memory_estimate.estimate(kind(params, size), kind.terms(), made)
    learner = build_state(kind(params, size), weighted_terms(kind, {}), made, torch.device("cpu"))
    kept = {}

    def keep(x):
        if not isinstance(x, torch.nn.Parameter):
            kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        train_step(learner, [{name: torch.rand(2, 3, size, size) for name in "ab"}], Progress(0, 1))
    both_phases = sum(x.untyped_storage().nbytes() for x in kept.values())
    assert both_phases / 3 < guess.activation_bytes < both_phases * 1.5


@pytest.mark.slow
def test_what_is_recomputed_is_not_counted():
    params = {"width": 8, "blocks": 2, "d_width": 8}

    def activations(**run):
        return memory_estimate.estimate(CycleGAN(params, 64), CycleGAN.terms(), card_of(64, **run)).activation_bytes

    assert activations(recompute=True) < 0.7 * activations(recompute=False)
    assert activations(recompute=True, compile=True) == activations(recompute=False)


def test_a_larger_batch_and_precision_take_more_and_bf16_less():
    def activations(**changes):
        return memory_estimate.estimate(toy.Toy({}, 16), toy.Toy.terms(), card_of(16, **changes)).activation_bytes

    one = activations(batch=1)
    assert activations(batch=4) > 3 * one
    assert activations(batch=1, precision="fp64") == 2 * one
    assert activations(batch=1, precision="bf16") == one // 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cyclegan", "ugatit", "ugatit-light", "projected-cut"])
def test_every_method_can_be_estimated_at_full_size(name):
    kind, preset = find(name)
    size = kind.defaults["data"]["size"]
    guess = memory_estimate.estimate(kind(preset.get("params", {}), size), kind.terms(), card_of(size, 1))
    assert guess.activation_bytes and guess.activation_bytes > 30e6
    assert guess.state_bytes >= 12 * sum(guess.parameters.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "wanted", "found"),
    [(2**40, "auto", False), (2**20, "auto", True), (None, "auto", False), (2**40, True, True), (2**20, False, False)],
)
def test_activations_are_recomputed_where_memory_is_short(room, wanted, found, monkeypatch):
    monkeypatch.setattr(memory_estimate, "available_memory", lambda device: room)
    given = card_of(64, recompute=wanted)
    recipe = CycleGAN({"width": 8, "blocks": 2, "d_width": 8}, 64)
    guess = memory_estimate.estimate(recipe, CycleGAN.terms(), given)
    decided = memory_estimate.decide(given, guess, torch.device("cpu"))
    assert decided.run.recompute is found
    assert decided.model_copy(update={"run": given.run}) == given


def test_other_errors_pass_through():
    guess = memory_estimate.Estimate({}, 0, None)
    with pytest.raises(RuntimeError, match="something else"), memory_estimate.guarded(guess):
        raise RuntimeError("something else")


@pytest.mark.slow
@pytest.mark.parametrize(("key", "value"), [("blocks", 10**7), ("width", 10**12), ("width", 10**30)])
def test_nets_that_no_machine_holds_are_refused_at_once(key, value):
    with pytest.raises(CardError, match="cannot be built"):
        memory_estimate.estimate(CycleGAN({key: value}, 64), CycleGAN.terms(), card_of(64))
