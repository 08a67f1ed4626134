"""The face-part segmenter: its nets, what it learns, and what it says of its test photos."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from facekit.errors import MissingError
from facekit.nets.segnet import UNet, VGGSegmenter
from facekit.ops import augment, losses
from facekit.recipe_api import checkpoint
from facekit.recipes.segnet import SegNet, paint
from facekit.storage import card


def faces(root, count=6, size=32):
    """Photos whose colour tells the part: red is class 1, green class 2."""
    for part, number in (("train", count), ("test", 3)):
        for index in range(number):
            rng = np.random.default_rng([index, part == "test"])
            labels = np.zeros((size, size), np.uint8)
            left = int(rng.integers(0, size // 2))
            labels[8:24, left : left + 12] = 1
            labels[12:16, left : left + 6] = 2
            colours = np.array([[30, 30, 30], [220, 40, 40], [40, 220, 40]], np.uint8)[labels]
            noisy = (colours.astype(int) + rng.integers(-20, 20, colours.shape)).clip(0, 255).astype(np.uint8)
            for folder, image in (("images", Image.fromarray(noisy)), ("masks", Image.fromarray(labels))):
                (root / part / folder).mkdir(parents=True, exist_ok=True)
                image.save(root / part / folder / f"{index}.png")
    (root / "classes.txt").write_text("background\nskin\neyes\n")
    return root


@pytest.mark.slow
def test_it_learns_parts_and_reports_their_iou(tmp_path, facekit):
    data, run = faces(tmp_path / "data"), tmp_path / "run"
    params = {"params.width": 6, "params.lighting": 0, "params.warp": 0.3, "run.ema": 0.8}
    command = ["train-segnet", "--data", data, "--out", run, "--size", 32, "--batch", 4, "--steps", 120, "--lr", 0.01]
    command += [f"--set={key}={value}" for key, value in params.items()]
    done = facekit(*command)
    assert done.code == 0, done.err
    scores = card.read_made(run / "card.yaml")["scores"]
    assert scores["test_images"] == 3 and set(scores["iou"]) == {"background", "skin", "eyes"}
    assert scores["mean_iou"] == pytest.approx((scores["iou"]["skin"] + scores["iou"]["eyes"]) / 2, abs=1e-3)
    assert scores["mean_iou"] > 0.5
    assert Image.open(run / "overlays.png").size[0] > 4 * 128
    model = checkpoint.load_model(run)
    assert model.recipe.params.classes == ("background", "skin", "eyes")
    x = torch.zeros(2, 3, 32, 32)
    assert model.recipe.label(model.nets, x).shape == (2, 32, 32)
    shares = model.recipe.probabilities(model.nets, x)
    assert torch.allclose(shares.sum(1), torch.ones(2, 32, 32), atol=1e-5)
    again = facekit(*command)
    assert again.code == 0 and "nothing to do" in again.err


def test_the_iou_is_that_of_hand_made_labels(tmp_path):
    """A net that calls everything skin: IoU of skin is its share, of everything else 0."""
    from facekit.data import face_masks

    data = faces(tmp_path)
    layout = face_masks.open_masks(card.Data(root=str(data), size=32))
    made = SegNet({"classes": layout.params["classes"], "width": 4}, 32)

    class Skin(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(len(x), 3, 32, 32)

    nets = torch.nn.ModuleDict({"net": Skin()})
    nets.net.any = torch.nn.Parameter(torch.zeros(1))
    scores = made.finish(nets, layout, tmp_path)
    truth = [np.asarray(Image.open(data / "test/masks" / f"{i}.png")) for i in range(3)]
    share = np.mean([(t == 1).mean() for t in truth])
    assert scores["iou"] == {"background": 0.0, "skin": pytest.approx(share, abs=1e-4), "eyes": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "batch_norm", "trunk"), [("vgg16", False, 14_714_688), ("vgg19", False, 20_024_384)])
def test_the_vgg_trunk_is_the_published_one(kind, batch_norm, trunk):
    with torch.device("meta"):
        net = VGGSegmenter(6, kind, batch_norm)
    assert sum(p.numel() for p in net.features.parameters()) == trunk


@pytest.mark.parametrize(
    "make", [lambda: UNet(6, 4), pytest.param(lambda: VGGSegmenter(6, "vgg16", True, 4), marks=pytest.mark.slow)]
)
def test_logits_have_the_size_of_the_image(make):
    net = make().eval()
    assert net(torch.zeros(1, 3, 48, 32)).shape == (1, 6, 48, 32)


@pytest.mark.slow
def test_a_trunk_takes_first_weights_as_far_as_a_file_reaches(tmp_path):
    whole = VGGSegmenter(6, "vgg16", False, 4)
    first = {f"features.{k}": torch.full_like(v, 0.5) for k, v in whole.features.state_dict().items() if int(k[0]) < 3}
    first = {k: v for k, v in first.items() if k.split(".")[1] in ("0", "2")}
    save_file(first, tmp_path / "vgg.safetensors")
    params = {"trunk": "vgg16", "batch_norm": False, "width": 4, "weights": str(tmp_path / "vgg.safetensors")}
    net = SegNet(params, 32).nets()["net"]
    assert (net.features[2].weight == 0.5).all() and not (net.features[5].weight == 0.5).all()
    save_file({"other": torch.zeros(1)}, tmp_path / "vgg.safetensors")
    with pytest.raises(MissingError, match="vgg16"):
        SegNet(params, 32).nets()


def test_dice_is_0_for_the_truth_and_near_1_for_the_opposite():
    labels = torch.tensor([[[0, 1], [1, 0]]]).repeat_interleave(32, 1).repeat_interleave(32, 2)
    truth = torch.nn.functional.one_hot(labels, 2).movedim(-1, 1).float()
    assert losses.dice(truth, labels) == pytest.approx(0, abs=1e-6)
    assert losses.dice(1 - truth, labels) > 0.99
    half = losses.dice(torch.full_like(truth, 0.5), labels)  # 2 * n/4 / (n/2 + n/2) per class
    assert half == pytest.approx(0.5, abs=1e-3)


def test_classes_have_colours_of_their_own_and_colours_mix():
    every = paint(torch.eye(19)[:, :, None, None])
    assert len({tuple(c.flatten().tolist()) for c in every}) == 19 and every.abs().max() <= 1
    mixed = paint(torch.full((1, 2, 1, 1), 0.5))
    assert torch.allclose(mixed, (every[0] + every[1])[None] / 2, atol=1e-6)


def test_warps_move_photo_and_labels_alike():
    torch.manual_seed(0)
    labels = torch.zeros(4, 1, 32, 32)
    grid = augment.affine_grid(labels)
    labels[:, :, 10:20, 8:16] = 1
    warped = torch.nn.functional.grid_sample(labels, grid, "bilinear", "reflection", align_corners=False)
    nearest = torch.nn.functional.grid_sample(labels, grid, "nearest", "reflection", align_corners=False)
    assert ((warped > 0.5) == (nearest > 0.5)).float().mean() > 0.98
    assert len({tuple(g.flatten().tolist()) for g in grid}) == 4
    still = augment.affine_grid(labels[:1], 0, 0, 0)
    same = torch.nn.functional.grid_sample(labels[:1], still, "nearest", align_corners=False)
    assert torch.equal(same, labels[:1])


@pytest.mark.slow
def test_translate_paints_the_parts(tmp_path, facekit):
    data, run = faces(tmp_path / "data"), tmp_path / "run"
    facekit("train-segnet", "--data", data, "--out", run, "--size", 32, "--batch", 2, "--steps", 1,
            "--set", "params.width=4")  # fmt: skip
    done = facekit(
        "translate", data / "test/images", tmp_path / "parts", "--to", "parts", "--weights", run, "--no-align"
    )
    assert done.code == 0, done.err
    told = json.loads(facekit("recipes", "segnet", "--json").out)
    assert set(told["terms"]) == {"cross_entropy", "dice", "image"}
    assert len(list((tmp_path / "parts").glob("*.png"))) == 3


def test_the_shipped_weights_are_small_and_documented():
    path = checkpoint.SHIPPED / "segnet.safetensors"
    assert path.stat().st_size <= 4_000_000
    told = path.with_suffix(".md").read_text(encoding="utf-8").lower()
    assert all(word in told for word in ("face-masks", "licen", "facekit train-segnet", "steps", "0.803"))
    assert checkpoint.load_model("segnet").recipe.params.classes[3:] == ("eyes", "nose", "mouth")


@pytest.mark.slow
def test_the_shipped_weights_find_the_parts_of_the_test_photos(shared, tmp_path):
    """The model card's figure, on the photos that it was measured on."""
    from facekit.data import face_masks

    model = checkpoint.load_model("segnet")
    layout = face_masks.open_masks(card.Data(root=str(shared / "data" / "face-masks"), size=128))
    with torch.no_grad():
        scores = model.recipe.finish(model.nets, layout, tmp_path)
    assert scores["mean_iou"] == pytest.approx(0.843, abs=0.005)
