"""The student: sizes of its presets, pairs that do not fit to the px, steadiness, a run that learns its teacher."""

import pytest
import torch

import toy
from facekit.nets.student import Student
from facekit.recipe_api.base import Progress
from facekit.recipes.student import StudentRecipe
from facekit.storage import images
from facekit.storage.card import TrainCard
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms


@pytest.mark.parametrize(("width", "blocks", "megabytes"), [(16, 3, 0.5), (32, 3, 2), (48, 4, 6)])
def test_presets_have_the_sizes_that_their_cards_say(width, blocks, megabytes):
    with torch.device("meta"):
        count = sum(p.numel() for p in Student(width, blocks).parameters())
    assert 2 * count / 1e6 == pytest.approx(megabytes, rel=0.1)


def scene(fake, wanted, **params):
    recipe = StudentRecipe({"width": 4, "d_width": 8, **params}, 32)

    class Known(recipe.Scene):
        pass

    found = Known(recipe, torch.nn.ModuleDict({"ab": torch.nn.Identity()}), {"a": fake, "b": wanted}, 0)
    found.__dict__["fake"] = fake
    return found


def test_a_misaligned_pair_matches_at_its_shift():
    torch.manual_seed(0)
    whole = torch.rand(2, 3, 36, 36) * 2 - 1
    fake, wanted = whole[..., 2:34, 2:34], whole[..., 1:33, 3:35]
    assert scene(fake, wanted).match() > 0.1
    assert scene(fake, wanted, shift=2).match() == pytest.approx(0, abs=1e-6)
    assert scene(fake, wanted, shift=1).match() == pytest.approx(0, abs=1e-6)
    assert scene(fake, whole[..., 4:36, 2:34], shift=1).match() > 0.1


def test_what_moves_with_the_photo_is_stable():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    assert scene(x, x).stable() == pytest.approx(0, abs=1e-6)
    unsteady = scene(x, x)
    unsteady.nets = torch.nn.ModuleDict({"ab": torch.nn.Upsample(scale_factor=1)})
    unsteady.__dict__["fake"] = x.flip(3)
    assert unsteady.stable() > 0.1


def test_the_parts_that_count_are_eyes_and_mouth():
    class Parts(torch.nn.Module):
        classes = ("background", "eyes", "skin", "mouth")

        def forward(self, x):
            out = torch.zeros(len(x), 4, 8, 8)
            out[:, 1, :, :4] = 1
            out[:, 2, :, 4:] = 1
            return out

    fake, wanted = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    wanted[..., 20:] = 1
    found = scene(fake, wanted)
    found.helpers = torch.nn.ModuleDict({"parts": Parts()})
    assert found.part_match() < 0.01 < found.match()
    wanted[..., :12] = 1
    found = scene(fake, wanted)
    found.helpers = torch.nn.ModuleDict({"parts": Parts()})
    assert found.part_match() > 0.5


@pytest.mark.slow
def test_it_learns_its_teacher(tmp_path, facekit):
    root = tmp_path / "pairs"
    toy.fill(root / "a", 6, 32)
    (root / "b").mkdir()
    for path in (root / "a").glob("*.png"):
        images.save(images.read(path).point(lambda v: 255 - v), root / "b" / path.name)  # the teacher inverts
    line = ("train", "student", "--data", root, "--out", tmp_path / "run", "--size", 32, "--batch", 4, "--steps", 60)
    plain = ("perceptual", "adversarial", "judge", "stable")
    sets = [f"--set=losses.{name}=0" for name in plain] + ["--set=params.width=8", "--set=run.ema=0", "--lr", "0.01"]
    assert facekit(*line, *sets).code == 0
    out = tmp_path / "out"
    assert facekit("translate", root / "a", out, "--weights", tmp_path / "run", "--no-align").code == 0
    a, b = (images.to_tensor(images.read(folder / "000.png")) for folder in (root / "a", root / "b"))
    drawn = images.to_tensor(images.read(out / "000.png"))
    assert (drawn - b).abs().mean() < 0.5 * (a - b).abs().mean()


def test_folders_without_pairs_are_refused(tmp_path, facekit):
    toy.fill(tmp_path / "a", 3, 32)
    toy.fill(tmp_path / "b", 3, 32)
    for path in sorted((tmp_path / "b").glob("*.png")):
        path.rename(path.with_name(f"x{path.name}"))
    done = facekit("train", "student", "--data", tmp_path, "--size", 32)
    assert (done.code, "same name" in done.err) == (3, True)


@pytest.mark.slow
def test_every_loss_trains():
    params = {"width": 4, "d_width": 8}
    values = TrainCard.model_validate({"recipe": "student", "params": params, "data": {"size": 32}})
    losses = {"perceptual": 0.0, "part_match": 1.0, "smooth": 1.0}
    state = build_state(StudentRecipe(params, 32), weighted_terms(StudentRecipe, losses), values, torch.device("cpu"))
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    found = train_step(state, [{"a": x, "b": -x}], Progress(0, 2))
    assert all(torch.isfinite(value) for value in found.values())
    assert {"part_match", "smooth", "stable", "judge"} <= set(found)


def test_heads_on_features_learn_to_tell_the_teacher_from_the_student(random_helpers):
    params = {"width": 4, "d_width": 8, "judge": "features"}
    values = TrainCard.model_validate({"recipe": "student", "params": params, "data": {"size": 32}})
    only = {"match": 0.0, "perceptual": 0.0, "colour": 0.0, "stable": 0.0, "adversarial": 0.0}
    torch.manual_seed(0)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    state = build_state(StudentRecipe(params, 32), weighted_terms(StudentRecipe, only), values, torch.device("cpu"))
    found = [train_step(state, [{"a": x, "b": -x}], Progress(step, 120))["judge"] for step in range(120)]
    assert found[-1] < 0.5 * found[0]
    only = {**only, "adversarial": 1.0, "judge": 0.0}
    values = values.model_copy(update={"seed": 1})
    state = build_state(StudentRecipe(params, 32), weighted_terms(StudentRecipe, only), values, torch.device("cpu"))
    before = [p.clone() for p in state.nets.ab.parameters()]
    train_step(state, [{"a": x, "b": -x}], Progress(0, 2))
    assert any(not torch.equal(p, q) for p, q in zip(before, state.nets.ab.parameters(), strict=True))
