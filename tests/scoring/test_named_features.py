"""Features by name: facekit's own net, DINOv2 and CLIP, from files of the same layout made here."""

import numpy as np
import pytest
import torch
from torch import nn

import facekit as package
import toy
import toy_scores
from facekit.errors import CardError, MissingError
from facekit.recipe_api import checkpoint
from facekit.recipes.features import Features
from facekit.scoring import extractors, mmd
from facekit.storage import card


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))


class Tokens(nn.Module):
    """Laid out as DINOv2: a class token and a token per patch of 14 px, [n, 1 + patches, 384]."""

    def forward(self, x):
        patches = nn.functional.avg_pool2d(x, 14).flatten(2).transpose(1, 2).repeat(1, 1, 128)
        return torch.cat([patches.mean(1, keepdim=True), patches], 1)


class Embedding(nn.Module):
    """Laid out as CLIP's image encoder with its projection: [n, 768], of any length."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 16).flatten(1)


def write(path, net):
    torch.jit.script(net).save(str(path))
    return path


def own_weights(path, size=32):
    torch.manual_seed(0)
    made = Features({"width": 16, "head": 8}, size)
    values = {"recipe": "features", "params": made.params.model_dump(mode="json"), "data": {"size": size}}
    nets = nn.ModuleDict({name: made.nets()[name] for name in made.exports})
    checkpoint.save_model(path, nets, card.plain(card.TrainCard.model_validate(values)))
    return path


def test_dinov2_takes_224_px_and_the_class_token(tmp_path):
    found = extractors.load(f"dinov2:{write(tmp_path / 'dino.pt', Tokens())}")
    assert (found.unit, found.dim, found.edge, found.cmmd) == ("dinov2", 384, 224, False)
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    row = found.run(np.full((1, 3, 224, 224), 200, np.float32))[0]
    assert row[:3] == pytest.approx((200 - mean) / deviation, rel=1e-4)


def test_cmmd_takes_336_px_and_embeddings_of_unit_length(tmp_path):
    found = extractors.load(f"cmmd:{write(tmp_path / 'clip.pt', Embedding())}")
    assert (found.unit, found.dim, found.edge, found.cmmd) == ("clip", 768, 336, True)
    rows = found.run(np.random.default_rng(0).uniform(0, 255, (2, 3, 336, 336)).astype(np.float32))
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1], rel=1e-5)


def test_the_score_has_cmmd_beside_kid(tmp_path):
    toy.fill(tmp_path / "out", 6, seed=1)
    toy.fill(tmp_path / "ref", 6, seed=2)
    net = f"cmmd:{write(tmp_path / 'clip.pt', Embedding())}"
    found = package.score_fid("out", "ref", features=net, bootstrap=20)
    extractor = extractors.load(net)
    from facekit.scoring.features import extract

    assert found["CMMD"] == pytest.approx(mmd.cmmd(extract("out", extractor), extract("ref", extractor))["CMMD"])
    assert found["CMMD low"] < found["CMMD high"] and "KID-clip" in found
    assert package.score_fid("ref", "ref", features=net)["CMMD"] == pytest.approx(0, abs=1e-6)


def test_named_features_are_of_onnx_files_too_at_the_size_that_these_say(tmp_path):
    path = toy_scores.write_onnx(tmp_path / "net.onnx")
    assert extractors.load(f"dinov2:{path}").edge == 32
    with pytest.raises(CardError, match="scales pixels itself"):
        extractors.load(f"dinov2:{path}", "unit")
    with pytest.raises(MissingError, match="gone") as error:
        extractors.load("cmmd:gone.onnx")
    assert "CLIP ViT-L/14" in error.value.hint


def test_weights_of_the_recipe_features_make_features_from_a_file_or_a_run(tmp_path):
    (tmp_path / "run").mkdir()
    path = own_weights(tmp_path / "run" / "model.safetensors")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 3, 32, 32)).astype(np.float32)
    model = checkpoint.load_model(path)
    with torch.no_grad():
        expected = model.recipe.describe(model.nets, torch.from_numpy(pixels) / 127.5 - 1).numpy()
    for spec in (path, tmp_path / "run"):
        found = extractors.load(spec)
        assert (found.unit, found.dim, found.edge) == ("144", 144, 32)
        assert found.run(pixels) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(CardError, match="says itself"):
        extractors.load(path, edge=64)


def test_weights_of_another_recipe_and_folders_without_weights_are_refused(tmp_path):
    with pytest.raises(CardError, match="no features"):
        extractors.load(checkpoint.SHIPPED / "facefeat.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match="empty"):
        extractors.load(tmp_path / "empty")
