"""Controls of a translation: what is blended, which colours and which background stay, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage.color import rgb2lab
from skimage.data import astronaut
from torch import nn

import facekit as package
import toy
from facekit.errors import CardError
from facekit.inference.keeping import PhotoKeeper
from facekit.recipe_api import checkpoint
from facekit.recipe_api.controls import Control, read_controls
from facekit.storage import images

FACE = images.to_tensor(Image.fromarray(astronaut()[10:180, 140:310]).resize((128, 128)))[None]


@pytest.fixture(scope="module")
def parts():
    """What the shipped segmenter sees in the face."""
    model = checkpoint.load_model("segnet")
    names = model.recipe.params.classes
    return {name: model.recipe.label(model.nets, FACE)[0].numpy() == i for i, name in enumerate(names)}


def lab(x, where):
    return rgb2lab(x[0].permute(1, 2, 0).numpy() * 0.5 + 0.5)[where].mean(0)


def tinted():
    """The face in other colours: lighter, redder."""
    return torch.stack([FACE[:, 0] * 0.6 + 0.4, FACE[:, 1] * 0.6 + 0.1, FACE[:, 2] * 0.6 - 0.1], 1)


@pytest.mark.slow
def test_hair_and_skin_keep_the_photos_colour(parts):
    drawn = tinted()
    kept = PhotoKeeper(colours=True)(FACE, drawn)
    for name in ("skin", "hair"):
        before, after = (np.linalg.norm(lab(x, parts[name]) - lab(FACE, parts[name])) for x in (drawn, kept))
        assert before > 10 and after < 0.4 * before, name
    changed = (kept - drawn).abs().mean(1)[0].numpy()
    assert changed[:8, :8].max() < 0.02 < changed[parts["skin"]].mean()
    assert torch.equal(kept, PhotoKeeper(colours=True)(FACE, drawn))


def test_black_lines_stay_black_and_white_stays_white():
    drawn = tinted()
    drawn[..., 60:64, :] = -1
    kept = PhotoKeeper(colours=True)(FACE, drawn)
    assert kept[..., 61:63, :].mean() < -0.9


@pytest.mark.slow
def test_the_background_stays_and_the_head_is_painted(parts):
    kept = PhotoKeeper(background=True)(FACE, torch.full_like(FACE, -1.0))
    assert (kept - FACE).abs()[..., :8, :8].max() < 0.02
    assert (kept[0, :, parts["eyes"] | parts["nose"]] + 1).max() < 0.02


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_strength_blends_face_and_translation(strength):
    assert torch.allclose(PhotoKeeper(strength)(FACE, -FACE), FACE * (1 - 2 * strength), atol=1e-6)


def test_controls_are_checked():
    known = (Control("wet", 1, "how wet", 0, 10), Control("mood", "calm", "mood", choices=("calm", "wild")))
    assert read_controls(known, {"wet": "3", "mood": "wild", "other": None}, "m") == {"wet": 3, "mood": "wild"}
    for wrong in ({"wet": 11}, {"wet": "nan"}, {"wet": "much"}, {"mood": "odd"}, {"dry": 1}):
        with pytest.raises(CardError):
            read_controls(known, wrong, "m")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.fill(Path("in"), 1)
    torch.manual_seed(0)
    values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(Path("m.safetensors"), nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)


@pytest.mark.slow
def test_translate_takes_them_as_flags_and_notes_them_in_the_card(here, facekit):
    line = ("translate", "in", "out", "--weights", "m.safetensors", "--recipe", toy.FILE, "--no-align")
    assert facekit(*line, "--strength", 0.25, "--background", "keep").code == 0
    options = yaml.safe_load(Path("out/card.yaml").read_text())["options"]
    assert (options["strength"], options["background"], "keep" in options) == (0.25, "keep", False)
    assert facekit(*line, "--strength", 0.5).code == 2
    assert "no control swap_at" in facekit(*line, "--swap-at", 8, "--force").err
    assert facekit(*line, "--control", "wet=1").code == 2
    assert facekit(*line, "--control", "wet").code == 2
    assert facekit(*line, "--mask", "--keep", "colours").code == 2
    half = package.load("m.safetensors", recipe=str(toy.FILE), strength=0.0)
    face = Image.open("in/000.png")
    assert np.array_equal(np.asarray(half(face, align=False)), np.asarray(face))
    assert [control.name for control in half.controls] == ["strength", "keep", "background"]
