"""StyleGAN2, its fine-tuning and JoJoGAN: losses against formulas written out, and runs from one to the next."""

import json

import pytest
import torch
import torch.nn.functional as F

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


def test_a_fine_tuned_run_starts_from_its_base_and_has_its_size_and_widths(base, facekit):
    line = ("train", "stylegan2-structure", "--a", base / "references", "--steps", 2, "--batch", 2)
    assert facekit(*line, "--out", base / "alone").code == 2
    assert facekit(*line, "--out", base / "tuned", "--init", base / "base").code == 0
    drawn = base / "both"
    assert facekit("sample", base / "base", drawn, "-n", 2, "--with", base / "tuned", "--sheet").code == 0
    assert (base / "both-sheet.png").exists()
    assert {path.name for path in (drawn / "tuned").iterdir()} >= {"seed000000.png", "seed000001.png"}


def test_a_size_other_than_that_of_the_base_is_refused(base, facekit):
    line = ("train", "stylegan2-structure", "--a", base / "references", "--init", base / "base")
    done = facekit(*line, "--size", 32)
    assert (done.code, "16 px" in done.err, "--size 16" in done.err) == (2, True, True)


def test_jojogan_trains_from_two_drawings(base, facekit):
    line = ("train", "jojogan", "--a", base / "references", "--batch", 2, "--steps", 2)
    inverting = ("--set", "params.inversion_steps=2", "--init", base / "base")
    assert facekit(*line, *inverting, "--out", base / "style").code == 0
    assert facekit("sample", base / "style", base / "styled", "-n", 1).code == 0


def test_too_many_references_are_refused(tmp_path, base, facekit):
    toy.fill(tmp_path / "many", 11)
    done = facekit("train", "jojogan", "--a", tmp_path / "many", "--size", 16, *FLAGS, "--init", base / "base")
    assert (done.code, "1 to 10" in done.err) == (3, True)


def test_a_second_folder_is_refused(base, facekit):
    done = facekit("train", "stylegan2", "--a", base / "faces", "--b", base / "faces", "--size", 16, *FLAGS)
    assert (done.code, "--b" in done.err) == (2, True)


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


def test_layers_are_swapped_from_a_size_on(base, facekit):
    line = ("sample", base / "base", base / "swapped", "-n", 1)
    assert facekit(*line, "--with", base / "base", "--swap-at", 7).code == 2
    assert facekit(*line, "--swap-at", 8).code == 2
    assert facekit(*line, "--mix-at", 8, "--out-of-range").code == 2
    assert facekit("sample", base / "base", base / "way", "-n", 2, "--between", 2).code == 0
    assert len(list((base / "way").glob("*.png"))) == 4
    assert facekit("sample", base / "base", base / "mixed", "-n", 2, "--mix-at", 8).code == 0


def test_weights_that_translate_do_not_draw(base, facekit):
    done = facekit("sample", "anime", base / "no")
    assert (done.code, "translates" in done.err) == (2, True)


def test_a_public_checkpoint_starts_a_run_and_another_file_does_not(base, facekit, tmp_path):
    from support import public_stylegan2 as public

    state = torch.load(base / "base" / "state.pt", weights_only=True)["nets"]
    made = StyleGAN2(SMALL, 16).nets()
    for name in "gd":
        made[name].load_state_dict({k[2:]: v for k, v in state.items() if k.startswith(f"{name}.")})
    torch.save(public(made["g"], made["d"]), tmp_path / "550000.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    line = ("train", "stylegan2", "--a", base / "faces", "--size", 16, "--batch", 4, "--steps", 0, *FLAGS)
    assert facekit(*line, "--out", tmp_path / "run", "--init", tmp_path / "550000.pt").code == 0
    again = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["nets"]
    assert all(torch.equal(again[k], state[k]) for k in state if k[:2] in ("g.", "d."))
    done = facekit(*line, "--out", tmp_path / "no", "--init", tmp_path / "other.pt")
    assert (done.code, "layout" in done.err) == (2, True)
