"""A stopped or killed run continues and ends with the same bits as an uninterrupted one, on the CPU."""

import itertools
import json
import os
import pickle
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

import toy
from facekit.runtime import signals
from facekit.training.run_folder import RunFolder

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


@pytest.fixture(scope="module")
def once(facekit, place):
    """A run that nothing interrupts, trained once for all tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "save", torch.save)
        done = facekit("train", place / "trouble.py", "--data", place / "data", "--out", place / "whole")
    assert done.code == 0, done.err
    return place / "whole"


@pytest.fixture
def uninterrupted(once, tmp_path):
    """A copy of that run, which a test may change."""
    return shutil.copytree(once, tmp_path / "whole")


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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_130_and_the_same_command_continues(train, uninterrupted, tmp_path, number):
    stopped = train(tmp_path / "run", f"step:2:{int(number)}")
    assert stopped.code == 130 and "stopped at step 3, saved" in stopped.err and "same command again" in stopped.err
    assert (tmp_path / "run" / "losses.png").exists()
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 3
    assert not (tmp_path / "run" / "card.yaml").exists()
    rest = train(tmp_path / "run")
    assert rest.code == 0 and "continuing from step 3" in rest.err
    (tmp_path / "run" / "previews" / "00000003.png").unlink()  # the stop's own
    assert_same(tmp_path / "run", uninterrupted)


@pytest.mark.slow
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


@pytest.mark.slow
def test_losses_after_the_last_save_are_not_logged_twice(train, tmp_path):
    run = tmp_path / "run"
    train(run, f"step:2:{int(signal.SIGINT)}")
    with open(run / "log.jsonl", "a") as log:
        log.write(json.dumps({"step": 4, "losses": {"judge": 1.0}}) + "\n" + '{"step": 5, "los')
    train(run)
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_force_starts_again(train, uninterrupted):
    (uninterrupted / "previews" / "00000099.png").write_bytes(b"of another run")
    again = train(uninterrupted, "", "--force")
    assert again.code == 0 and "starting" in again.err
    assert not (uninterrupted / "previews" / "00000099.png").exists()


@pytest.mark.slow
def test_killed_at_any_file_operation_of_a_new_start_nothing_of_the_old_run_gets_into_it(train, tmp_path, monkeypatch):
    short = ("", "--steps", 2)
    assert train(tmp_path / "old", *short).code == 0
    assert train(tmp_path / "fresh", *short, "--lr", 0.01).code == 0
    for number in itertools.count():
        run = shutil.copytree(tmp_path / "old", tmp_path / f"run{number}")
        done = []

        def counted(change, number=number, done=done):
            def once(*arguments, **more):
                if len(done) == number:
                    raise SystemExit(9)
                done.append(arguments)
                return change(*arguments, **more)

            return once

        with monkeypatch.context() as patched:
            for owner, name in ((Path, "unlink"), (Path, "replace"), (os, "replace")):
                patched.setattr(owner, name, counted(getattr(owner, name)))
            patched.setattr(RunFolder, "log", lambda *arguments: sys.exit(8))
            code = train(run, *short, "--lr", 0.01, "--force").code
        again = train(run, *short, "--lr", 0.01)
        if again.code == 2:  # the old run still holds the folder, whole
            assert "holds a run of another card" in again.err and (run / "state.pt").exists()
            again = train(run, *short, "--lr", 0.01, "--force")
        assert again.code == 0, again.err
        assert_same(run, tmp_path / "fresh")
        if code == 8:  # all of it was done before the first step
            break
    assert number > 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_a_third_does_not_disturb(number, monkeypatch):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(signals, "_end_soon", lambda: None)
    with signals.collected() as received:
        signal.raise_signal(number)
        assert received == [number]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(number)
    for each, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
        signal.signal(each, handler)


@pytest.mark.slow
def test_a_longer_run_continues_exactly(train, uninterrupted, tmp_path):
    assert train(tmp_path / "run", "", "--steps", 4).code == 0
    longer = train(tmp_path / "run", "", "--steps", 6)
    assert longer.code == 0 and "continuing from step 4" in longer.err and "warning" not in longer.err
    assert_same(tmp_path / "run", uninterrupted)
    shorter = train(tmp_path / "run", "", "--steps", 5)
    assert shorter.code == 2 and "--steps 6" in shorter.err
    other = train(tmp_path / "run", "", "--steps", 8, "--lr", 1)
    assert other.code == 2 and "optim.lr" in other.err


@pytest.mark.slow
def test_a_longer_run_says_where_its_learning_rates_differ(facekit, place, tmp_path, monkeypatch):
    (place / "decay.py").write_text(
        f"""
'A toy that learns less and less.'
import sys
sys.path.insert(0, {str(Path(toy.__file__).parent)!r})
import toy

class Decay(toy.Toy):
    'A toy.'
    presets = {{"decay": {{}}}}

    def lr_factor(self, clock):
        return 1 - clock.progress
"""
    )
    given = ("train", place / "decay.py", "--data", place / "data", "--out", tmp_path / "run", "--steps")
    assert facekit(*given, 2).code == 0
    longer = facekit(*given, 4)
    assert longer.code == 0 and "learning rates of a run of 2 steps" in longer.err


@pytest.mark.slow
def test_the_card_in_a_run_folder_stands_for_the_run(train, facekit, tmp_path, monkeypatch):
    run = tmp_path / "run"
    stopped = train(run, f"step:2:{int(signal.SIGINT)}")
    assert stopped.code == 130
    monkeypatch.delenv("TROUBLE")
    resumed = facekit("train", "--card", run / "card.unfinished.yaml")
    assert resumed.code == 0 and "continuing from step 3" in resumed.err
    again = facekit("train", "--card", run / "card.yaml")
    assert again.code == 0 and "complete" in again.err


@pytest.mark.slow
def test_a_start_that_saved_nothing_gives_way_to_other_flags(train, tmp_path):
    run = tmp_path / "run"
    assert train(run, "", "--init", tmp_path / "absent").code == 5
    assert not any(run.iterdir())
    assert train(run, f"step:1:{int(signal.SIGINT)}", "--set", "run.save_every=9").code == 130
    (run / "state.pt").unlink()
    other = train(run, "", "--lr", 0.01)
    assert other.code == 0 and "starting" in other.err
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_folder_that_another_process_trains_into_is_left_alone(train, spawn, place, tmp_path):
    run = tmp_path / "run"
    given = ("train", place / "trouble.py", "--data", place / "data", "--out", run)
    first = spawn.start(*given, env={"TROUBLE": f"step:1:{int(signal.SIGSTOP)}"})
    try:
        while not (run / "card.unfinished.yaml").exists():
            time.sleep(0.05)
        second = train(run)
        assert second.code == 3 and "is in use" in second.err and str(first.pid) in second.err
    finally:
        first.kill()
        first.communicate()
    assert train(run).code == 0


def test_killed_just_before_its_end_a_run_leaves_no_second_card(train, uninterrupted):
    (uninterrupted / "card.unfinished.yaml").write_bytes((uninterrupted / "card.yaml").read_bytes())
    assert train(uninterrupted).code == 0
    assert not (uninterrupted / "card.unfinished.yaml").exists()


class Evil:
    """What a pickle can do."""

    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.slow
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
