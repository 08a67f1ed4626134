"""Photos through StyleGAN2: inversion, encoder, what is drawn between two generators; projected discriminators."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import toy
from facekit.errors import CardError
from facekit.nets.stylegan2 import Generator
from facekit.nets.stylegan2_blend import between, swap_layers
from facekit.recipe_api import checkpoint
from facekit.recipe_api.base import Progress
from facekit.recipes.stylegan2_encoder import StyleGAN2Encoder
from facekit.recipes.stylegan2_projected import ProjectedStyleGAN2
from facekit.storage.card import TrainCard
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

SMALL = {"style_width": 8, "mapping_layers": 2, "multiplier": 0.01, "width": 8}
FEW = ("--control", "inversion_steps=2")


def generators():
    """A generator and one that was fine-tuned from it."""
    torch.manual_seed(0)
    first = Generator(16, 8, 2, 0.01, 8)
    second = Generator(16, 8, 2, 0.01, 8)
    second.load_state_dict(first.state_dict())
    for parameter in second.layers.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return first, second


def started(kind, size=16, losses=None, **params):
    values = {"recipe": "stylegan2", "params": {**SMALL, **params}, "data": {"size": size}, "optim": {"lr": 0.01}}
    chosen = TrainCard.model_validate(values)
    return build_state(kind({**SMALL, **params}, size), weighted_terms(kind, losses or {}), chosen, torch.device("cpu"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder: a picture in in/, base.safetensors, and tuned.safetensors of a run called toons."""
    monkeypatch.chdir(tmp_path)
    toy.fill(Path("in"), 1)
    first, second = generators()
    values = {"params": SMALL, "data": {"size": 16}, "domains": {"a": "toons", "b": "b"}}
    tuned = nn.ModuleDict({"g": second, "source": first})
    checkpoint.save_model(Path("tuned.safetensors"), tuned, {"recipe": "stylegan2-structure", **values})
    checkpoint.save_model(Path("base.safetensors"), nn.ModuleDict({"g": first}), {"recipe": "stylegan2", **values})


def rows(folder):
    return [json.loads(line) for line in (Path(folder) / "manifest.jsonl").read_text().splitlines()]


def pixels(folder):
    return np.stack([np.asarray(Image.open(path), float) for path in sorted(Path(folder).glob("*.png"))])


@pytest.mark.slow
def test_photos_are_found_and_drawn(here, facekit):
    line = ("translate", "in", "--weights", "tuned.safetensors", "--no-align")
    near = facekit("translate", "in", "out", *line[2:], "--to", "toons", "--control", "inversion_steps=15")
    assert near.code == 0, near.err
    assert facekit("translate", "in", "far", *line[2:], *FEW).code == 0
    for close, early in zip(rows("out"), rows("far"), strict=True):
        assert close["distance"] < early["distance"] and -1 <= close["identity"] <= 1
    assert facekit("translate", "in", "again", *line[2:], *FEW).code == 0
    assert np.array_equal(pixels("far"), pixels("again"))
    assert facekit("translate", "in", "source", *line[2:], *FEW, "--strength", 0).code == 0
    assert facekit("translate", "in", "half", *line[2:], *FEW, "--strength", 0.5).code == 0
    assert facekit("translate", "in", "fine", *line[2:], *FEW, "--swap-at", 16).code == 0
    apart = {name: np.abs(pixels(name) - pixels("source")).mean() for name in ("half", "fine", "far")}
    assert 0 < apart["fine"] < apart["far"] and 0 < apart["half"] < apart["far"]
    done = facekit("translate", "in", "no", *line[2:], "--swap-at", 7)
    assert done.code == 2 and "4, 8, 16" in done.err
    assert facekit("translate", "in", "no", "--weights", "base.safetensors", "--no-align").code == 2


