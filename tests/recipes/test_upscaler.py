"""The upscaler: it begins as interpolation, its training input is soft, and a short run beats interpolation."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from facekit.inference.enlarger import Enlarger
from facekit.nets.upscaler import Upscaler
from facekit.ops import augment
from facekit.recipe_api.base import Progress
from facekit.recipes.upscaler import UpscalerRecipe, enlarge
from facekit.storage import images
from facekit.storage.card import TrainCard
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms


def test_it_begins_as_the_identity_and_has_the_size_that_its_card_says():
    x = torch.rand(2, 3, 20, 34) * 2 - 1
    assert torch.equal(Upscaler(8, 1)(x), x)
    assert 2 * sum(p.numel() for p in Upscaler().parameters()) / 1e6 == pytest.approx(0.16, rel=0.05)


def test_each_image_has_its_own_blur():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    rough = [float((y[:, 1:] - y[:, :-1]).abs().mean()) for y in augment.blur(x, 3.0)]
    assert max(rough) < float((x[:, :, 1:] - x[:, :, :-1]).abs().mean()) and max(rough) > 1.2 * min(rough)
    assert torch.allclose(augment.blur(torch.ones(1, 3, 16, 16), 3.0), torch.ones(1, 3, 16, 16), atol=1e-5)


def test_a_gaussian_has_the_sigma_that_was_drawn(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.ones(*shape))
    point = torch.zeros(1, 1, 33, 33)
    point[..., 16, 16] = 1
    (spread,) = augment.blur(point, 2.0)[0]
    away = torch.arange(33) - 16.0
    assert spread.sum() == pytest.approx(1, abs=1e-3)
    assert (spread.sum(0) * away.square()).sum().sqrt() == pytest.approx(2, rel=0.02)


def test_the_input_is_the_drawing_from_half_its_resolution():
    torch.manual_seed(0)
    recipe = UpscalerRecipe({"blur": 0.0, "noise": 0.0}, 32)
    drawing = torch.rand(2, 3, 32, 32) * 2 - 1
    scene = recipe.Scene(recipe, torch.nn.ModuleDict(), {"a": drawing}, 0)
    half = F.interpolate(drawing, scale_factor=0.5, mode="bicubic", antialias=True)
    assert torch.allclose(scene.low, enlarge(half), atol=1e-5)
    noisy = UpscalerRecipe({"blur": 0.0, "noise": 0.5}, 32)
    assert not torch.allclose(noisy.Scene(noisy, None, {"a": drawing}, 0).low, scene.low, atol=0.05)


def strokes(folder, count, size=96):
    """Draw pictures of hard-edged shapes, smoothly."""
    folder.mkdir(parents=True)
    chance = torch.Generator().manual_seed(0)
    for number in range(count):
        picture = Image.new("RGB", (4 * size, 4 * size), "white")
        pen = ImageDraw.Draw(picture)
        for x, y, w, h, tone in torch.randint(0, 4 * size, (12, 5), generator=chance).tolist():
            fill = (tone // 4, 255 - tone // 2, 60)
            pen.ellipse([x, y, x + w // 2 + 16, y + h // 2 + 16], fill=fill, outline="black", width=6)
        picture.resize((size, size), Image.Resampling.BOX).save(folder / f"{number:02}.png")


def drawings(folder):
    return sorted((folder / "drawings").glob("*.png"))


@pytest.mark.slow
def test_a_short_run_gives_back_edges_that_interpolation_loses(tmp_path, facekit):
    strokes(tmp_path / "drawings", 8)
    plain = [f"--set=losses.{name}=0" for name in ("perceptual", "adversarial", "judge")]
    small = ["--set=params.width=12", "--set=params.blocks=1", "--set=params.noise=0", "--set=params.blur=0"]
    line = ["train", "upscaler", "--a", tmp_path / "drawings", "--out", tmp_path / "run", "--size", 48]
    assert facekit(*line, "--steps", 250, "--batch", 8, "--lr", "0.003", "--set=run.ema=0.9", *small, *plain).code == 0
    halves = [(path, images.read(path).resize((48, 48), Image.Resampling.BICUBIC)) for path in drawings(tmp_path)]

    def error(enlarger):
        pairs = [
            (images.to_tensor(enlarger(images.to_tensor(half), 96)), images.to_tensor(images.read(path)))
            for path, half in halves
        ]
        return sum(float((x - y).abs().mean()) for x, y in pairs)

    assert error(Enlarger(str(tmp_path / "run"))) < 0.75 * error(Enlarger("none"))


def test_it_translates_nothing_by_itself(tmp_path, facekit):
    strokes(tmp_path / "drawings", 1)
    done = facekit("translate", tmp_path / "drawings", tmp_path / "out", "--weights", "upscaler", "--no-align")
    assert (done.code, "translates nothing" in done.err) == (2, True)


def test_every_loss_trains():
    params = {"width": 4, "blocks": 1, "d_width": 8}
    values = TrainCard.model_validate({"recipe": "upscaler", "params": params, "data": {"size": 32}})
    losses = {"perceptual": 0.0}
    terms = weighted_terms(UpscalerRecipe, losses)
    state = build_state(UpscalerRecipe(params, 32), terms, values, torch.device("cpu"))
    found = train_step(state, [{"a": torch.rand(2, 3, 32, 32) * 2 - 1}], Progress(1, 4))
    assert all(torch.isfinite(value) for value in found.values())
    assert {"match", "adversarial", "judge"} <= set(found)


def test_a_second_folder_is_refused(tmp_path, facekit):
    strokes(tmp_path / "drawings", 2)
    done = facekit("train", "upscaler", "--a", tmp_path / "drawings", "--b", tmp_path / "drawings", "--size", 32)
    assert (done.code, "one folder" in done.err) == (2, True)
