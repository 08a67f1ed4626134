"""Every command that writes can be killed at any place: the same command then ends as if nothing had happened."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from torch import nn

import toy
import toy_scores
from booru import Booru, Entry
from facekit.recipe_api import checkpoint
from facekit.sources import http_client
from facekit.storage import card
from support import npm_archive, small

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
PORTRAIT = Image.fromarray(astronaut()[20:220, 110:340])


def pictures(top: Path) -> None:
    """Three pictures, one of them in a sub-folder, and one that cannot be read."""
    toy.fill(top / "in", 2)
    toy.fill(top / "in/sub", 1, seed=1)
    (top / "in/bad.png").write_text("no image")


def copies(top: Path) -> None:
    """Sharp pictures, two of them twice and one too small."""
    (top / "in/sub").mkdir(parents=True)
    for seed in range(4):
        sharp = toy.picture(8, seed).resize((96, 96), Image.Resampling.NEAREST)
        sharp.save(top / f"in/{seed}.png")
    shutil.copy(top / "in/0.png", top / "in/sub/same.png")
    toy.picture(8, 1).resize((90, 90), Image.Resampling.NEAREST).save(top / "in/near.jpg", quality=95)
    toy.picture(40, 9).save(top / "in/small.png")


def toy_weights(path: Path) -> None:
    """Weights of the toy method; `--recipe` must name its file."""
    torch.manual_seed(0)
    values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(path, nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)


def small_weights(path: Path, name: str) -> None:
    """Untrained weights of a recipe at its smallest."""
    torch.manual_seed(0)
    values = small(name)
    made = checkpoint.registry.find(name)[0](values.params, values.data.size)
    nets = made.nets()
    kept = nn.ModuleDict({net: nets[net] for net in made.exports})
    checkpoint.save_model(path, kept, card.plain(values) | {"domains": {"a": "photo", "b": "anime"}})


def test_smooth_edges(survives):
    assert survives(pictures, "smooth-edges", "in", "out", "--workers", 1, exit=4) > 20


def test_smooth_edges_of_a_finished_folder_whose_images_changed(survives, facekit, monkeypatch):
    def prepare(top: Path) -> None:
        toy.fill(top / "in", 3)
        monkeypatch.chdir(top)
        assert facekit("smooth-edges", "in", "out", "--workers", 1, "-q").code == 0
        toy.picture(20, 7).save("in/001.png")
        toy.picture(20, 8).save("in/new.png")

    assert survives(prepare, "smooth-edges", "in", "out", "--workers", 1) > 10


def test_smooth_edges_by_force(survives, facekit, monkeypatch):
    def prepare(top: Path) -> None:
        toy.fill(top / "in", 2)
        monkeypatch.chdir(top)
        assert facekit("smooth-edges", "in", "out", "--workers", 1, "-q").code == 0

    assert survives(prepare, "smooth-edges", "in", "out", "--workers", 1, "--size", 16, "--force") > 15


def test_align(survives):
    def prepare(top: Path) -> None:
        (top / "in").mkdir()
        PORTRAIT.save(top / "in/ada.png")
        Image.new("RGB", (64, 64)).save(top / "in/black.png")

    arguments = ("in", "out", "--detector", "facekit", "--size", 64, "--workers", 1)
    assert survives(prepare, "align", *arguments, exit=4) > 10


def test_translate(survives):
    assert survives(pictures, "translate", "--no-align", "--size", 32, "in", "out", "--workers", 1, exit=4) > 20


def test_translate_one_image(survives):
    assert survives(pictures, "translate", "--no-align", "--size", 32, "in/000.png", "out.png") > 5


def test_compare(survives):
    def prepare(top: Path) -> None:
        for seed, name in enumerate(("one", "two")):
            toy.fill(top / name, 2, seed=seed)

    assert survives(prepare, "compare", "one", "two", "--page", "page") > 10


def test_score(survives):
    def prepare(top: Path) -> None:
        toy.fill(top / "in", 3)
        toy_scores.write_onnx(top / "features.onnx")

    arguments = ("in", "in", "--features", "features.onnx", "--save", "score.card.yaml", "--no-cache")
    assert survives(prepare, "score-fid", *arguments) > 2


def test_examples(survives):
    assert survives(lambda top: None, "examples", "own") > 50


def test_clean_into_a_folder(survives):
    assert survives(copies, "clean", "in", "out", "--apply", "--workers", 1) > 20


def test_clean_into_a_folder_that_holds_copies_no_longer_kept(survives, facekit, monkeypatch):
    def prepare(top: Path) -> None:
        copies(top)
        monkeypatch.chdir(top)
        assert facekit("clean", "in", "out", "--apply", "--workers", 1, "-q").code == 0
        toy.picture(8, 0).resize((192, 192), Image.Resampling.NEAREST).save("in/better.png")
        (top / "in/3.png").unlink()

    assert survives(prepare, "clean", "in", "out", "--apply", "--workers", 1) > 15


def test_clean_in_place(survives):
    assert survives(copies, "clean", "in", "--apply", "--workers", 1) > 15


def test_crawl(survives, monkeypatch):
    monkeypatch.setattr(http_client, "FIRST_PAUSE", 0.0001)
    with Booru([Entry(i) for i in range(1, 9)], page=4) as board:
        arguments = ["safebooru", "out", "--tags", "solo", "--limit", 8, "--address", board.address, "--allow-local"]
        ignore = (".sqlite", ".sqlite-wal", ".sqlite-shm")
        assert survives(lambda top: None, "crawl", *arguments, "--rate", 10_000, "--workers", 1, ignore=ignore) > 20


def test_train(survives):
    arguments = ["--data", "data", "--out", "run", "--steps", 4, "--device", "cpu"]
    ignore = ("index.html", "progress.json")  # they show times
    assert survives(lambda top: toy.domains(top / "data", 4), "train", toy.FILE, *arguments, ignore=ignore) > 20


def test_pack(survives):
    assert survives(pictures, "pack", "in", "shards") > 10


def test_pairs(survives):
    def prepare(top: Path) -> None:
        toy.fill(top / "in", 3)
        toy.picture(16, 1).save(top / "in/same.png")
        toy_weights(top / "teacher.safetensors")

    kept = [word for reason in ("no-face", "face-lost", "parts") for word in ("--keep", reason)]
    teacher = ("--teacher", "teacher.safetensors", "--recipe", toy.FILE, "--detector", "facekit", "--no-align")
    assert survives(prepare, "pairs", "in", "out", *teacher, *kept) > 20


def test_export(survives):
    arguments = ("export", "model.safetensors", "out.onnx", "--recipe", toy.FILE)
    assert survives(lambda top: toy_weights(top / "model.safetensors"), *arguments) > 2


def test_export_of_a_page(survives):
    def prepare(top: Path) -> None:
        toy_weights(top / "model.safetensors")
        npm_archive(top / "runtime.tgz")

    arguments = ("export", "model.safetensors", "page", "--web", "--runtime", "runtime.tgz", "--recipe", toy.FILE)
    assert survives(prepare, *arguments) > 20


def test_import(survives):
    def prepare(top: Path) -> None:
        small_weights(top / "ours.safetensors", "cyclegan")
        nets = checkpoint.load_model(top / "ours.safetensors").nets
        torch.save(next(iter(nets.values())).state_dict(), top / "latest_net_G_A.pth")

    arguments = ("import", "latest_net_G_A.pth", "out.safetensors", "--as", "cyclegan", "--set", "params.blocks=1")
    assert survives(prepare, *arguments) > 2


def test_sample(survives):
    def prepare(top: Path) -> None:
        small_weights(top / "net.safetensors", "stylegan2")

    assert survives(prepare, "sample", "net.safetensors", "out", "-n", 3, "--sheet", "--device", "cpu") > 10


def test_ablate(survives):
    def prepare(top: Path) -> None:
        data = toy.domains(top / "data", 4)
        toy.fill(data / "valA", 2, seed=7)
        toy.fill(data / "valB", 2, seed=8)
        toy_scores.write_onnx(top / "features.onnx")
        values = {"recipe": str(toy.FILE), "seed": 1, "data": {"root": "data"}, "run": {"steps": 2}}
        (top / "base.yaml").write_text(card.dump(values))

    variants = ("--drop", "identity", "--out", "out", "--features", "features.onnx", "--device", "cpu")
    recipe = ("--set", f"recipe={toy.FILE}")
    timed = ("index.html", "report.html", "table.md", "table.yaml", "manifest.jsonl", "progress.json")
    assert survives(prepare, "ablate", "base.yaml", *recipe, *variants, ignore=timed) > 30


def test_translate_a_film(survives, monkeypatch):
    def prepare(top: Path) -> None:
        toy.fill(top / "in", 4)
        toy_weights(top / "net.safetensors")

    arguments = ("in", "out.gif", "--video", "--no-align", "--weights", "net.safetensors", "--recipe", toy.FILE)
    assert survives(prepare, "translate", *arguments) > 5
