"""Several processes train what one would: two gloo processes on the CPU against one, in double precision."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import toy

SOURCE = Path(toy.__file__).parents[1] / "src"


@pytest.fixture
def torchrun(tmp_path):
    """Runs `facekit train tests/toy.py` in two processes."""

    def run(*more):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "facekit", "train", str(toy.FILE), "--set", "run.precision=fp64", *map(str, more)]
        path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
        around = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        return subprocess.run(command, env=around, capture_output=True, text=True, timeout=240)

    return run


def tensors(run):
    state = torch.load(run / "state.pt", weights_only=True)
    found = {f"{part}.{key}": value for part in ("nets", "ema") for key, value in state[part].items()}
    return {**found, **load_file(run / "model.safetensors")}


QUIET = ("--set", "losses.noise=0")  # draws per image, and so differently in a batch of another size


def test_two_processes_equal_one(torchrun, facekit, tmp_path):
    data = ("--data", toy.domains(tmp_path / "data"), *QUIET, "--set", "run.accumulate=2")
    exact = ("--set", "run.precision=fp64", "--steps", 4)
    assert facekit("train", toy.FILE, *data, *exact, "--out", tmp_path / "one", "--batch", 4).code == 0
    two = torchrun(*data, "--steps", 4, "--out", tmp_path / "two", "--batch", 2)
    assert two.returncode == 0, two.stderr
    assert two.stderr.count("train: done") == 1  # only the first process speaks
    ours, theirs = tensors(tmp_path / "two"), tensors(tmp_path / "one")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=1e-9, rtol=0)
    logs = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("one", "two")]
    rows = [[json.loads(line) for line in lines] for lines in logs]
    for one, both in zip(*rows, strict=True):
        assert one["step"] == both["step"]
        assert one["losses"] == pytest.approx(both["losses"], abs=1e-9)


def test_a_refusal_in_one_process_ends_all(torchrun, facekit, tmp_path):
    data = ("--data", toy.domains(tmp_path / "data"))
    assert facekit("train", toy.FILE, *data, "--out", tmp_path / "run", "--steps", 2).code == 0
    refused = torchrun(*data, "--out", tmp_path / "run", "--steps", 3)
    assert refused.returncode != 0
    assert "another card" in refused.stderr
