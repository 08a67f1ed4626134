"""`facekit train` as people meet it: what it leaves, what it refuses, what it says."""

import errno
import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

import toy
from facekit.storage import files
from facekit.training import loop

BROKEN = """
class Broken:
    presets = {"broken": {}}
"""

OWN = """
'A recipe file with what people write in one.'
from __future__ import annotations
import sys
from dataclasses import dataclass
from typing import Literal
sys.path.insert(0, {tests!r})
import toy
from facekit.recipe_api.base import term

@dataclass
class Where:
    step: int = 3

class OwnParams(toy.ToyParams):
    kind: Literal["sound", "nan"] = "sound"

class OwnScene(toy.ToyScene):
    @term("D")
    def judge(self):
        'No number from step 3 on, if asked.'
        bad = self.params.kind == "nan" and self.step >= Where().step
        return toy.ToyScene.judge(self) * (float("nan") if bad else 1)

class Own(toy.Toy):
    'A toy.'
    Scene, Params = OwnScene, OwnParams
    presets = {{"own": {preset}}}
"""


@pytest.fixture
def data(tmp_path):
    return toy.domains(tmp_path / "data")


@pytest.fixture
def train(facekit, data, tmp_path):
    """Runs `facekit train tests/toy.py`; flags given again win."""

    def run(*more, out="run", recipe=toy.FILE):
        where = () if "--data" in more or "--a" in more else ("--data", data)
        return facekit("train", recipe, *where, "--out", tmp_path / out, *more)

    return run


def weights(run):
    return torch.cat([x.reshape(-1) for _, x in sorted(load_file(run / "model.safetensors").items())])


def test_a_run_leaves_all_that_it_promises(train, tmp_path):
    done = train("--tensorboard")
    assert done.code == 0
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} >= {
        "model.safetensors",
        "card.yaml",
        "log.jsonl",
        "losses.png",
        "index.html",
    }
    assert [p.name for p in sorted((run / "previews").iterdir())] == ["00000002.png", "00000004.png", "00000006.png"]
    assert any((run / "tb").iterdir())
    page = (run / "index.html").read_text()
    assert page.index("step 6") < page.index("step 2") and "losses.png" in page
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] and set(rows[0]["losses"]) == set(toy.Toy.terms())
    made = yaml.safe_load((run / "card.yaml").read_text())["made"]
    assert made["steps"] == 6 and made["images_per_domain"] == 12 and made["inputs"]["a"]["images"] == 12
    assert {"versions", "host", "argv", "git", "device", "start", "end"} <= set(made)
    assert "http-equiv" not in page and "Step 6 of 6" in page and "finished" in page
    assert not list(run.rglob("*.part")) and not (run / "card.unfinished.yaml").exists()


def test_what_was_found_and_what_it_will_take_is_said_first(train):
    said = train().err
    assert "a: 12 images of 16 px; b: 13 images of 16 px" in said
    assert "484 parameters" in said and "GiB" in said


@pytest.mark.slow
def test_a_dry_run_prints_a_card_that_trains_the_same(train, facekit, tmp_path):
    dry = train("--dry-run", "--steps", 3, "--lr", 0.01)
    assert dry.code == 0 and not (tmp_path / "run").exists()
    (tmp_path / "card.yaml").write_text(dry.out)
    assert train("--steps", 3, "--lr", 0.01).code == 0
    again = facekit("train", "--card", tmp_path / "card.yaml", "--out", tmp_path / "again")
    assert again.code == 0
    assert torch.equal(weights(tmp_path / "run"), weights(tmp_path / "again"))


@pytest.mark.slow
def test_another_card_in_the_same_folder_is_refused_with_the_difference(train, tmp_path):
    train()
    before = weights(tmp_path / "run")
    other = train("--lr", 0.01)
    assert other.code == 2 and "optim.lr: 0.0002 -> 0.01" in other.err and "--force" in other.err
    assert torch.equal(weights(tmp_path / "run"), before)
    assert train("--lr", 0.01, "--force").code == 0
    assert not torch.equal(weights(tmp_path / "run"), before)


