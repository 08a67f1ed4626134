"""The training loop: phases, shared views, schedules, the weight average, and what stops a run."""

import copy
import math
import shutil

import pytest
import torch
from torch import Tensor, nn

import toy
from facekit.errors import CardError, Diverged, MissingError
from facekit.recipe_api.base import Phase, Progress, term
from facekit.storage import card
from facekit.training.loop import fit, train_step
from facekit.training.state import build_state, make_optimizer, weighted_terms


class Method:
    """A toy method with another scene or other phases."""

    def __new__(cls, scene=toy.ToyScene, phases=toy.Toy.phases):
        return type("Method", (toy.Toy,), {"Scene": scene, "phases": phases})


def learner_of(kind=toy.Toy, losses=None, **values):
    run = {"steps": 8, "precision": "fp64", **values.pop("run", {})}
    made = card.TrainCard.model_validate({"recipe": "toy", "data": {"size": 16, "batch": 2}, "run": run, **values})
    return build_state(kind({}, 16), weighted_terms(kind, losses or {}), made, torch.device("cpu"))


def batch(count=2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(count, 3, 16, 16, generator=generator).mul(2).sub(1).to(dtype) for name in "ab"}


def weights(learner, net=None):
    nets = learner.nets if net is None else learner.nets[net]
    return torch.cat([p.detach().reshape(-1) for p in nets.parameters()])


def steps(learner, count, of=batch):
    found = []
    for _ in range(count):
        found.append(train_step(learner, [of(seed=learner.step)], Progress(learner.step, 8)))
        learner.step += 1
    return found


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    monkeypatch.setattr(toy.ToyScene, "calls", {})
    return toy.ToyScene.calls


def test_each_phase_moves_its_own_nets_only():
    generator_only = learner_of(losses={"judge": 0})
    before = weights(generator_only, "d")
    steps(generator_only, 2)
    assert torch.equal(weights(generator_only, "d"), before)
    judge_only = learner_of(losses={"adversarial": 0, "identity": 0, "noise": 0})
    before = weights(judge_only, "ab")
    steps(judge_only, 2)
    assert torch.equal(weights(judge_only, "ab"), before)
    assert not torch.equal(weights(judge_only, "d"), weights(learner_of(), "d"))


def test_nets_lie_in_memory_as_they_ask():
    class Plain(nn.Conv2d):
        memory_format = torch.contiguous_format

    class Both(toy.Toy):
        def nets(self):
            return {"ab": nn.Conv2d(3, 4, 3), "d": Plain(3, 4, 3)}

    nets = learner_of(Both).nets
    assert nets["ab"].weight.is_contiguous(memory_format=torch.channels_last)
    assert nets["d"].weight.is_contiguous()


def test_gradients_are_freed_after_their_phase():
    learner = learner_of()
    steps(learner, 1)
    assert all(p.grad is None for p in learner.nets.parameters())


def test_a_dropped_term_costs_nothing(calls):
    steps(learner_of(losses={"identity": 0}), 1)
    assert calls == {"fake": 1}
    steps(learner_of(), 1)
    assert calls == {"fake": 2, "same": 1}


def test_a_view_is_computed_once_and_reused_detached(calls):
    steps(learner_of(), 1)
    assert calls["fake"] == 1
    alone = Method(phases=(Phase("G", ("ab",)), Phase("D", ("d",))))
    steps(learner_of(alone), 1)
    assert calls["fake"] == 3


JUDGE_FIRST = Phase("D", ("d",)), Phase("G", ("ab",))
PRECOMPUTED = Phase("D", ("d",)), Phase("G", ("ab",), precompute=("fake",))


def test_a_later_phase_shares_precomputed_views_and_learns_the_same(calls):
    apart, shared = (learner_of(Method(phases=phases), losses={"noise": 0}) for phases in (JUDGE_FIRST, PRECOMPUTED))
    start = weights(apart)
    found = steps(apart, 3)
    assert calls.pop("fake") == 6
    assert steps(shared, 3) == found
    assert calls["fake"] == 3
    assert torch.equal(weights(shared), weights(apart)) and not torch.equal(weights(shared), start)


def test_precomputed_views_are_detached_and_their_phase_learns(calls):
    shared = learner_of(Method(Watching, PRECOMPUTED), losses={"seen": 0})
    before = weights(shared, "ab")
    steps(shared, 1)
    assert shared.recipe.handed_on.grad_fn is None and not torch.equal(weights(shared, "ab"), before)


