"""What facekit 0.1.0 wrote still works: cards, run folders, weights and folders of images."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facekit.storage import card

OLD = Path(__file__).parents[1] / "fixtures" / "0.1.0"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The folder in which facekit 0.1.0 trained and smoothed, with the times that its files had."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    for line in Path("sm/manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        os.utime(Path("faces/trainB") / row["source"], ns=(row["source_mtime"],) * 2)
    return tmp_path / "old"


@pytest.mark.slow
def test_a_finished_run_is_complete(facekit, old):
    before = {path: path.read_bytes() for path in Path("run").glob("*.*")}
    done = facekit("train", "--card", "run/card.yaml", "--out", "run")
    assert done.code == 0, done.err
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.slow
def test_an_unfinished_run_continues(facekit, old):
    values = card.load(Path("run/card.yaml"))
    values["run"]["steps"] = 5
    Path("run/card.unfinished.yaml").write_text(card.dump(values))
    Path("run/card.yaml").rename("card.yaml")
    done = facekit("train", "--card", "card.yaml", "--steps", 5, "--out", "run")
    assert done.code == 0, done.err
    assert [json.loads(line)["step"] for line in Path("run/log.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert card.read_made(Path("run/card.yaml"))["steps"] == 5


def test_weights_translate_to_the_same_image(facekit, old):
    done = facekit("translate", "--weights", "run", "--to", "b", "--no-align", "faces/trainA/0.png", "new.png")
    assert done.code == 0, done.err
    new, then = (np.asarray(Image.open(name).convert("RGB"), int) for name in ("new.png", "translated.png"))
    assert np.abs(new - then).max() <= 1


def test_a_folder_of_images_is_complete(facekit, old):
    done = facekit("smooth-edges", "faces/trainB", "sm")
    assert done.code == 0 and "nothing to do" in done.err
