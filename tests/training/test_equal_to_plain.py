"""facekit's training step gives the losses of the same step in plain PyTorch (`benchmarks/plain_steps.py`).

Both start from the same weights. Held constant on both sides: the power iteration of spectral normalisation, which runs
once per forward pass (the plain step has more of them); image pools (empty); the random points of StarGAN's penalty
(same seed).
"""

import copy

import pytest
import torch
from plain_steps import STEPS
from safetensors.torch import save_file

from facekit.nets.spectral_norm import SpectralConv2d
from facekit.nets.vgg import VGG
from facekit.ops import cpu_conv, winograd
from facekit.recipe_api import registry
from facekit.recipe_api.base import Progress
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

RUN = 1000  # steps: the learning rate is flat over all that is trained here
SMALL = {"width": 4, "blocks": 1, "d_width": 4}


METHODS = {  # parameters, px, images, steps
    "ugatit-light": ({}, 96, 1, 6),
    "ugatit": ({}, 96, 1, 6),
    "cyclegan": ({"pool": 0}, 32, 2, 8),
    "stargan": ({"labels": ["calm", "glad", "sad"], "d_layers": 3}, 32, 3, 10),  # two of the generator
    "cartoongan": ({"pool": 0, "warmup": 0, "layer": "conv2_1"}, 32, 2, 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_losses_are_those_of_the_plain_step(name, tmp_path):
    compare(name, {}, "fp32", 1e-5, METHODS[name][-1], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_in_64_bits_they_are_so_to_ten_digits(name, tmp_path):
    compare(name, {}, "fp64", 1e-10, 5, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("heavy", "way"), [(10**9, "conv2d"), (2**12, "by_matrix_product")])
@pytest.mark.parametrize(
    ("name", "precision", "tolerance", "steps"),
    [
        ("cyclegan", "fp32", 1e-5, 2),  # at this width rounding grows sooner: PyTorch 2.6 is 1.3e-5 off at the third
        ("stargan", "fp32", 1e-5, 4),
        ("cyclegan", "fp64", 1e-10, 6),
        ("stargan", "fp64", 1e-10, 6),
    ],
)
def test_so_they_are_with_fewer_products(name, precision, tolerance, steps, heavy, way, tmp_path, monkeypatch):
    monkeypatch.setattr(winograd, "DTYPE", torch.float64 if precision == "fp64" else torch.float32)
    monkeypatch.setattr(winograd, "TILES", 1)
    monkeypatch.setattr(winograd, "wide", lambda: False)
    monkeypatch.setattr(cpu_conv, "MANY_WEIGHTS", heavy)
    home, used = winograd if way == "conv2d" else cpu_conv, []
    real = getattr(home, way)
    monkeypatch.setattr(home, way, lambda *a: used.append(way) or real(*a))
    compare(name, {"width": 32}, precision, tolerance, steps, tmp_path)
    assert used


def compare(name, own, precision, tolerance, steps, tmp_path):
    """Check the losses of a method, with some parameters of its `own`, step by step."""
    params, size, count, _ = METHODS[name]
    kind, preset = registry.find(name)
    optim = {**kind.defaults["optim"], "lr": 1e-5}  # higher rates blow rounding up sooner
    params = {**SMALL, **params, **own}
    if name == "cartoongan":
        torch.manual_seed(1)
        save_file(VGG("vgg19", ("conv2_1",)).state_dict(), tmp_path / "vgg.safetensors")
        params = {**params, "vgg": str(tmp_path / "vgg.safetensors")}
    values = {"recipe": name, "data": {"size": size}, "params": params, "run": {"precision": precision}}
    made = card.TrainCard.model_validate(card.merge({"optim": optim}, preset, values))
    learner = build_state(kind(made.params, size), weighted_terms(kind, {}), made, torch.device("cpu"))
    for module in learner.nets.modules():
        if isinstance(module, SpectralConv2d):
            module.eval()
    nets, helpers = (
        copy.deepcopy(x).to(memory_format=torch.contiguous_format) for x in (learner.nets, learner.helpers)
    )
    nets.requires_grad_(True)
    step = STEPS[name](nets, helpers, optim)
    blank = learner.recipe.blank(count, size)
    for number in range(steps):
        images = {k: torch.rand_like(v) * 2 - 1 if v.dim() == 4 else v for k, v in blank.items()}
        batch = {k: v.to(next(nets.parameters()).dtype) for k, v in images.items()}
        expected = step(batch, number)
        found = {k: v.item() for k, v in train_step(learner, [batch], Progress(number, RUN)).items()}
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), f"at step {number}"
