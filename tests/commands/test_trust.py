"""What lies in a folder or a file is data: it runs no code, and opens nothing else."""

import json
import os
import threading
from pathlib import Path

import pytest

import toy
import toy_scores
from facekit.errors import CardError
from facekit.storage import card, jsonl, remote
from facekit.storage.folder import Folder, is_inside

RECIPE = """
from pathlib import Path
Path("ran").write_text("code of a stranger")
from facekit.recipe_api.base import Recipe
class Evil(Recipe):
    "Does harm."
    presets = {"evil": {}}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two domains and a recipe file of a stranger, which a card names."""
    monkeypatch.chdir(tmp_path)
    toy.domains(Path("data"), 2)
    Path("evil.py").write_text(RECIPE)
    Path("evil.yaml").write_text("facekit: 1\ncommand: train\nrecipe: evil.py\nrun: {steps: 1}\n")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--card", "evil.yaml", "--data", "data", "--out", "run"],
        ["train", "--card", "child.yaml", "--data", "data", "--out", "run"],
        ["ablate", "evil.yaml", "--data", "data", "--out", "study"],
        ["ablate", "cyclegan", "--against", "evil.yaml", "--data", "data", "--out", "study", "--dry-run"],
    ],
)
def test_a_card_runs_no_recipe_file(facekit, here, command):
    Path("child.yaml").write_text("extends: evil.yaml\nseed: 1\n")
    done = facekit(*command)
    assert done.code == 2 and "evil.py" in done.err and "name it yourself" in done.err
    assert not Path("ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [card.NAME, card.UNFINISHED])
def test_a_card_in_the_output_folder_runs_no_recipe_file(facekit, here, name):
    Path("run").mkdir()
    Path("evil.yaml").rename(Path("run") / name)
    (Path("run") / "state.pt").write_bytes(b"")
    done = facekit("train", "cyclegan", "--data", "data", "--out", "run", "--size", 32, "--steps", 1)
    assert done.code == 2 and "another card: " in done.err
    assert not Path("ran").exists()


def test_a_card_does_not_allow_torchscript(facekit, here):
    Path("features.pt").write_bytes(b"PK\x03\x04")
    options = {"out": "data/trainA", "reference": "data/trainB", "features": "features.pt", "allow_torchscript": True}
    Path("score.yaml").write_text(card.dump({"facekit": 1, "command": "score-fid", "options": options}))
    given: dict[str, object] = {}

    def score(settings, *arguments, **more):
        given["allow"] = settings.allow_torchscript

    import facekit.scoring.evaluate as evaluate

    before, evaluate.evaluate = evaluate.evaluate, score
    try:
        assert facekit("score-fid", "--card", "score.yaml").code == 0
        assert given["allow"] is False
        assert facekit("score-fid", "--card", "score.yaml", "--allow-torchscript").code == 0
        assert given["allow"] is True
    finally:
        evaluate.evaluate = before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_what_is_no_plain_file_is_not_read(here):
    for name in ("card.yaml", "manifest.jsonl", "failed.jsonl"):
        os.mkfifo(Path("data/trainA") / name)
    found: list[object] = []
    reading = threading.Thread(
        target=lambda: found.extend([Folder("data/trainA").aligned, Folder("data/trainA").entries])
    )
    reading.start()
    reading.join(20)
    assert found == [False, {}]


def test_links_that_lead_to_themselves_are_not_followed(here):
    for name in ("card.yaml", "manifest.jsonl"):
        (Path("data/trainA") / name).symlink_to(name)
    folder = Folder("data/trainA")
    assert not folder.aligned and folder.entries == {}
    with pytest.raises(CardError, match="cannot read card"):
        card.load(Path("data/trainA/card.yaml"))


@pytest.mark.parametrize("name", ["http://127.0.0.1:1/card.yaml", "s3://bucket/card.yaml", "file:///etc/passwd"])
def test_nothing_is_fetched_because_a_file_says_so(here, monkeypatch, name):
    monkeypatch.setattr(remote, "_store", lambda scheme: pytest.fail("fetched"))
    Path("card.yaml").write_text(f"extends: {name}\n")
    Path("manifest.jsonl").write_text(json.dumps({"file": name, "source": name}) + "\n")
    with pytest.raises(CardError, match="names a URL"):
        card.load(Path("card.yaml"))
    folder = Folder(".")
    assert not folder.aligned and folder.entries == {} and not is_inside(name)


@pytest.mark.parametrize("parent", ["/dev/zero", "pipe", "a\\0b", ".", "x" * 5000, "self.yaml", "other.yaml"])
def test_extends_of_what_is_no_card_is_a_sentence(here, parent):
    if parent == "pipe":
        os.mkfifo(parent)
    Path("other.yaml").write_text("extends: self.yaml\n")
    Path("self.yaml").write_text(f'extends: "{parent}"\n')
    with pytest.raises(CardError):
        card.load(Path("self.yaml"))


def test_names_that_are_no_file_of_the_folder_are_not_inside():
    assert is_inside("a/b.png") and is_inside("ä.png")
    assert not any(is_inside(name) for name in ("", ".", "./.", "..", "a/../..", "/a", "a\0", None, ["a"], 1))


def test_lines_hold_no_control_characters_and_say_the_same(tmp_path):
    row = {"file": "\x1b[31m\x9b2J\u2028\u202e\x7f ä\U0001f600.png", "size": float("nan")}
    jsonl.append(tmp_path / "x.jsonl", [row])
    text = (tmp_path / "x.jsonl").read_text(encoding="utf-8")
    assert not any(c in text for c in "\x1b\x9b\u2028\u202e\x7f") and "ä\U0001f600" in text
    assert json.loads(text) == {**row, "size": None} == next(jsonl.read_lines(tmp_path / "x.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    ['{"file": ["a"], "source": ["b"]}', '{"file": ".", "source": "000.png"}', '{"file": 1}', "[" * 100_000, "NaN"],
)
def test_strange_lines_of_a_manifest_stop_nothing(facekit, here, line):
    assert facekit("smooth-edges", "data/trainA", "out", "-q").code == 0
    with open("out/manifest.jsonl", "a") as file:
        file.write(line + "\n")
    toy.picture(16, 9).save("data/trainA/000.png")
    assert facekit("smooth-edges", "data/trainA", "out", "-q").code == 0
    assert facekit("smooth-edges", "data/trainA", "out", "-q", "--force").code == 0
    assert sorted(path.name for path in Path("out").glob("*.png")) == ["000.png", "001.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["align", "data/trainA", "out", "--detector", "cascade"], "out/index.html"),
        (["translate", "data/trainA", "out", "--no-align", "--sheet"], "out-sheet.png"),
        (["translate", "data/trainA/000.png", "out.png", "--no-align", "--sheet"], "out-sheet.png"),
        (["translate", "data/trainA/000.png", "out.png", "--no-align"], "out.png"),
        (["crawl", "local", "out", "--from", "data/trainA"], "out/manifest.jsonl"),
        (["crawl", "local", "out", "--from", "data/trainA"], "out/failed.jsonl"),
        (["clean", "data/trainA", "out"], "out/findings.jsonl"),
        (["clean", "data/trainA", "out"], "out/measures.jsonl"),
        (["compare", "data/trainA", "data/trainB", "--page", "out"], "out/key.json"),
        (["train", "cyclegan", "--data", "data", "--out", "out", "--size", "32", "--steps", "0"], "out/overlays.png"),
        (["export", "anime", "net.onnx"], "net.onnx"),
        (["score-fid", "data/trainA", "data/trainB", "--features", "f.onnx", "--save", "s.yaml"], "s.yaml"),
    ],
)
@pytest.mark.parametrize("link", [False, True])
def test_no_foreign_file_is_replaced(facekit, here, command, name, link):
    toy_scores.write_onnx("f.onnx")
    Path(name).parent.mkdir(exist_ok=True)
    if link:
        Path(name).symlink_to("nowhere")
    else:
        Path(name).write_text("mine")
    before = sorted(path.name for path in here.rglob("*") if path.name != "__pycache__")
    done = facekit(*command)
    assert done.code in (2, 3) and Path(name).name in done.err, done.err
    assert Path(name).is_symlink() == link and (link or Path(name).read_text() == "mine")
    assert sorted(path.name for path in here.rglob("*") if path.name != "__pycache__") == before


def test_an_ablation_is_not_written_among_training_images(facekit, here):
    done = facekit(
        "ablate",
        "cyclegan",
        "--data",
        "data",
        "--out",
        "data",
        "--set",
        "data.size=32",
        "--set",
        "run.steps=1",
        "--plan",
    )
    assert done.code == 2 and "holds the training images" in done.err
    assert not Path("data/cards").exists()
