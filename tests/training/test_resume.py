"""Stopped or killed at any moment, a run goes on and ends as if nothing had been: bit by bit, on the CPU."""

import json
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch

import toy
from facekit.storage import claim
from facekit.training.run_folder import stop_signals

METHOD = '''
"""A toy method that sends its process a signal: TROUBLE is `place:step:signal`."""
import os
import sys

sys.path.insert(0, {tests!r})
import toy
import torch
from facekit.storage import files
from facekit.recipe_api.base import term


def trouble(place, step):
    wanted = os.environ.get("TROUBLE", "::").split(":")
    if wanted[:2] == [place, str(step)]:
        os.kill(os.getpid(), int(wanted[2]))


class TroubleScene(toy.ToyScene):
    """Signals at a step."""

    @term("D")
    def judge(self):
        """Tell real from translated."""
        trouble("step", self.step)
        return toy.ToyScene.judge(self)


class Trouble(toy.Toy):
    """A toy in trouble."""

    Scene = TroubleScene
    presets = {{"trouble": {{}}}}

    def preview(self, nets, x, to):
        """The model is saved by now, the state is not."""
        trouble("preview", 0)
        return super().preview(nets, x, to)


save = torch.save


def cut_short(state, file):
    """Leave half a file where the trouble is."""
    if os.environ.get("TROUBLE", "").startswith("save"):
        file.write(b"half a state")
        file.flush()
        trouble("save", 0)
    save(state, file)


torch.save = cut_short
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("resume")
    toy.domains(root / "data")
    (root / "trouble.py").write_text(METHOD.format(tests=str(Path(toy.__file__).parent)))
    return root


@pytest.fixture
def train(facekit, place, monkeypatch):
    """Runs the training in this process; the place of trouble is given by `at`."""
    monkeypatch.setattr(torch, "save", torch.save)

    def run(out, at="", *more):
        monkeypatch.setenv("TROUBLE", at)
        return facekit("train", place / "trouble.py", "--data", place / "data", "--out", out, *more)

    return run


@pytest.fixture
def uninterrupted(train, tmp_path):
    assert train(tmp_path / "whole").code == 0
    return tmp_path / "whole"


def assert_same(run, other):
    assert (run / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (run / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
    assert [p.name for p in sorted((run / "previews").iterdir())] == [
        p.name for p in sorted((other / "previews").iterdir())
    ]
    ours, theirs = (torch.load(folder / "state.pt", weights_only=True) for folder in (run, other))
    flat = torch.utils._pytree.tree_leaves
    for mine, his in zip(flat(ours), flat(theirs), strict=True):
        assert torch.equal(mine, his) if isinstance(mine, torch.Tensor) else mine == his


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_130_and_the_same_command_goes_on(train, uninterrupted, tmp_path, number):
    stopped = train(tmp_path / "run", f"step:2:{int(number)}")
    assert stopped.code == 130 and "stopped at step 3, saved" in stopped.err and "same command again" in stopped.err
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 3
    assert not (tmp_path / "run" / "card.yaml").exists()
    rest = train(tmp_path / "run")
    assert rest.code == 0 and "going on from step 3" in rest.err
    (tmp_path / "run" / "previews" / "00000003.png").unlink()  # the stop's own
    assert_same(tmp_path / "run", uninterrupted)


def test_killed_again_and_again_it_ends_the_same(spawn, train, uninterrupted, place, tmp_path):
    run = tmp_path / "run"
    for at in ("step:3:9", "preview:0:9", "save:0:9"):
        killed = spawn("train", place / "trouble.py", "--data", place / "data", "--out", run, env={"TROUBLE": at})
        assert killed.code == -signal.SIGKILL
        assert torch.load(run / "state.pt", weights_only=True)["step"] == 2
    assert any(run.glob(".*.part"))  # the half state
    assert train(run).code == 0
    assert_same(run, uninterrupted)
    assert not any(run.glob(".*.part"))


def test_a_finished_run_is_left_alone(train, uninterrupted):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")}
    again = train(uninterrupted)
    assert again.code == 0 and "nothing to do" in again.err
    assert {path: path.stat().st_mtime_ns for path in uninterrupted.rglob("*")} == before


def test_killed_between_the_last_save_and_the_card_it_only_writes_the_card(train, uninterrupted, tmp_path):
    (uninterrupted / "card.yaml").rename(uninterrupted / "card.unfinished.yaml")
    model = (uninterrupted / "model.safetensors").read_bytes()
    assert train(uninterrupted).code == 0
    assert (uninterrupted / "card.yaml").exists()
    assert (uninterrupted / "model.safetensors").read_bytes() == model


def test_losses_after_the_last_save_are_not_told_twice(train, tmp_path):
    run = tmp_path / "run"
    train(run, f"step:2:{int(signal.SIGINT)}")
    with open(run / "log.jsonl", "a") as log:
        log.write(json.dumps({"step": 4, "losses": {"judge": 1.0}}) + "\n" + '{"step": 5, "los')
    train(run)
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_force_starts_again(train, uninterrupted):
    (uninterrupted / "previews" / "00000099.png").write_bytes(b"of another run")
    again = train(uninterrupted, "", "--force")
    assert again.code == 0 and "starting" in again.err
    assert not (uninterrupted / "previews" / "00000099.png").exists()


@pytest.mark.parametrize("claimed", [False, True])
def test_killed_while_it_starts_again_it_goes_on_from_nothing_old(train, uninterrupted, monkeypatch, claimed):
    take = claim.take

    def killed(*arguments, **more):
        if claimed:
            take(*arguments, **more)
        raise SystemExit(9)

    with monkeypatch.context() as patched:
        patched.setattr(claim, "take", killed)
        assert train(uninterrupted, "", "--lr", 1, "--force").code == 9
    again = train(uninterrupted, "", "--lr", 1)
    assert again.code == 0 and "starting" in again.err


def test_a_second_interrupt_does_not_wait():
    with stop_signals() as received:
        signal.raise_signal(signal.SIGINT)
        assert received == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class Evil:
    """What a pickle can do."""

    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("damage", ["cut", "random", "pickle", "other"])
def test_a_damaged_state_is_refused_and_never_run(train, tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "run", f"step:2:{int(signal.SIGINT)}")
    state = tmp_path / "run" / "state.pt"
    content = {
        "cut": state.read_bytes()[:1000],
        "random": b"\x80" * 500,
        "pickle": pickle.dumps(Evil()),
        "other": None,
    }[damage]
    if content is None:
        torch.save({"step": 3}, state)
    else:
        state.write_bytes(content)
    refused = train(tmp_path / "run")
    assert refused.code == 5 and "state.pt" in refused.err and "--force" in refused.err
    assert not (tmp_path / "evil").exists()
