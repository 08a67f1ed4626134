"""`run.validate_every`: the best weights of a run are kept, also over stops, and training may end early."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import toy
import toy_scores
from facekit.scoring import fid_kid
from facekit.validation import best


@pytest.fixture
def train(tmp_path, monkeypatch, facekit):
    """Runs `facekit train` on the toy method with a score every second step; more arguments come last."""
    monkeypatch.chdir(tmp_path)
    data = toy.domains(tmp_path / "data", 4)
    toy.fill(data / "valA", 4, seed=7)
    toy.fill(data / "valB", 5, seed=8)
    toy_scores.write_onnx(tmp_path / "features.onnx")
    sets = ["run.validate_every=2", "run.validate_features=features.onnx", "run.save_every=3"]

    def run(*more, steps=6):
        words = [word for text in sets for word in ("--set", text)]
        own = ("--data", "data", "--out", "run", "--steps", steps, "--device", "cpu")
        return facekit("train", toy.FILE, *own, *words, *more)

    return run


@pytest.fixture
def scripted(monkeypatch):
    """Lets the scores be those of a list, one after the other."""

    def script(values):
        rest = iter(values)
        monkeypatch.setattr(fid_kid, "compare", lambda *given: {"FID-48": 1.0, "KID-48": next(rest)})

    return script


def rows():
    return [json.loads(line) for line in Path("run/scores.jsonl").read_text().splitlines()]


def step_of(name):
    from facekit.recipe_api import checkpoint

    _, metadata = checkpoint.read_tensors(Path("run") / name)
    return json.loads(metadata[checkpoint.KEY])["made"]["step"]


def test_the_lowest_score_is_kept(train, scripted):
    scripted([0.3, 0.1, 0.2])
    done = train()
    assert done.code == 0, done.err
    assert [row["step"] for row in rows()] == [2, 4, 6]
    assert [row["scores"]["KID-48"] for row in rows()] == [0.3, 0.1, 0.2]
    assert step_of("best.safetensors") == 4 and step_of("model.safetensors") == 6
    page = Path("run/index.html").read_text()
    assert "scores on held-out images" in page and page.index("0.10000") < page.index("best</td>") < page.index(
        "0.20000"
    )


@pytest.mark.slow
def test_scores_are_those_of_the_translations_and_change_nothing_in_the_run(train, facekit):
    assert train().code == 0
    (last,) = [row["scores"] for row in rows() if row["step"] == 6]
    toy.fill(Path("squares"), 4, seed=7)
    own = ("--weights", "run/model.safetensors", "--recipe", toy.FILE, "--no-align", "--to", "b")
    assert facekit("translate", "squares", "out", *own).code == 0
    scored = facekit("score-fid", "out", "data/valB", "--features", "features.onnx", "--no-cache", "--json")
    told = json.loads(scored.out.splitlines()[-1])
    assert last["KID-48"] == pytest.approx(told["KID-48"], rel=1e-6)
    with_scores = load_file("run/model.safetensors")
    os.rename("run", "before")
    assert train("--set", "run.validate_every=0").code == 0
    without = load_file("run/model.safetensors")
    assert all(torch.equal(with_scores[name], without[name]) for name in without)
    assert not Path("run/scores.jsonl").exists() and not Path("run/best.safetensors").exists()


def kept():
    """The steps of the weights in best/, checked against what each file says of itself."""
    names = sorted(path.name for path in Path("run/best").glob("*"))
    steps = [int(name.partition(".")[0]) for name in names]
    assert steps == [step_of(f"best/{name}") for name in names]
    return steps


def test_several_of_the_best_weights_are_kept(train, scripted):
    scripted([0.3, 0.1, 0.2, 0.25, 0.1])
    assert train("--set", "run.keep_best=3", steps=10).code == 0
    assert kept() == [4, 6, 10] and step_of("best.safetensors") == 4  # of equal scores the earlier is the best
    assert "keep_best: 3" in Path("run/card.yaml").read_text()


@pytest.mark.parametrize("place", range(1, 9))
def test_a_kill_while_the_best_are_kept_loses_and_doubles_none(train, scripted, monkeypatch, place):
    scores = {2: 0.3, 4: 0.1, 6: 0.2}
    monkeypatch.setattr(fid_kid, "compare", lambda *given: {"KID-48": scores[step_of("model.safetensors")]})
    calls = []

    def counted(real):
        def call(*arguments):
            calls.append(1)
            if len(calls) == place:
                raise KeyboardInterrupt
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(best.shutil, "copyfile", counted(best.shutil.copyfile))
        patch.setattr(best.files, "remove", counted(best.files.remove))
        patch.setattr(best.jsonl, "append", counted(best.jsonl.append))
        train("--set", "run.keep_best=2")
    assert train("--set", "run.keep_best=2").code == 0
    assert kept() == [4, 6] and step_of("best.safetensors") == 4 and [row["step"] for row in rows()] == [2, 4, 6]


def test_a_run_that_starts_again_keeps_no_weights_of_the_old_one(train, scripted):
    scripted([0.1, 0.2, 0.3])
    assert train("--set", "run.keep_best=2").code == 0
    scripted([0.3, 0.2, 0.1])
    assert train("--set", "run.keep_best=2", "--force").code == 0
    assert kept() == [4, 6]


def test_it_ends_when_the_scores_no_longer_fall(train, scripted):
    scripted([0.2, 0.1, 0.3, 0.3])
    done = train("--set", "run.patience=2", steps=100)
    assert done.code == 0, done.err
    assert "has not fallen in 2 validations; the best weights are of step 4" in done.err
    assert step_of("best.safetensors") == 4 and step_of("model.safetensors") == 8
    card = Path("run/card.yaml").read_text()
    assert "\n  steps: 8\n" in card and "finished" in Path("run/index.html").read_text()
    assert "nothing to do" in train("--set", "run.patience=2", steps=100).err


@pytest.mark.slow
@pytest.mark.parametrize("where", ["before", "after"])
def test_a_run_that_was_killed_at_a_score_ends_the_same(train, monkeypatch, where):
    assert train().code == 0
    whole = rows(), load_file("run/best.safetensors")
    os.rename("run", "whole")
    real = best.Validation.score

    def killed(self, step):
        if step == 4 and where == "before":
            raise KeyboardInterrupt
        ended = real(self, step)
        if step == 4:
            raise KeyboardInterrupt
        return ended

    monkeypatch.setattr(best.Validation, "score", killed)
    assert train().code != 0
    monkeypatch.setattr(best.Validation, "score", real)
    assert train().code == 0
    assert rows() == whole[0]
    found = load_file("run/best.safetensors")
    assert all(torch.equal(found[name], whole[1][name]) for name in found)


def test_a_signal_does_not_wait_for_a_score(train, monkeypatch):
    called = []

    def signalled(self, step):
        called.append(step)
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    monkeypatch.setattr(best.Validation, "score", signalled)
    done = train()
    assert done.code == 130 and called == [2]


def test_what_cannot_be_scored_is_said_before_training(train, facekit):
    done = train("--set", "run.validate_features=none.onnx")
    assert done.code == 5 and "run.validate_features=FILE.onnx" in done.err and not Path("run/state.pt").exists()
    toy.fill(Path("faces"), 4, size=32)
    line = ("train", "stylegan2-small", "--a", "faces", "--out", "noise", "--set", "run.validate_every=2")
    done = facekit(*line, "--size", 16, "--batch", 4, "--steps", 2)
    assert done.code == 2 and "translate one domain to another" in done.err and not Path("noise/state.pt").exists()


def test_few_images_are_warned_of(train):
    assert "4 held-out images say little" in train().err
