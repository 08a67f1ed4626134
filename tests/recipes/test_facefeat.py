"""The recipe facefeat: what it learns, from whom, and what its weights are good for."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import nn

from facekit.commands.train import train
from facekit.errors import CardError, MissingError
from facekit.nets import face_embedding
from facekit.nets.lightcnn import SmallLightCNN
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.recipes import facefeat
from facekit.storage import card
from facekit.training import memory_estimate
from facekit.training.loop import fit, train_step
from facekit.training.state import build_state, weighted_terms

TINY = {"features": 6, "width": 8, "teacher": "toy.onnx"}


class Teacher(nn.Module):
    """Embeds a face by the mean colours of its upper and its lower half: easy to learn."""

    features = 6

    def forward(self, x):
        return F.adaptive_avg_pool2d(x, (2, 1)).flatten(1)


@pytest.fixture(autouse=True)
def toy_teacher(monkeypatch):
    monkeypatch.setattr(face_embedding, "onnx_embedding", lambda path, mean, scale: Teacher())


def make(params=None, **run):
    values = {"recipe": "facefeat", "params": TINY | (params or {}), "data": {"size": 64, "batch": 4}}
    return card.TrainCard.model_validate({**values, "optim": {"lr": 1e-2}, "run": {"steps": 2, **run}})


def learner_of(values):
    made = facefeat.FaceFeatures(values.params, values.data.size)
    return build_state(made, weighted_terms(facefeat.FaceFeatures, {}), values, torch.device("cpu"))


def faces(seed=0):
    torch.manual_seed(seed)
    coarse = torch.rand(2, 4, 3, 1, 1) * 1.4 - 0.7 + 0.6 * (torch.rand(2, 4, 3, 4, 4) - 0.5)
    return {name: F.interpolate(x, 64, mode="bilinear") for name, x in zip("ab", coarse, strict=True)}


def test_the_student_has_the_size_that_ships():
    with torch.device("meta"):
        net = SmallLightCNN()
        assert net(torch.empty(2, 3, 128, 128)).shape == (2, 128)
    count = sum(x.numel() for x in net.state_dict().values())
    assert 0.9e6 < count < 1.9e6
    assert 2 * count < 4e6  # bytes as fp16


@pytest.mark.slow
def test_the_student_comes_near_its_teacher():
    learner = learner_of(make({"width": 16, "lighting": 0, "mixed": 0}))
    values = [train_step(learner, [faces(step)], Progress(step, 50)) for step in range(50)]
    early, late = (torch.stack([v["distance"] for v in part]).mean() for part in (values[:5], values[-5:]))
    assert late < 0.6 * early
    assert set(values[0]) == {"distance", "relation"}


def test_the_teacher_sees_what_the_student_sees_in_its_own_framing():
    learner = learner_of(make())
    scene = facefeat.FaceScene(learner.recipe, learner.nets, faces(), 0, None, learner.helpers)
    wanted = F.normalize(Teacher()(face_embedding.framed(scene.faces, *face_embedding.ARCFACE)), dim=1)
    assert scene.faces.shape == (8, 3, 64, 64)
    torch.testing.assert_close(scene.wanted, wanted)
    assert not scene.wanted.requires_grad
    torch.testing.assert_close(facefeat.alike(wanted), wanted @ wanted.T)


def test_without_augmentation_the_faces_stay_as_they_are():
    values = make({"jitter": 0, "lighting": 0, "mixed": 0})
    learner = learner_of(values)
    batch = faces()
    seen = facefeat.FaceScene(learner.recipe, learner.nets, batch, 0).faces
    given = torch.cat([batch["a"], batch["b"]])
    nearest = torch.cdist(given.flatten(1), seen.flatten(1)).amin(1)
    assert nearest.max() < 1e-2


def test_blending_leaves_the_rest_alone_and_stays_between_two_faces():
    torch.manual_seed(0)
    x = torch.rand(8, 3, 8, 8)
    made = facefeat.mixed(x, 0.25)
    assert torch.equal(made[2:], x[2:])
    assert not torch.equal(made[:2], x[:2])
    assert (made.amin(0) >= x.amin(0)).all()
    assert (made.amax(0) <= x.amax(0)).all()


def test_a_saved_model_embeds_as_before_at_any_size(tmp_path):
    values = make(ema=0.5)
    learner = learner_of(values)
    fit(learner, [[faces()]] * 2, Progress(0, 2), lambda *a: None, lambda *a: None)
    checkpoint.save_model(tmp_path / "model.safetensors", learner.exports, card.plain(values))
    model = checkpoint.load_model(tmp_path / "model.safetensors")
    x = faces()["a"].requires_grad_()
    found = model.recipe.embed(model.nets, x)
    torch.testing.assert_close(found, learner.recipe.embed(learner.exports.eval(), x))
    found.sum().backward()
    assert x.grad.abs().sum() > 0
    assert model.recipe.embed(model.nets, torch.rand(1, 3, 50, 50)).shape == (1, 6)
    assert model.directions == {}
    with pytest.raises(CardError, match="translate nothing"):
        model.recipe.translate(model.nets, x, "b")


def test_the_memory_estimate_needs_no_teacher(monkeypatch):
    monkeypatch.setattr(face_embedding, "onnx_embedding", lambda *a: pytest.fail("read the teacher"))
    values = make()
    made = facefeat.FaceFeatures(values.params, 64)
    guess = memory_estimate.estimate(made, made.terms(), values)
    assert guess.parameters == {"face": sum(p.numel() for p in made.nets()["face"].parameters())}
    assert guess.activation_bytes


def test_a_teacher_that_does_not_fit_is_refused():
    with pytest.raises(CardError, match="6 features, not 5") as error:
        learner_of(make({"features": 5}))
    assert "params.features=6" in error.value.hint
    with pytest.raises(CardError, match="size"):
        facefeat.FaceFeatures(TINY, 32).check(32)


def test_the_teacher_of_the_card_is_read_as_it_says(monkeypatch):
    seen = []
    monkeypatch.setattr(face_embedding, "onnx_embedding", lambda *given: seen.append(given) or Teacher())
    learner_of(make({"mean": 0.0, "scale": 1.0}))
    assert seen == [("toy.onnx", 0.0, 1.0)]

    def missing(*given):
        raise MissingError("no ONNX file toy.onnx")

    monkeypatch.setattr(face_embedding, "onnx_embedding", missing)
    with pytest.raises(MissingError, match="toy"):
        learner_of(make())
    with pytest.raises(MissingError) as error:
        learner_of(make({"teacher": ""}))
    assert "params.teacher=FILE" in error.value.hint


def test_learning_rate_rises_falls_and_ends_at_zero():
    made = facefeat.FaceFeatures(TINY, 64)
    factors = [made.lr_factor(Progress(step, 200)) for step in range(200)]
    assert 0 < factors[0] < factors[5] < factors[10] == max(factors) == pytest.approx(1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] < 0.001


@pytest.mark.slow
def test_the_command_trains_it_and_scores_it(tmp_path):
    for domain in "ab":
        (tmp_path / domain).mkdir()
        for number, face in enumerate(faces(ord(domain))["a"].repeat(2, 1, 1, 1)):
            pixels = ((face + 1) * 127.5).byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / domain / f"{number}.png")
    flags = [f"params.{name}={value}" for name, value in TINY.items()]
    train("facefeat", data=tmp_path, out=tmp_path / "run", size=64, batch=2, steps=3, set=[*flags, "data.holdout=3"])
    made = yaml.safe_load((tmp_path / "run" / card.NAME).read_text())["made"]
    assert set(made["scores"]) == {"faces", "cosine_to_teacher", "known_again"}
    assert made["scores"]["faces"] == 6
    assert checkpoint.load_model(tmp_path / "run").recipe.size == 64


def test_the_recipe_is_listed_and_its_example_card_is_whole():
    assert registry.find("facefeat")[0] is facefeat.FaceFeatures
    values = card.load(Path(__file__).parents[2] / "examples" / "cards" / "facefeat.yaml")
    checked = card.validate(card.TrainCard, values, "the example")
    assert set(values["params"]) == set(facefeat.FaceParams.model_fields)
    assert facefeat.FaceParams.model_validate(checked.params).features == 128
    assert set(checked.losses) == set(facefeat.FaceFeatures.terms())


def test_the_shipped_weights_are_small_and_documented_and_recognise_a_face():
    from skimage.data import astronaut

    path = checkpoint.SHIPPED / "facefeat.safetensors"
    assert path.stat().st_size <= 4_000_000
    told = path.with_suffix(".md").read_text(encoding="utf-8").lower()
    assert all(word in told for word in ("teacher", "licen", "facekit train facefeat", "known again", "research"))
    model = checkpoint.load_model("facefeat")
    face = torch.from_numpy(astronaut()[20:200, 130:310].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    others = torch.stack([face[0].flip(2), face[0] * 0.7 - 0.2, face[0].flip(1)])
    with torch.no_grad():
        here, there = model.recipe.embed(model.nets, face), model.recipe.embed(model.nets, others)
    mirrored, darker, upside_down = torch.nn.functional.cosine_similarity(here, there).tolist()
    assert min(mirrored, darker) > 0.6 > upside_down
