"""paired-cnn: which partner each pairing gives, and what squared error makes of partners that are none."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import toy
from facekit.data.dataset import Layout
from facekit.data.loader import Batches
from facekit.data.pairs import PairReader, by_name
from facekit.errors import InputError
from facekit.recipe_api import registry
from facekit.recipe_api.base import Progress
from facekit.recipes.paired import PairedCNN, nearest
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

SIZE = 16


def data(root, **more):
    return card.Data(root=str(root), size=SIZE, holdout=1, **more)


def pairs(root, count=6):
    """trainA and trainB with the same pictures under the same names, those of b darker; in b one name is more."""
    for side, scale in (("trainA", 1.0), ("trainB", 0.5)):
        (root / side).mkdir(parents=True)
        for i in range(count):
            pixels = np.asarray(toy.picture(32, i)) * scale
            Image.fromarray(pixels.astype(np.uint8)).save(root / side / f"{i}.png")
    toy.picture(32, 99).save(root / "trainB" / "more.png")
    return root


def learner_of(losses=None, **params):
    values = card.TrainCard.model_validate(
        {"recipe": "paired-cnn", "data": {"size": SIZE}, "optim": {"lr": 3e-3, "betas": [0.9, 0.999]}}
    )
    kind, _ = registry.find("paired-cnn")
    return build_state(
        kind({"width": 8, **params}, SIZE), weighted_terms(kind, losses or {}), values, torch.device("cpu")
    )


def test_names_are_paired_whatever_their_endings_and_folders_count(tmp_path):
    a = [tmp_path / "a" / name for name in ("1.png", "x/2.png", "3.png")]
    b = [tmp_path / "b" / name for name in ("1.jpg", "2.png", "x/2.webp")]
    assert by_name(a, b, tmp_path / "a", tmp_path / "b") == {a[0]: b[0], a[1]: b[2]}


def test_the_nearest_partner_is_the_same_picture_in_other_light(tmp_path):
    root = pairs(tmp_path / "set")
    a, b = sorted((root / "trainA").iterdir()), sorted((root / "trainB").iterdir())
    assert {path.name: partner.name for path, partner in nearest(a, b).items()} == {path.name: path.name for path in a}
    (root / "trainB" / "0.png").write_bytes(b"broken")
    assert nearest(a, b)[a[0]].name != "0.png"


@pytest.mark.parametrize("pairing", ["name", "nearest"])
def test_partners_are_cropped_and_mirrored_alike(tmp_path, pairing):
    layout = PairedCNN({"pairing": pairing}, SIZE).open(data(pairs(tmp_path / "set")))
    batches = Batches.of(layout.train, 24, layout.readers, seed=0, batch=4, size=SIZE)
    seen = set()
    for step in range(4):
        (batch,) = batches(step)
        light = (batch["a"] + 1) / 2
        assert ((batch["b"] + 1) / 2 - light / 2).abs().max() < 0.01
        seen.add(float(light.sum()))
    assert len(seen) == 4
    assert set(layout.previews) == {"a", "b"} and isinstance(layout.readers["a"], PairReader)


def test_images_without_a_partner_of_their_name_are_left_out(tmp_path):
    root = pairs(tmp_path / "set")
    (root / "trainB" / "3.png").unlink()
    layout = PairedCNN({"pairing": "name"}, SIZE).open(data(root))
    assert "3.png" not in {path.name for path in layout.train["a"]} and layout.train["a"]
    for path in (root / "trainB").iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(InputError, match="partner"):
        PairedCNN({"pairing": "name"}, SIZE).open(data(root))


def test_random_partners_come_from_orders_of_their_own():
    assert PairedCNN({}, SIZE).open(card.Data(root="nowhere")) is None


def faces(count, seed):
    return (
        torch.stack([torch.from_numpy(np.array(toy.picture(SIZE, seed + i))) for i in range(count)])
        .permute(0, 3, 1, 2)
        .float()
        / 127.5
        - 1
    )


@pytest.mark.slow
@pytest.mark.parametrize(("true_pairs", "depends"), [(True, True), (False, False)])
def test_with_random_partners_all_faces_become_the_mean_face(true_pairs, depends):
    torch.manual_seed(0)
    learner, a = learner_of({"match_a": 0.0}), faces(16, 0)
    b = a.flip(1)  # the true partner: colours change places
    errors = []
    for step in range(300):
        torch.manual_seed(step)
        b_now = b if true_pairs else b[torch.randperm(16)]
        found = train_step(learner, [{"a": a, "b": b_now}], Progress(step, 300))
        learner.step += 1
        errors.append(found["match_b"].item())
    with torch.no_grad():
        made = learner.recipe.translate(learner.nets, a, "b")
    variety = (made.std(0).mean() / b.std(0).mean()).item()
    mean_error = (b - b.mean(0)).square().mean().item()  # of the mean face against any partner
    if depends:
        assert variety > 0.8 and errors[-1] < 0.2 * mean_error
    else:
        assert variety < 0.1 and errors[-1] > 0.9 * mean_error


def test_variety_is_nothing_for_one_face_and_one_for_faces_as_different_as_real_ones(tmp_path):
    toy.fill(tmp_path / "a", 5), toy.fill(tmp_path / "b", 5)
    held = {side: sorted((tmp_path / side).iterdir()) for side in "ab"}
    layout = Layout({}, held, {"a": "a", "b": "b"}, held)
    made = PairedCNN({}, SIZE)

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            return x * self.weight

    nets = nn.ModuleDict({"ab": One(), "ba": One()})
    assert made.finish(nets, layout, tmp_path) == {"variety_b": 0.0, "variety_a": 0.0}
    nets["ab"].weight.data.fill_(1)
    assert made.finish(nets, layout, tmp_path) == {"variety_b": 1.0, "variety_a": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("pairing", ["random", "nearest", "name"])
def test_it_trains_with_every_pairing(facekit, tmp_path, pairing):
    root, run = pairs(tmp_path / "set"), tmp_path / "run"
    more = ["--size", SIZE, "--batch", 2, "--steps", 2, "--set", f"params.pairing={pairing}", "--set", "params.width=4"]
    done = facekit("train", "paired-cnn", "--data", root, "--out", run, *more)
    assert done.code == 0, done.err
    assert {"variety_a", "variety_b"} <= set(card.read_made(run / "card.yaml")["scores"])
    done = facekit("translate", root / "trainA", tmp_path / "out", "--weights", run, "--no-align", "--to", "b")
    assert done.code == 0, done.err