def test_two_phases_that_precompute_are_refused():
    phases = (Phase("D", ("d",), precompute=("fake",)), Phase("G", ("ab",), precompute=("fake",)))
    with pytest.raises(CardError, match="phases D and G both precompute"):
        learner_of(Method(phases=phases))


def test_accumulated_batches_precompute_nothing(calls):
    learner = learner_of(Method(phases=PRECOMPUTED), run={"accumulate": 2})
    train_step(learner, [batch(), batch(seed=1)], Progress(0, 8))
    assert calls["fake"] == 4


class Watching(toy.ToyScene):
    """Notes what its phases see, and looks through a helper."""

    @term("G")
    def seen(self) -> Tensor:
        """The helper's view of the translation."""
        return self.helpers["eye"](self.fake).mean()

    @term("D")
    def judge(self) -> Tensor:
        """Tell real from translated."""
        self.recipe.handed_on = self.fake
        return super().judge()


def test_reused_views_are_detached_and_helpers_learn_nothing():
    kind = Method(Watching)
    kind.helpers = lambda self, load, terms: {"eye": torch.nn.Conv2d(3, 1, 3)}
    learner = learner_of(kind)
    before = copy.deepcopy(learner.helpers["eye"].weight)
    steps(learner, 2)
    assert learner.recipe.handed_on.grad_fn is None
    eye = learner.helpers["eye"]
    assert eye.weight.grad is None and torch.equal(eye.weight, before) and not eye.training
    assert not torch.equal(weights(learner, "ab"), weights(learner_of(), "ab"))


def test_terms_keep_their_times(calls):
    losses = {"identity": card.Loss(every=2, start=2, stop=6)}
    there = ["identity" in found for found in steps(learner_of(losses=losses), 8)]
    assert there == [False, False, False, True, False, True, False, False]


def test_phases_keep_their_times():
    late = Method(phases=(Phase("G", ("ab",)), Phase("D", ("d",), every=3, start=3)))  # of each 3 steps the last
    there = ["judge" in found for found in steps(learner_of(late), 7)]
    assert there == [False, False, False, False, False, True, False]


def test_a_lazy_term_counts_as_often_as_it_is_left_out():
    lazy, heavy = (
        learner_of(losses={"adversarial": 0, "noise": 0, "judge": 0, "identity": loss})
        for loss in (card.Loss(weight=1, every=3), card.Loss(weight=3))
    )
    for learner in (lazy, heavy):
        train_step(learner, [batch()], Progress(2, 8))
    assert torch.equal(weights(lazy), weights(heavy))


def test_accumulated_batches_equal_one_large_batch():
    quiet = {"noise": 0}
    whole, split = learner_of(losses=quiet), learner_of(losses=quiet)
    for seed in range(3):
        large = batch(4, seed)
        parts = [{name: x[i : i + 2] for name, x in large.items()} for i in (0, 2)]
        train_step(whole, [large], Progress(seed, 8))
        train_step(split, parts, Progress(seed, 8))
    torch.testing.assert_close(weights(whole), weights(split), atol=1e-12, rtol=0)


def test_learning_rates_follow_the_recipe_and_the_phase():
    kind = Method()
    kind.lr_factor = lambda self, clock: 1 / (1 + clock.step)
    optim = {"lr": 0.1, "phases": {"D": {"lr": 0.4, "betas": [0.0, 0.9]}}}
    learner = learner_of(kind, optim=optim)
    steps(learner, 2)
    assert {name: o.param_groups[0]["lr"] for name, o in learner.optims.items()} == {"G": 0.05, "D": 0.2}
    assert learner.optims["D"].param_groups[0]["betas"] == (0.0, 0.9)
    assert learner.optims["G"].param_groups[0]["betas"] == (0.5, 0.999)


def test_weight_decay_is_the_coupled_l2_term():
    nets = torch.nn.ModuleDict({"ab": torch.nn.Linear(1, 1, bias=False)}).double()
    reference = copy.deepcopy(nets["ab"].weight)
    optim = make_optimizer(nets, Phase("G", ("ab",)), card.Optim(lr=0.1, weight_decay=0.3))
    by_hand = torch.optim.Adam([reference], lr=0.1, betas=(0.5, 0.999))
    for gradient in (1.0, -0.2):
        nets["ab"].weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        reference.grad = torch.full((1, 1), gradient, dtype=torch.float64) + 0.3 * reference.detach()
        optim.step()
        by_hand.step()
    torch.testing.assert_close(nets["ab"].weight, reference, atol=1e-12, rtol=0)


