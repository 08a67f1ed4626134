"""The rows of the table "What is equal" in docs/reliability.md: the same bytes whatever the work was divided among."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from torch import nn

import toy
import toy_scores
from facekit.recipe_api import checkpoint

IMAGES = 5


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Pictures, two portraits, a model and features for scores."""
    monkeypatch.chdir(tmp_path)
    toy.fill(Path("in"), IMAGES, 32)
    Path("photos").mkdir()
    for left in (0, 4):
        Image.fromarray(astronaut()[20:180, 130 + left : 290 + left]).save(f"photos/{left}.png")
    torch.manual_seed(0)
    values = {"recipe": str(toy.FILE), "data": {"size": 32}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(Path("m.safetensors"), nn.ModuleDict({"ab": toy.Toy({}, 32).nets()["ab"]}), values)
    toy_scores.write_onnx("features.onnx")
    return tmp_path


COMMANDS = {
    "smooth-edges": ["smooth-edges", "in"],
    "align": ["align", "photos", "--detector", "cascade", "--size", 32],
    "clean": ["clean", "in", "--apply", "--min-size", 8, "--keep", "blurred"],
    "translate": ["translate", "in", "--no-align", "--weights", "m.safetensors", "--recipe", toy.FILE],
}


def pictures(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).rglob("*.png"))}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_images_and_lines_are_equal_for_any_number_of_workers(facekit, here, name):
    command, *rest = COMMANDS[name]
    for workers in (1, 3):
        done = facekit(command, rest[0], f"out{workers}", *rest[1:], "--workers", workers)
        assert done.code == 0, done.err
    assert pictures("out1") == pictures("out3") and pictures("out1")
    lines = [sorted(Path(f"out{workers}/manifest.jsonl").read_text().splitlines()) for workers in (1, 3)]
    assert lines[0] == lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smooth-edges", "translate"])
def test_images_and_lines_are_equal_for_any_number_of_shards(facekit, here, name):
    command, *rest = COMMANDS[name]
    assert facekit(command, rest[0], "whole", *rest[1:]).code == 0
    for shard in ("2/2", "1/2"):
        assert facekit(command, rest[0], "parts", *rest[1:], "--shard", shard).code == 0
    assert pictures("whole") == pictures("parts") and len(pictures("whole")) == IMAGES
    whole, parts = (
        sorted(
            json.dumps(json.loads(line), sort_keys=True)
            for line in Path(out, "manifest.jsonl").read_text().splitlines()
        )
        for out in ("whole", "parts")
    )
    assert whole == parts


def test_translations_differ_by_one_level_at_most_between_batches_and_threads(facekit, here):
    command, *rest = COMMANDS["translate"]
    for batch in (1, 4):
        assert facekit(command, rest[0], f"out{batch}", *rest[1:], "--batch", batch).code == 0
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert facekit(command, rest[0], "out2", *rest[1:], "--batch", 4).code == 0
    finally:
        torch.set_num_threads(before)
    for path in Path("out1").glob("*.png"):
        one = np.asarray(Image.open(path), int)
        for out in ("out4", "out2"):
            assert np.abs(one - np.asarray(Image.open(Path(out) / path.name), int)).max() <= 1


def test_scores_are_equal_for_any_number_of_workers(facekit, here):
    found = []
    for workers in (1, 3):
        given = ["in", "photos", "--features", "features.onnx", "--resize", 32, "--no-cache", "--json"]
        done = facekit("score-fid", *given, "--workers", workers)
        assert done.code == 0, done.err
        found.append(json.loads(done.out.splitlines()[-1]))
    assert found[0] == found[1]


@pytest.mark.slow
def test_two_trainings_are_equal(facekit, here):
    data = toy.domains(Path("data"), 4)
    for run in ("one", "two"):
        assert facekit("train", toy.FILE, "--data", data, "--out", run, "--steps", 2, "--threads", 1).code == 0
    for name in ("model.safetensors", "log.jsonl", "previews/00000002.png"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
