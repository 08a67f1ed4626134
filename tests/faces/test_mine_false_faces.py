"""tools/mine_false_faces.py: what a detector takes for faces in pictures said to have none becomes a lesson."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from facekit.recipe_api import checkpoint
from facekit.storage import images

TOOL = Path(__file__).parents[2] / "tools" / "mine_false_faces.py"


@pytest.mark.slow
def test_places_are_added_where_no_face_is_labelled(tmp_path, monkeypatch, capsys):
    images.save(Image.fromarray(astronaut()[:256, 96:352]), tmp_path / "said-empty.png")
    images.save(Image.new("RGB", (128, 128), (90, 90, 90)), tmp_path / "empty.png")
    known = {"box": [1, 2, 3, 4], "landmarks": [[1, 1]] * 5}
    rows = [
        {"file": "said-empty.png", "faces": [], "false": [known]},
        {"file": "empty.png", "faces": []},
        {"file": "not-read.png", "faces": [known]},
    ]
    labels = tmp_path / "faces.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    weights = checkpoint.SHIPPED / "detector.safetensors"
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)  # other tests share this process
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(weights), str(tmp_path)])
    runpy.run_path(str(TOOL), run_name="__main__")
    found = [json.loads(line) for line in labels.read_text().splitlines()]
    assert found[0]["false"][0] == known and len(found[0]["false"]) >= 2
    left, top, right, bottom = found[0]["false"][1]["box"]
    assert 60 < right - left < 256 and 60 < bottom - top < 256
    assert np.shape(found[0]["false"][1]["landmarks"]) == (5, 2)
    assert found[1] == {**rows[1], "false": []} and found[2] == rows[2]
    assert f"{len(found[0]['false']) - 1} places in 3 pictures" in capsys.readouterr().out
