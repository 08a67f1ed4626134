"""difference-vector: both rules against closed forms, its ten snapshots, and what it adds to a face."""

import copy

import pytest
import torch
from PIL import Image
from torch import nn

import toy
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.recipes.difference import DifferenceVector
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

SIZE = 8


def learner_of(steps=20, **params):
    values = card.TrainCard.model_validate(
        {"recipe": "difference-vector", "data": {"size": SIZE, "batch": 3}, "params": params, "run": {"steps": steps}}
    )
    kind, _ = registry.find("difference-vector")
    return build_state(kind(params, SIZE), weighted_terms(kind, {}), values, torch.device("cpu"))


def batch_of(step):
    torch.manual_seed(100 + step)
    return {name: torch.rand(3, 3, SIZE, SIZE) * 2 - 1 for name in "ab"}


def apart(step):
    batch = batch_of(step)
    return batch["b"].mean(0) - batch["a"].mean(0)


def train(learner, stop):
    while learner.step < stop:
        train_step(learner, [batch_of(learner.step)], Progress(learner.step, learner.card.run.steps))
        learner.step += 1
    return learner.nets["difference"]


def test_literal_adds_up_the_differences():
    net = train(learner_of(mode="literal", rate=0.01), 20)
    wanted = 0.01 * sum(apart(step) for step in range(20))
    assert torch.allclose(net.vector[0], wanted, atol=1e-6)


def test_literal_by_default_makes_one_difference_of_ten_thousand_steps():
    net = train(learner_of(mode="literal"), 5)
    assert torch.allclose(net.vector[0] * 10_000 / 5, sum(apart(step) for step in range(5)) / 5, atol=1e-4)


@pytest.mark.slow
def test_the_average_is_a_plain_mean_first_and_a_moving_one_after():
    net = train(learner_of(mode="average", rate=0.25), 12)
    wanted = torch.zeros(3, SIZE, SIZE)
    for step in range(12):
        wanted = wanted + max(0.25, 1 / (step + 1)) * (apart(step) - wanted)
    assert torch.allclose(net.vector[0], wanted, atol=1e-6)
    early = train(learner_of(), 7)
    assert torch.allclose(early.vector[0], sum(apart(step) for step in range(7)) / 7, atol=1e-6)


def test_accumulated_batches_count_as_one():
    learner, whole = learner_of(), learner_of()
    batch = batch_of(0)
    batch = {name: torch.cat([x, x[:1]]) for name, x in batch.items()}
    halves = [{name: x[:2] for name, x in batch.items()}, {name: x[2:] for name, x in batch.items()}]
    train_step(learner, halves, Progress(0, 20))
    train_step(whole, [batch], Progress(0, 20))
    assert torch.allclose(learner.nets["difference"].vector, whole.nets["difference"].vector, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [20, 100])
def test_there_is_a_snapshot_of_every_tenth(steps):
    learner = learner_of(steps, mode="literal", rate=0.1)
    seen = []
    for tenth in range(1, 11):
        net = train(learner, tenth * steps // 10)
        seen.append(net.vector[0].detach().clone())
    assert torch.equal(net.snapshots, torch.stack(seen))
    assert not torch.equal(seen[0], seen[1])


def test_a_run_of_few_steps_leaves_no_snapshot_empty():
    net = train(learner_of(3), 3)
    assert torch.equal(net.snapshots[-1], net.vector[0])
    assert all(snapshot.abs().sum() > 0 for snapshot in net.snapshots)


@pytest.mark.slow
def test_a_stopped_run_continues_as_if_never_stopped():
    whole = train(learner_of(), 20)
    first = learner_of()
    train(first, 7)
    again = learner_of()
    again.restore(copy.deepcopy(first.snapshot()))
    for name, value in train(again, 20).state_dict().items():
        assert torch.equal(value, whole.state_dict()[name])


def test_translating_adds_the_vector_and_back_takes_it_away():
    made = DifferenceVector({"strength": 0.5}, SIZE)
    nets = nn.ModuleDict(made.nets())
    nets["difference"].snapshots[:] = 0.4
    nets["difference"].snapshots[2] = 3.0
    x = torch.linspace(-0.5, 0.5, 3 * SIZE * SIZE).view(1, 3, SIZE, SIZE)
    assert torch.allclose(made.translate(nets, x, "b"), x + 0.2)
    assert torch.allclose(made.translate(nets, x, "a"), x - 0.2)
    assert torch.allclose(made.translate(nets, x, "b", strength=1.0), x + 0.4)
    assert made.translate(nets, x, "b", snapshot=3).max() == 1
    assert torch.allclose(DifferenceVector({"snapshot": 3}, SIZE).translate(nets, x, "a"), (x - 3).clamp(-1, 1))


@pytest.mark.slow
def test_training_tells_flat_domains_apart_and_draws_its_snapshots(facekit, tmp_path):
    for side, grey in (("trainA", 60), ("trainB", 160)):
        (tmp_path / "set" / side).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (16, 16), (grey + i, grey, grey)).save(tmp_path / "set" / side / f"{i}.png")
    run = tmp_path / "run"
    small = ["--size", 16, "--batch", 4, "--steps", 10]
    done = facekit("train", "difference-vector", "--data", tmp_path / "set", "--out", run, *small)
    assert done.code == 0, done.err
    model = checkpoint.load_model(run)
    assert model.nets["difference"].vector.mean().item() == pytest.approx(100 / 127.5, abs=0.03)
    scores = card.read_made(run / "card.yaml")["scores"]
    assert len(scores["mean_size_by_tenth"]) == 10
    with Image.open(run / "snapshots.png") as page:
        assert page.width > 10 * 16
    source, out = toy.fill(tmp_path / "faces", 2), tmp_path / "out"
    done = facekit("translate", source, out, "--weights", run, "--no-align")
    assert done.code == 0 and len(list(out.glob("*.png"))) == 2, done.err


def test_a_state_of_facekit_0_1_which_held_adams_moments_continues(tmp_path):
    learner = learner_of(mode="average", rate=0.25)
    train(learner, 4)
    old = copy.deepcopy(learner.snapshot())
    moments = {name: torch.ones(1, 3, SIZE, SIZE) for name in ("exp_avg", "exp_avg_sq")}
    adam = {"lr": 0.25, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "params": [0]}
    old["optims"] = {"V": {"state": {0: {"step": torch.tensor(4.0), **moments}}, "param_groups": [adam]}}
    torch.save(old, tmp_path / "state.pt")
    resumed = learner_of(mode="average", rate=0.25)
    resumed.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.step == 4
    assert torch.equal(train(resumed, 8).vector, train(learner, 8).vector)
