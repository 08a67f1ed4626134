"""The recipe features: what it contrasts, what it must not ignore, and what its weights are good for."""

import math

import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image, ImageFilter

from facekit.commands.train import train
from facekit.errors import CardError
from facekit.nets.feature_net import FeatureNet
from facekit.recipe_api import checkpoint
from facekit.recipe_api.base import Progress
from facekit.recipes import features
from facekit.storage import card
from facekit.storage.images import to_tensor
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms


def make(params=None):
    values = {
        "recipe": "features",
        "params": {"width": 8, "head": 8} | (params or {}),
        "data": {"size": 32, "batch": 8},
    }
    return card.TrainCard.model_validate({**values, "optim": {"lr": 3e-3}, "run": {"steps": 2}})


def learner_of(values):
    made = features.Features(values.params, values.data.size)
    return build_state(made, weighted_terms(features.Features, {}), values, torch.device("cpu"))


def pictures(seed=0, count=8):
    torch.manual_seed(seed)
    return F.interpolate(torch.rand(count, 3, 5, 5) * 2 - 1, 32, mode="bilinear")


def test_the_net_has_the_size_that_ships():
    with torch.device("meta"):
        net = FeatureNet()
        assert net(torch.empty(2, 3, 64, 64)).shape == (2, 288)
    assert sum(x.numel() for x in net.parameters()) == 488_784
    assert 2 * sum(x.numel() for x in net.state_dict().values()) < 1.5e6  # bytes as fp16


def test_the_loss_is_least_where_both_views_of_an_image_agree_and_chance_where_all_do():
    made = features.Features({"temperature": 0.1}, 32)
    scene = features.FeatureScene(made, None, {"a": torch.zeros(4, 3, 32, 32)}, 0)

    class Nets:
        features = staticmethod(lambda x: x)
        head = staticmethod(lambda x: x)

    scene.nets = Nets
    scene.__dict__["seen"] = torch.eye(4).repeat(2, 1)
    right = scene.contrast().item()
    assert right == pytest.approx(math.log(1 + 6 * math.exp(-10)), rel=1e-3)
    scene.__dict__["seen"] = torch.eye(4).roll(1, 0).repeat(2, 1)[torch.tensor([0, 1, 2, 3, 5, 6, 7, 4])]
    assert scene.contrast().item() > 9  # the partner is the wrong one
    scene.__dict__["seen"] = torch.ones(8, 4)
    assert scene.contrast().item() == pytest.approx(math.log(7), rel=1e-5)


def test_views_are_two_crops_of_each_image_in_its_place():
    made = features.Features({"crop": 1.0, "lighting": 0.0}, 32)
    x = pictures()
    seen = features.FeatureScene(made, None, {"a": x}, 0).seen
    assert seen.shape == (16, 3, 24, 24)
    whole = F.interpolate(x, 24, mode="bilinear", align_corners=False)
    assert (seen[:8] - whole).abs().max() < 0.05
    assert (seen[8:] - whole.flip(3)).abs().max() < 0.05
    torch.manual_seed(1)
    small = features.cropped(x, 24, 0.5)
    assert small.std() > 0 and (small - whole).abs().mean() > 0.05
    assert small.amax() <= x.amax() + 1e-5 and small.amin() >= x.amin() - 1e-5


@pytest.mark.slow
def test_training_tells_images_apart():
    learner = learner_of(make({"lighting": 0.1, "crop": 0.9}))
    values = [train_step(learner, [{"a": pictures()}], Progress(step, 40))["contrast"] for step in range(40)]
    assert torch.stack(values[-5:]).mean() < 0.5 * torch.stack(values[:5]).mean()


def test_features_are_those_of_the_saved_net_at_any_size(tmp_path):
    values = make()
    learner = learner_of(values)
    train_step(learner, [{"a": pictures()}], Progress(0, 1))
    checkpoint.save_model(tmp_path / "model.safetensors", learner.exports, card.plain(values))
    model = checkpoint.load_model(tmp_path / "model.safetensors")
    assert set(model.nets) == {"features"}  # the head is for training only
    with torch.no_grad():
        found = model.recipe.describe(model.nets, pictures())
        torch.testing.assert_close(found, learner.recipe.describe(learner.exports.eval(), pictures()))
        assert found.shape == (8, 72)
        assert model.recipe.describe(model.nets, torch.rand(1, 3, 50, 50)).shape == (1, 72)
    with pytest.raises(CardError, match="translate nothing"):
        model.recipe.translate(model.nets, pictures(), "b")


@pytest.mark.slow
def test_the_command_learns_from_one_folder_with_sub_folders(tmp_path):
    for number, picture in enumerate(pictures(count=12)):
        path = tmp_path / "data" / ("photos" if number % 2 else "drawings") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((picture + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(path)
    flags = ["params.width=8", "params.head=8", "data.holdout=4"]
    train("features", data=tmp_path / "data", out=tmp_path / "run", size=32, batch=4, steps=3, set=flags)
    made = yaml.safe_load((tmp_path / "run" / card.NAME).read_text())["made"]
    assert set(made["scores"]) == {"images", "known_again"} and made["scores"]["images"] == 4
    assert checkpoint.load_model(tmp_path / "run").recipe.size == 32


def test_the_shipped_weights_are_small_and_documented_and_see_what_changes_a_picture():
    from skimage.data import astronaut

    path = checkpoint.SHIPPED / "features.safetensors"
    assert path.stat().st_size <= 1_500_000
    told = path.with_suffix(".md").read_text(encoding="utf-8").lower()
    assert all(word in told for word in ("licen", "facekit train features", "linear probe", "research"))
    model = checkpoint.load_model("features")
    face = Image.fromarray(astronaut()[20:200, 130:310])
    mirrored = face.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    blurred, flat = face.filter(ImageFilter.GaussianBlur(4)), Image.new("RGB", (64, 64), (200, 160, 140))
    with torch.no_grad():
        rows = [model.recipe.describe(model.nets, to_tensor(one)[None]) for one in (face, mirrored, blurred, flat)]
    near, soft, far = ((row - rows[0]).norm().item() for row in rows[1:])
    assert 1.5 * near < soft < 0.5 * far