def test_the_average_follows_the_weights_and_is_what_is_exported():
    learner = learner_of(run={"ema": 0.9})
    kept = weights(learner, "ab")
    for step in range(3):
        steps(learner, 1)
        decay = min(0.9, (1 + step) / (10 + step))
        kept = decay * kept + (1 - decay) * weights(learner, "ab")
    exported = torch.cat([p.reshape(-1) for p in learner.exports.parameters()])
    torch.testing.assert_close(exported, kept, atol=1e-12, rtol=0)
    assert list(learner.exports) == ["ab"]


def test_random_numbers_are_a_function_of_the_step():
    first, second = learner_of(), learner_of()
    steps(first, 2)
    torch.rand(100)
    steps(second, 2)
    assert torch.equal(weights(first), weights(second))
    other_seed = learner_of(seed=1)
    steps(other_seed, 2)
    assert not torch.equal(weights(first), weights(other_seed))


def test_precisions_agree_and_are_what_they_say():
    exact = learner_of(losses={"noise": 0})
    single = learner_of(losses={"noise": 0}, run={"precision": "fp32"})
    half = learner_of(losses={"noise": 0}, run={"precision": "bf16"})
    assert next(exact.nets.parameters()).dtype == torch.float64
    losses = [
        train_step(learner, [batch(dtype=next(learner.nets.parameters()).dtype)], Progress(0, 8))
        for learner in (exact, single, half)
    ]
    for name, value in losses[0].items():
        assert losses[1][name].item() == pytest.approx(value.item(), rel=1e-5)
        assert losses[2][name].item() == pytest.approx(value.item(), rel=0.05)
    assert losses[2]["identity"].item() != losses[1]["identity"].item()


class Breaking(toy.ToyScene):
    """Its identity term is no number from the fourth step on."""

    @term("G", 5)
    def identity(self) -> Tensor:
        """Becomes infinite."""
        return (self.same - self.b).abs().mean() * (math.inf if self.step >= 3 else 1)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
def test_compiled_nets_learn_the_same_and_are_saved_as_before():
    plain, compiled = (learner_of(run={"precision": "fp32", "compile": on, "ema": 0.9}) for on in (False, True))
    batches = [{k: x.float() for k, x in batch(seed=step).items()} for step in range(2)]
    for step, one in enumerate(batches):
        found, expected = (train_step(learner, [one], Progress(step, 8)) for learner in (compiled, plain))
        assert {k: v.item() for k, v in found.items()} == pytest.approx(
            {k: v.item() for k, v in expected.items()}, 1e-5
        )
    assert compiled.nets["ab"]._compiled_call_impl and not compiled.nets["d"]._compiled_call_impl
    assert compiled.nets.state_dict().keys() == plain.nets.state_dict().keys()
    assert not compiled.ema["ab"]._compiled_call_impl


def test_compiling_without_a_compiler_says_so(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(MissingError, match="C\\+\\+ compiler"):
        learner_of(run={"compile": True})


def test_a_loss_that_is_not_finite_stops_with_its_name_and_step():
    learner = learner_of(Method(Breaking), run={"save_every": 2, "log_every": 1})
    saved = []
    with pytest.raises(Diverged, match=r"'identity' became (inf|nan) at step 3") as caught:
        fit(learner, [[batch()]] * 8, Progress(0, 8), lambda *a: None, lambda now: saved.append(now.step))
    assert saved == [2] and caught.value.code == 6 and "lr" in caught.value.hint


def test_fit_reports_means_saves_on_time_and_at_the_end():
    learner = learner_of(run={"save_every": 3, "log_every": 2})
    lines, saved = {}, []
    assert fit(learner, [[batch()]] * 8, Progress(0, 8), lines.__setitem__, lambda now: saved.append(now.step))
    assert saved == [3, 6, 8] and list(lines) == [2, 3, 4, 6, 8]
    again = learner_of(run={"save_every": 3, "log_every": 2})
    each = [found["judge"].item() for found in (train_step(again, [batch()], Progress(i, 8)) for i in range(2))]
    assert lines[2]["judge"] == pytest.approx(sum(each) / 2)


def test_a_stop_saves_and_says_so():
    learner = learner_of()
    saved = []
    whole = fit(learner, [[batch()]] * 8, Progress(0, 8), lambda *a: None, lambda n: saved.append(n.step), lambda: True)
    assert not whole and saved == [1]


def test_a_term_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(CardError, match="did you mean 'identity'"):
        weighted_terms(toy.Toy, {"identiti": 1})
