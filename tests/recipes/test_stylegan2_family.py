"""StyleGAN2, its fine-tuning and JoJoGAN: losses against formulas written out, and runs from one to the next."""

import argparse
import json
import os
import pickle

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from skimage import data

import clips
import toy
from facekit.recipe_api.base import Progress
from facekit.recipes.jojogan import JoJoGAN, mixed_layers
from facekit.recipes.stylegan2 import StyleGAN2
from facekit.recipes.stylegan2_freeze import StyleGAN2Freeze
from facekit.storage.card import TrainCard
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

SMALL = {"style_width": 8, "mapping_layers": 2, "multiplier": 0.01, "width": 8}
FLAGS = [f"--set=params.{key}={value}" for key, value in SMALL.items()]


def started(kind=StyleGAN2, losses=None, **params):
    params = {**SMALL, **params}
    values = TrainCard.model_validate(
        {"recipe": "stylegan2", "params": params, "data": {"size": 16}, "optim": {"betas": [0, 0.99]}}
    )
    return build_state(kind(params, 16), weighted_terms(kind, losses or {}), values, torch.device("cpu"))


def batch(count=4):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1


def scene(state, x):
    return state.recipe.Scene(state.recipe, state.nets, {"a": x}, 0)


def test_the_losses_are_those_of_the_paper():
    state = started()
    x = batch()
    torch.manual_seed(1)
    one = scene(state, x)
    d, fake = state.nets["d"], one.fake.detach()
    assert torch.allclose(one.adversarial(), F.softplus(-d(fake)).mean())
    assert torch.allclose(one.judge(), F.softplus(-d(x)).mean() + F.softplus(d(fake)).mean())
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(d(leaf).sum(), leaf)
    assert torch.allclose(one.r1(), slope.square().sum((1, 2, 3)).mean())


def test_the_path_length_is_measured_from_its_running_mean():
    state = started(mixing=0.0)
    g, path = state.nets["g"], state.nets["path"]
    path.mean.fill_(0.5)
    torch.manual_seed(2)
    found = scene(state, batch()).path_length()
    torch.manual_seed(2)
    z = torch.randn(2, 2, 8)
    torch.randint(1, g.latents, ())
    torch.rand(())
    w = g.styles(g.mapping(z[0])).detach().requires_grad_()
    image = g.synthesis(w)
    (slope,) = torch.autograd.grad((image * torch.randn_like(image) / 16).sum(), w)
    lengths = slope.square().sum(2).mean(1).sqrt()
    mean = 0.5 + 0.01 * (lengths.mean() - 0.5)
    assert torch.allclose(found, (lengths - mean).square().mean(), rtol=1e-4)
    assert torch.allclose(path.mean, mean)


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_styles_are_mixed_with_the_given_probability(mixing):
    state = started(mixing=mixing)
    torch.manual_seed(0)
    styles = scene(state, batch()).styles
    alike = torch.stack([torch.equal(styles[:, 0], styles[:, i]) * torch.ones(()) for i in range(styles.shape[1])])
    assert alike[0] == 1 and (alike[-1] == 0) == bool(mixing)


def test_p_adapts_and_is_saved():
    state = started(augment="ada", ada_images=100)
    train_step(state, [{"a": batch()}], Progress(0, 2))
    assert float(state.nets["ada"].p) in (0.0, pytest.approx(0.04))
    assert any(name.endswith("ada.p") for name in state.snapshot()["nets"])


def test_the_structure_loss_is_zero_at_the_start_and_grows():
    state = started(StyleGAN2Freeze, {"structure": 1.0}, structure_levels=2)
    state.recipe.start(state.nets, None)
    first = scene(state, batch()).structure()
    for p in state.nets["g"].layers.parameters():
        p.data.add_(0.1)
    assert first.item() == pytest.approx(0, abs=1e-10)
    assert scene(state, batch()).structure().item() > 1e-4


def test_jojogan_mixes_the_upper_layers_only():
    state = started(JoJoGAN, references=2)
    state.nets["references"].styles.normal_()
    one = state.recipe.Scene(state.recipe, state.nets, {"a": batch(2), "number": torch.tensor([1, 0])}, 0)
    own = state.nets["references"].styles[[1, 0]]
    kept = [i for i in range(6) if i not in mixed_layers(6, False)]
    assert kept and torch.equal(one.styles[:, kept], own[:, kept])
    assert not torch.equal(one.styles, own)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from typer.testing import CliRunner

    from facekit.cli import app

    root = tmp_path_factory.mktemp("stylegan2")
    toy.fill(root / "faces", 8)
    toy.fill(root / "references", 2, seed=3)
    line = ["train", "stylegan2", "--a", str(root / "faces"), "--out", str(root / "base"), "--steps", "2"]
    done = CliRunner().invoke(app, [*line, "--size", "16", "--batch", "4", *FLAGS])
    assert done.exit_code == 0, done.stderr
    return root