@pytest.mark.slow
def test_a_card_from_before_a_field_was_there_is_the_same_run(train, tmp_path):
    train()
    path = tmp_path / "run" / "card.yaml"
    old = yaml.safe_load(path.read_text())
    del old["run"]["graphs"], old["run"]["recompute"]
    path.write_text(yaml.safe_dump(old))
    again = train()
    assert again.code == 0 and "nothing to do" in again.err


def test_flags_win_over_set_over_card_over_parent_over_recipe(train, tmp_path):
    (tmp_path / "parent.yaml").write_text("optim: {lr: 0.1, weight_decay: 0.5}\nrun: {steps: 1, ema: 0.25}\nseed: 7\n")
    (tmp_path / "card.yaml").write_text("extends: parent.yaml\noptim: {lr: 0.2}\nrun: {steps: 2}\n")
    flags = ("--set", "run.steps=3", "--set", "optim.lr=3e-1", "--steps", 4, "--dry-run", "--json")
    done = train("--card", tmp_path / "card.yaml", *flags)
    card = json.loads(done.out.splitlines()[-1])["card"]
    assert card["run"]["steps"] == 4 and card["optim"]["lr"] == 0.3 and card["optim"]["weight_decay"] == 0.5
    assert card["run"]["ema"] == 0.25 and card["seed"] == 7 and card["run"]["save_every"] == 2
    assert card["data"]["batch"] == 2  # the recipe's own


