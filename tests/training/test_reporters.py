"""`train --report`: what Weights & Biases, MLflow and other packages are given, also by a continued run."""

import json
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import toy
from facekit.training import reporters


@pytest.fixture
def train(tmp_path, monkeypatch, facekit):
    """Runs `facekit train` on the toy method; more arguments come last."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    toy.domains(tmp_path / "data", 4)

    def run(*more, steps=4):
        line = ("--data", "data", "--out", "run", "--steps", steps, "--device", "cpu")
        return facekit("train", toy.FILE, *line, "--set", "run.save_every=2", "--set", "run.log_every=1", *more)

    return run


class Calls(list):
    """What was called, with its arguments."""

    def note(self, name, answer=None):
        """Return a function that notes its calls."""
        return lambda *given, **named: self.append((name, given, named)) or answer

    def of(self, name):
        """The calls of one name: their arguments."""
        return [(given, named) for called, given, named in self if called == name]


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package wandb, with the calls it has got."""
    calls, module = Calls(), ModuleType("wandb")
    run = SimpleNamespace(id="abc", log=calls.note("log"), finish=calls.note("finish"))
    module.init, module.Image = calls.note("init", run), lambda picture: ("image", picture.size)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in for the package mlflow, with the calls it has got."""
    calls, module = Calls(), ModuleType("mlflow")
    for name in ("set_experiment", "log_dict", "log_metrics", "log_image", "end_run"):
        setattr(module, name, calls.note(name))
    module.start_run = calls.note("start_run", SimpleNamespace(info=SimpleNamespace(run_id="r1")))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return calls


@pytest.mark.slow
def test_wandb_gets_the_card_every_loss_and_each_preview(train, wandb):
    done = train("--report", "wandb")
    assert done.code == 0, done.err
    ((_, named),) = wandb.of("init")
    assert named["project"] == "facekit" and named["name"] == "run" and named["config"]["run"]["steps"] == 4
    logged = wandb.of("log")
    losses = [(named["step"], given[0]) for given, named in logged if "preview" not in given[0]]
    rows = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert losses == [(row["step"], {f"loss/{k}": v for k, v in row["losses"].items()}) for row in rows]
    pictures = [(named["step"], given[0]["preview"][0]) for given, named in logged if "preview" in given[0]]
    assert pictures == [(2, "image"), (4, "image")] and len(wandb.of("finish")) == 1


@pytest.mark.slow
def test_a_continued_run_is_the_same_run(train, wandb, mlflow):
    assert train("--report", "wandb", "--report", "mlflow").code == 0
    assert train("--report", "wandb", "--report", "mlflow", steps=6).code == 0
    assert [named["id"] for _, named in wandb.of("init")] == [None, "abc"]
    assert [named["run_id"] for _, named in mlflow.of("start_run")] == [None, "r1"]
    assert len(mlflow.of("log_dict")) == 1


@pytest.mark.slow
def test_mlflow_gets_metrics_and_images(train, mlflow):
    assert train("--report", "mlflow").code == 0
    assert mlflow.of("set_experiment") == [(("facekit",), {})]
    assert [named["step"] for _, named in mlflow.of("log_metrics")] == [1, 2, 3, 4]
    assert [given[1] for given, _ in mlflow.of("log_image")] == ["preview/00000002.png", "preview/00000004.png"]
    assert len(mlflow.of("end_run")) == 1


@pytest.mark.slow
def test_another_package_adds_a_reporter(train, monkeypatch):
    calls = Calls()
    made = SimpleNamespace(scalars=calls.note("scalars"), picture=calls.note("picture"), close=calls.note("close"))
    point = SimpleNamespace(name="mine", load=lambda: lambda folder, values: made)
    real = metadata.entry_points
    monkeypatch.setattr(
        reporters.metadata,
        "entry_points",
        lambda **asked: [point] if asked.get("group") == reporters.GROUP else real(**asked),
    )
    assert train("--report", "mine").code == 0
    assert len(calls.of("scalars")) == 4 and len(calls.of("picture")) == 2 and len(calls.of("close")) == 1


def test_an_unknown_reporter_and_a_missing_package_are_said(train, monkeypatch):
    done = train("--report", "wandbb")
    assert done.code == 2 and "did you mean 'wandb'?" in done.err and not Path("run").exists()
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = train("--report", "wandb")
    assert done.code == 5 and "pip install wandb" in done.err
    assert train().code == 0


def test_a_service_that_fails_does_not_end_the_run(train, wandb, monkeypatch):
    def down(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **_: SimpleNamespace(id="x", log=down, finish=down))
    done = train("--report", "wandb")
    assert done.code == 0 and done.err.count("no route to host") == 1
    monkeypatch.setattr(sys.modules["wandb"], "init", down)
    done = train("--report", "wandb", "--force")
    assert done.code == 5 and "--report wandb does not start" in done.err and "this is a bug" not in done.err