def test_weights_lie_between_those_of_two_generators():
    first, second = generators()
    z = torch.randn(1, 8)
    drawn = [g.synthesis(g.mapping(z), first.noises) for g in (first, second)]
    for share in (0, 1):
        made = between(first, second, share)
        assert torch.allclose(made.synthesis(made.mapping(z), first.noises), drawn[share], atol=1e-6)
    swapped = swap_layers(between(first, second, 0), second, 8)
    low, mixed = (g.rgb(g.styles(first.mapping(z)), first.noises) for g in (first, swapped))
    assert torch.equal(low[0], mixed[0]) and not torch.equal(low[1], mixed[1])
    with pytest.raises(CardError):
        between(first, Generator(16, 8, 2, 0.02, 16), 0.5)


@pytest.mark.slow
def test_an_encoder_learns_latents_and_its_run_translates(here, facekit):
    toy.fill(Path("several"), 3)
    small = ("--steps", 1, "--batch", 1, "--set", "params.encoder_width=8")
    line = ("train", "stylegan2-encoder", "--a", "several", *small)
    assert facekit(*line, "--out", "alone").code == 2
    assert facekit(*line, "--out", "finder", "--init", "tuned.safetensors").code == 0
    assert facekit(*line, "--out", "again", "--init", "base.safetensors").code == 0
    finder, again = checkpoint.load_model("finder").nets, checkpoint.load_model("again").nets
    first, second = generators()
    assert torch.equal(finder["source"].const, first.const) and torch.equal(
        finder["g"].layers[1].conv.weight, second.layers[1].conv.weight
    )
    assert torch.equal(again["source"].layers[1].conv.weight, again["g"].layers[1].conv.weight)
    assert facekit("translate", "in", "out", "--weights", "finder", "--no-align", *FEW).code == 0
    assert set(rows("out")[0]) >= {"distance", "identity"}


@pytest.mark.slow
def test_the_encoder_comes_nearer_to_the_faces_of_its_generator():
    state = started(StyleGAN2Encoder, losses={"perceptual": 0, "identity": 0}, encoder_width=8)
    state.recipe.start(state.nets, None)
    source = state.nets["source"]
    torch.manual_seed(1)
    with torch.no_grad():
        faces = source.synthesis(source.mapping(torch.randn(4, 8)) + torch.randn(4, 8), source.noises)
    losses = [train_step(state, [{"a": faces}], Progress(step + 100, 1000)) for step in range(30)]
    assert float(losses[-1]["match"]) < 0.7 * float(losses[0]["match"])


def test_the_losses_of_the_encoder_are_those_of_the_page():
    state = started(StyleGAN2Encoder, encoder_width=8)
    state.recipe.start(state.nets, None)
    state.nets["encoder"].layers.weight.data.normal_()
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    scene = state.recipe.Scene(state.recipe, state.nets, {"a": x}, 0, helpers=state.helpers)
    base, apart = state.nets["encoder"].parts(x)
    drawn = state.nets["source"].synthesis(base[:, None] + apart, state.nets["source"].noises)
    assert torch.allclose(scene.match(), F.mse_loss(drawn, x))
    assert torch.allclose(scene.delta(), apart.square().sum(2).mean())
    one, other = state.helpers["look"](x), state.helpers["look"](drawn)
    assert torch.allclose(scene.identity(), 1 - F.cosine_similarity(one, other).mean(), atol=1e-5)


@pytest.mark.slow
def test_projected_heads_judge_and_the_generator_learns(random_helpers):
    state = started(ProjectedStyleGAN2, 64, head_width=8)
    before = {name: value.clone() for name, value in state.nets.named_parameters()}
    batch = [{"a": torch.rand(4, 3, 64, 64) * 2 - 1}]
    losses = train_step(state, batch, Progress(0, 2))
    assert set(losses) >= {"adversarial", "adversarial_parts", "judge", "judge_parts"} and "r1" not in losses
    moved = {
        name.split(".")[0] for name, value in state.nets.named_parameters() if not torch.equal(before[name], value)
    }
    assert moved == {"g", "whole_heads", "part_heads"}
    torch.manual_seed(0)
    scene = state.recipe.Scene(state.recipe, state.nets, batch[0], 0, helpers=state.helpers)
    heads = [head(scene.fake_parts[name]) for name, head in state.nets["part_heads"].items()]
    assert torch.allclose(scene.adversarial_parts(), -sum(x.mean() for x in heads) / 2, atol=1e-2)