@pytest.mark.slow
def test_first_weights_come_from_a_run_a_model_or_a_mistake(train, tmp_path):
    train()
    for source in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        started = train("--init", source, "--steps", 0, out=f"from-{source.stem}")
        assert started.code == 0, started.err
    assert torch.equal(weights(tmp_path / "from-model"), weights(tmp_path / "run"))
    wide = train("--init", tmp_path / "run", "--set", "params.width=6", out="wide")
    assert wide.code == 2 and "do not fit" in wide.err
    nowhere = train("--init", "nowhere", out="nowhere")
    assert nowhere.code == 5 and "'nowhere'" in nowhere.err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--domains", "photo"], 2, "photo,anime"),
        (["--domains", "same,same"], 2, "two different names"),
        (["--set", "nonsense"], 2, "key.key=value"),
        (["--set", "data.sise=3"], 2, "did you mean 'size'"),
        (["--set", "losses.identiti=3"], 2, "did you mean 'identity'"),
        (["--set", "losses.identity.wait=3"], 2, "wait"),
        (["--set", "params.widht=3"], 2, "did you mean 'width'"),
        (["--set", "optim.phases.H.lr=1"], 2, "no phase 'H'"),
        (["--set", "run.steps=many"], 2, "run.steps"),
        (["--size", "64", "--set", "data.load_size=32"], 2, "smaller than"),
        (["--precision", "fp8"], 2, "precision"),
        (["--device", "cuda:9"], 2, "cuda:9"),
        (["--device", "abacus"], 2, "abacus"),
        (["--set", "run.steps=null", "--dry-run"], 2, "--steps N"),
        (["--card", "absent.yaml"], 2, "absent.yaml"),
        (["--data", "absent"], 3, "absent"),
        (["--a", "absent"], 2, "only one of the two"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(train, flags, code, words):
    refused = train(*flags)
    assert refused.code == code and words in refused.err
    assert "Traceback" not in refused.err


def test_an_output_that_is_a_file_is_refused(train, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out, words in (("file", "a file is where"), ("file/run", "is a file")):
        refused = train("--force", out=out)
        assert refused.code == 3 and words in refused.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_files_that_facekit_did_not_write_are_not_replaced(train, tmp_path):
    site = tmp_path / "site"
    (site / "previews").mkdir(parents=True)
    for name in ("index.html", "state.pt", "previews/holiday.png", "previews/00000002.png"):
        (site / name).write_text("mine")
    refused = train(out="site")
    assert refused.code == 3 and "index.html" in refused.err and "--force" in refused.err
    assert all(path.read_text() == "mine" for path in site.rglob("*") if path.is_file())
    assert train("--force", out="site").code == 0
    assert (site / "previews" / "holiday.png").read_text() == "mine"


@pytest.mark.parametrize("out", ["data", "data/trainA", "data/deep", "data/deep/er"])
def test_a_folder_of_training_images_is_not_a_run_folder(train, data, tmp_path, out):
    toy.fill(data / "deep" / "er", 3)
    flags = ("--a", data / "deep", "--b", data / "trainB") if "deep" in out else ()
    refused = train("--force", *flags, out=out)
    assert refused.code == 2 and "holds the training images" in refused.err
    assert not (tmp_path / out / "card.unfinished.yaml").exists()


def test_recipes_that_are_not_there_or_broken_are_refused(train, tmp_path):
    unknown = train(recipe="cyclegam")
    assert unknown.code == 2 and "did you mean 'cyclegan'" in unknown.err
    for name, text in (("syntax", "def ("), ("imports", "import nothing_like_it" + BROKEN), ("empty", "")):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        refused = train(recipe=path)
        assert refused.code == 2 and f"{name}.py" in refused.err, refused.err
    assert train(recipe=tmp_path / "absent.py").code == 2


def test_no_recipe_says_where_they_are_listed(facekit, data):
    refused = facekit("train", "--data", data)
    assert refused.code == 2 and "facekit recipes" in refused.err


def test_no_data_says_how_to_give_them(facekit):
    refused = facekit("train", toy.FILE)
    assert refused.code == 2 and "no training data" in refused.err and "--data ROOT" in refused.err


@pytest.mark.parametrize(
    ("make", "words"), [(lambda p: None, "no images in"), (lambda p: (p / "x.txt").touch(), "1 other")]
)
def test_a_domain_without_images_is_refused(train, tmp_path, make, words):
    (tmp_path / "none").mkdir()
    make(tmp_path / "none")
    refused = train("--a", tmp_path / "none", "--b", toy.fill(tmp_path / "b", 2))
    assert refused.code == 3 and words in refused.err


@pytest.mark.slow
def test_two_images_are_enough_and_limit_counts(train, tmp_path):
    small = toy.domains(tmp_path / "small", 2)
    assert train("--data", small, "--batch", 5, "--steps", 1).code == 0
    assert "a: 3 images" in train("--limit", 3, "--steps", 1, out="limited").err


@pytest.mark.slow
def test_domains_are_called_as_their_folders_or_as_asked(train, tmp_path):
    a, b = toy.fill(tmp_path / "faces", 3), toy.fill(tmp_path / "toons", 3)
    train("--a", a, "--b", b, "--steps", 1, out="folders")
    train("--a", a, "--b", b, "--steps", 1, "--domains", "photo,anime", out="asked")
    names = [yaml.safe_load((tmp_path / run / "card.yaml").read_text())["domains"] for run in ("folders", "asked")]
    assert names == [{"a": "faces", "b": "toons"}, {"a": "photo", "b": "anime"}]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_out_of_memory_names_the_knobs(train, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(loop, "train_step", fail)
    refused = train()
    assert refused.code == 7
    assert all(knob in refused.err for knob in ("data.batch", "data.size", "width", "bf16"))


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_keeps_the_last_save(train, tmp_path, monkeypatch):
    replace, saves = files.os.replace, []

    def full(source, target):
        saves.append(target)
        if sum("state.pt" in str(name) for name in saves) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    failed = train()
    assert failed.code == 3 and "disk is full" in failed.err
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 2
    monkeypatch.undo()
    assert train().code == 0


def test_a_term_that_becomes_nan_leaves_the_last_save(train, tmp_path):
    (tmp_path / "nan.py").write_text(OWN.format(tests=str(toy.FILE.parent), preset={}))
    diverged = train("--set", "params.kind=nan", recipe=tmp_path / "nan.py")
    assert diverged.code == 6 and "'judge' became nan at step 3" in diverged.err and "save is untouched" in diverged.err
    run = tmp_path / "run"
    state = torch.load(run / "state.pt", weights_only=True)
    assert state["step"] == 2
    saved = load_file(run / "model.safetensors")
    assert all(torch.equal(saved[key], state["ema"][key]) for key in saved)  # the average is what is saved
    assert not any(torch.equal(saved[key], state["nets"][key]) for key in saved)


def test_divergence_exits_6_with_term_and_step(train):
    diverged = train("--lr", "1e30", "--set", "run.precision=fp32")
    assert diverged.code == 6 and "step" in diverged.err and "optim.lr" in diverged.err


@pytest.mark.slow
@pytest.mark.parametrize("preset", [{}, {"run": {"epochs": 1}}])
def test_a_pass_over_the_data_is_a_length_too(train, tmp_path, preset):
    (tmp_path / "own.py").write_text(OWN.format(tests=str(toy.FILE.parent), preset=preset))
    assert train(*([] if preset else ["--set", "run.epochs=1"]), recipe=tmp_path / "own.py").code == 0
    assert yaml.safe_load((tmp_path / "run" / "card.yaml").read_text())["made"]["steps"] == 7  # 13 images by 2


@pytest.mark.slow
def test_a_preview_leaves_out_what_cannot_be_decoded(train, data):
    for name in ("000.png", "001.png"):
        path = data / "trainA" / name
        path.write_bytes(path.read_bytes()[:-60])
    done = train()
    assert done.code == 0 and done.err.count("left out of the previews") == 2


@pytest.mark.slow
def test_images_that_go_away_on_the_way_do_not_spoil_the_end(train, data, tmp_path, monkeypatch):
    step = loop.train_step

    def lose(*arguments):
        (data / "trainA" / "005.png").unlink(missing_ok=True)
        return step(*arguments)

    monkeypatch.setattr(loop, "train_step", lose)
    assert train().code == 0
    assert (tmp_path / "run" / "card.yaml").exists()


def test_json_tells_of_data_estimate_and_losses(train):
    events = [json.loads(line) for line in train("--json").out.splitlines()]
    found = {event["event"]: event for event in events}
    assert found["data"]["a"]["images"] == 12 and found["estimate"]["parameters"] == {"ab": 223, "d": 261}
    assert [event["step"] for event in events if event["event"] == "losses"] == [1, 2, 3, 4, 5, 6]


def test_unreadable_images_are_left_out_with_a_warning(train, data):
    (data / "trainA" / "zzz.png").write_bytes(b"no picture")
    (data / "trainA" / "notes.txt").write_text("x")
    done = train("--steps", 1)
    assert done.code == 0 and "1 unreadable, 1 other files" in done.err


def test_an_image_that_breaks_later_is_replaced_with_a_warning(train, data):
    whole = (data / "trainA" / "003.png").read_bytes()
    (data / "trainA" / "003.png").write_bytes(whole[: len(whole) * 2 // 3])
    done = train()
    assert done.code == 0 and "003.png" in done.err and "takes its place" in done.err


def test_faces_are_trained_at_the_size_they_were_cut_at(train, data, tmp_path):
    card = {"facekit": 1, "command": "align", "options": {"size": 24}}
    (data / "trainA" / "card.yaml").write_text(yaml.safe_dump(card))
    dry = train("--dry-run")
    assert yaml.safe_load(dry.out)["data"]["size"] == 24 and "data.size 24, the size of the aligned faces" in dry.err
    assert yaml.safe_load(train("--dry-run", "--size", 16).out)["data"]["size"] == 16


def test_images_that_are_enlarged_are_warned_about(train):
    assert "images of 16 px are enlarged to 64; --size 16" in train("--dry-run", "--size", 64).err
    assert "enlarged" not in train("--dry-run").err


@pytest.mark.slow
def test_previews_of_a_run_below_its_training_images_are_not_training_images(train, data, tmp_path):
    out = "data/trainA/runs/one"
    assert train("--steps", 2, out=out).code == 0
    again = train("--steps", 4, out=out)
    assert again.code == 0 and "a: 12 images" in again.err, again.err
    assert "a: 12 images" in train("--steps", 2, out="data/trainA/runs/two").err


@pytest.mark.slow
def test_threads_are_as_requested_and_may_change_when_a_run_continues(train, tmp_path):
    done = train("--threads", 1)
    assert done.code == 0 and "1 thread (as asked)" in done.err
    assert yaml.safe_load((tmp_path / "run" / "card.yaml").read_text())["run"]["threads"] == 1
    assert "nothing to do" in train().err
    assert train("--threads", 0).code == 2