@pytest.mark.slow
def test_a_fine_tuned_run_starts_from_its_base_and_has_its_size_and_widths(base, facekit):
    line = ("train", "stylegan2-structure", "--a", base / "references", "--steps", 2, "--batch", 2)
    assert facekit(*line, "--out", base / "alone").code == 2
    assert facekit(*line, "--out", base / "tuned", "--init", base / "base").code == 0
    drawn = base / "both"
    assert facekit("sample", base / "base", drawn, "-n", 2, "--with", base / "tuned", "--sheet").code == 0
    assert (base / "both-sheet.png").exists()
    assert {path.name for path in (drawn / "tuned").iterdir()} >= {"seed000000.png", "seed000001.png"}


@pytest.mark.slow
def test_a_size_other_than_that_of_the_base_is_refused(base, facekit):
    line = ("train", "stylegan2-structure", "--a", base / "references", "--init", base / "base")
    done = facekit(*line, "--size", 32)
    assert (done.code, "16 px" in done.err, "--size 16" in done.err) == (2, True, True)


@pytest.mark.slow
def test_jojogan_trains_from_two_drawings(tmp_path, base, facekit):
    for name, face in (("left", clips.PORTRAIT), ("right", ImageOps.mirror(clips.PORTRAIT))):
        (tmp_path / "references").mkdir(exist_ok=True)
        face.save(tmp_path / "references" / f"{name}.png")
    line = ("train", "jojogan", "--a", tmp_path / "references", "--batch", 2, "--steps", 2)
    inverting = ("--set", "params.inversion_steps=2", "--init", base / "base")
    assert facekit(*line, *inverting, "--out", base / "style").code == 0
    assert facekit("sample", base / "style", base / "styled", "-n", 1).code == 0


@pytest.mark.slow
def test_a_reference_without_a_face_is_refused(tmp_path, base, facekit):
    (tmp_path / "two").mkdir()
    clips.PORTRAIT.save(tmp_path / "two" / "face.png")
    Image.fromarray(data.brick()).convert("RGB").save(tmp_path / "two" / "wall.png")
    line = ("train", "jojogan", "--a", tmp_path / "two", "--batch", 2, "--steps", 0, "--init", base / "base")
    line += ("--set", "params.inversion_steps=1", "--out", tmp_path / "style")
    done = facekit(*line)
    assert (done.code, "wall.png: no face found" in done.err, "face.png:" in done.err) == (3, True, False)
    assert "facekit align" in done.err and not (tmp_path / "style").exists()
    assert facekit(*line, "--set", "params.find_face=false").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["stylegan2", "stylegan2-projected", "stylegan2-freeze-g", "stylegan2-structure"])
