"""Pictures that facekit itself has written below a folder are not trained on."""

import json

import numpy as np
import pytest
from PIL import Image

import toy
from facekit.data.dataset import open_layout
from facekit.data.face_masks import open_masks
from facekit.data.label_file import read_labels
from facekit.data.own_outputs import training_images
from facekit.storage import card
from facekit.storage.folder import Folder


def output(folder, command, sources=(), name=card.NAME):
    """A folder of two pictures that a command wrote."""
    toy.fill(folder, 2)
    (folder / name).write_text(f"facekit: 1\ncommand: {command}\n")
    rows = [json.dumps({"file": f"{i:03d}.png", "source": source}) + "\n" for i, source in enumerate(sources)]
    (folder / "manifest.jsonl").write_text("".join(rows))


def names(folder):
    return [source.name for source in training_images(Folder(folder))]


@pytest.mark.parametrize("command", ["train", "translate", "sample", "smooth-edges", "compare"])
@pytest.mark.parametrize("name", [card.NAME, card.UNFINISHED])
def test_results_below_a_folder_are_left_out(tmp_path, command, name):
    toy.fill(tmp_path, 1)
    output(tmp_path / "more/out", command, name=name)
    toy.fill(tmp_path / "more/out/previews", 1)
    assert names(tmp_path) == ["000.png"]
    assert names(tmp_path / "more/out") == ["000.png", "001.png", "previews/000.png"]  # it was given itself


def test_faces_of_elsewhere_are_data_and_those_of_the_folder_itself_are_not(tmp_path):
    toy.fill(tmp_path, 1)
    output(tmp_path / "elsewhere", "align", ["me.jpg", "you.jpg"])
    output(tmp_path / "crawled", "crawl", ["https://x.org/" + "a" * 300])
    assert len(names(tmp_path)) == 5
    toy.picture().save(tmp_path / "me.png")
    output(tmp_path / "own", "align", ["000.png", "me.png"])
    own = ["crawled/000.png", "crawled/001.png", "elsewhere/000.png", "elsewhere/001.png", "me.png"]
    assert names(tmp_path) == ["000.png", *own]


def test_a_run_below_labelled_images_is_no_label(tmp_path):
    for label in ("smile", "cry"):
        toy.fill(tmp_path / label, 2)
    output(tmp_path / "run/previews/..", "train")
    output(tmp_path / "smile/out", "translate")
    found = read_labels(card.Data(root=str(tmp_path)))
    assert sorted(found.train.values()) == [("cry",)] * 2 + [("smile",)] * 2


def test_a_run_beside_the_only_part_of_labelled_images_is_no_part(tmp_path):
    for label in ("smile", "cry"):
        toy.fill(tmp_path / "train" / label, 2)
    output(tmp_path / "run", "train")
    assert len(read_labels(card.Data(root=str(tmp_path))).train) == 4


def test_runs_below_photos_and_masks_are_left_out(tmp_path):
    for index in range(6):
        toy.fill(tmp_path / "images", 6)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 16), index % 2, np.uint8)).save(tmp_path / f"masks/{index:03d}.png")
    (tmp_path / "classes.txt").write_text("background\nskin\n")
    output(tmp_path / "images/run", "train")
    layout = open_masks(card.Data(root=str(tmp_path), split=(4, 1, 1)))
    assert len(layout.train["a"]) + len(layout.test["a"]) + len(layout.previews["a"]) == 6


def test_an_ablation_below_a_domain_is_left_out(tmp_path):
    toy.domains(tmp_path, 4)
    for name in ("cards", "runs", "faces"):
        toy.fill(tmp_path / "trainA/study" / name, 1)
    assert len(open_layout(card.Data(root=str(tmp_path), holdout=0)).train["a"]) == 4