def test_one_image_is_refused_and_jojogan_named(tmp_path, base, facekit, recipe):
    toy.fill(tmp_path / "one", 1)
    init = ("--init", base / "base") if "freeze" in recipe or "structure" in recipe else ()
    size = 64 if "projected" in recipe else 16
    done = facekit("train", recipe, "--a", tmp_path / "one", "--size", size, *init, "--out", tmp_path / "run")
    assert (done.code, "one image" in done.err, "facekit train jojogan" in done.err) == (3, True, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_too_many_references_are_refused(tmp_path, base, facekit):
    toy.fill(tmp_path / "many", 11)
    done = facekit("train", "jojogan", "--a", tmp_path / "many", "--size", 16, *FLAGS, "--init", base / "base")
    assert (done.code, "1 to 10" in done.err) == (3, True)


@pytest.mark.slow
def test_a_second_folder_is_refused(base, facekit):
    done = facekit("train", "stylegan2", "--a", base / "faces", "--b", base / "faces", "--size", 16, *FLAGS)
    assert (done.code, "--b" in done.err) == (2, True)


@pytest.mark.slow
def test_pictures_depend_on_their_seed_alone_and_are_drawn_once(base, facekit):
    few, many = base / "few", base / "many"
    assert facekit("sample", base / "base", few, "-n", 1, "--seed", 3).code == 0
    assert facekit("sample", base / "base", many, "-n", 4).code == 0
    assert (few / "seed000003.png").read_bytes() == (many / "seed000003.png").read_bytes()
    rows = [json.loads(line) for line in (many / "manifest.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [0, 1, 2, 3]
    assert len(rows[0]["z"]) == 8
    (many / "seed000002.png").unlink()
    stamp = (many / "seed000001.png").stat().st_mtime_ns
    assert facekit("sample", base / "base", many, "-n", 4).code == 0
    assert (many / "seed000002.png").exists() and (many / "seed000001.png").stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_layers_are_swapped_from_a_size_on(base, facekit):
    line = ("sample", base / "base", base / "swapped", "-n", 1)
    assert facekit(*line, "--with", base / "base", "--swap-at", 7).code == 2
    assert facekit(*line, "--swap-at", 8).code == 2
    assert facekit(*line, "--mix-at", 8, "--out-of-range").code == 2
    assert facekit("sample", base / "base", base / "way", "-n", 2, "--between", 2).code == 0
    assert len(list((base / "way").glob("*.png"))) == 4
    assert facekit("sample", base / "base", base / "mixed", "-n", 2, "--mix-at", 8).code == 0


@pytest.mark.slow
def test_layers_of_a_generator_that_was_trained_apart_are_refused(base, facekit, tmp_path):
    line = ("train", "stylegan2", "--a", base / "faces", "--size", 16, "--batch", 4, "--steps", 0, *FLAGS)
    assert facekit(*line, "--seed", 9, "--out", tmp_path / "other").code == 0
    two = ("sample", base / "base", tmp_path / "out", "-n", 1, "--with", tmp_path / "other")
    done = facekit(*two, "--swap-at", 8)
    assert (done.code, "trained apart" in done.err, "fine-tuned from" in done.err) == (2, True, True)
    assert not (tmp_path / "out").exists()
    done = facekit(*two)
    assert (done.code, "trained apart" in done.err) == (0, True)
    assert "trained apart" not in facekit(*two[:-1], base / "tuned", "--force").err


@pytest.mark.slow
def test_weights_that_translate_do_not_draw(base, facekit):
    done = facekit("sample", "anime", base / "no")
    assert (done.code, "translates" in done.err) == (2, True)


@pytest.mark.slow
def test_a_public_checkpoint_starts_a_run_and_another_file_does_not(base, facekit, tmp_path):
    from support import public_stylegan2 as public

    state = torch.load(base / "base" / "state.pt", weights_only=True)["nets"]
    made = StyleGAN2(SMALL, 16).nets()
    for name in "gd":
        made[name].load_state_dict({k[2:]: v for k, v in state.items() if k.startswith(f"{name}.")})
    found = public(made["g"], made["d"])
    torch.save(found, tmp_path / "550000.pt")
    torch.save({**found, "args": argparse.Namespace(size=16)}, tmp_path / "own.pt")  # as its train.py saves them
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    line = ("train", "stylegan2", "--a", base / "faces", "--size", 16, "--batch", 4, "--steps", 0, *FLAGS)
    assert facekit(*line, "--out", tmp_path / "run", "--init", tmp_path / "550000.pt").code == 0
    again = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["nets"]
    assert all(torch.equal(again[k], state[k]) for k in state if k[:2] in ("g.", "d."))
    assert facekit(*line, "--out", tmp_path / "own", "--init", tmp_path / "own.pt").code == 0
    own = torch.load(tmp_path / "own" / "state.pt", weights_only=True)["nets"]
    assert all(torch.equal(own[k], again[k]) for k in again if k[:2] in ("g.", "d."))
    done = facekit(*line, "--out", tmp_path / "no", "--init", tmp_path / "other.pt")
    assert (done.code, "layout" in done.err) == (2, True)


class Evil:
    """What a pickle can do."""

    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "recipe"),
    [
        *((file, "stylegan2") for file in ("zip.pt", "pickle.pt", "network.pkl", "cut.pt", "text.pt")),
        ("zip.pt", "stylegan2-freeze-g"),
        ("network.pkl", "jojogan"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_and_never_run(base, facekit, tmp_path, monkeypatch, recipe, file):
    monkeypatch.chdir(tmp_path)
    torch.save({"g_ema": Evil()}, "zip.pt")
    for name in ("pickle.pt", "network.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps({"g_ema": Evil()}))
    (tmp_path / "cut.pt").write_bytes((base / "base" / "state.pt").read_bytes()[:2000])
    (tmp_path / "text.pt").write_text("weights")
    line = (
        "train",
        recipe,
        "--a",
        base / "faces",
        "--size",
        16,
        "--steps",
        0,
        *FLAGS,
        "--set",
        "params.find_face=false",
    )
    done = facekit(*(line if recipe == "jojogan" else line[:-2]), "--init", file, "--out", "run")
    assert (done.code, file in done.err, "next:" in done.err, "Traceback" in done.err) == (5, True, True, False)
    assert not (tmp_path / "evil").exists()
    assert facekit("sample", file, "out", "-n", 1).code == 5
    assert not (tmp_path / "evil").exists() and not (tmp_path / "out").exists()
