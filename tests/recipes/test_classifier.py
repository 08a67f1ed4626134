"""The classifier of labelled faces: its net, what it learns, what it says of its test images, and that it translates
nothing.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from facekit.data.dataset import Layout
from facekit.errors import CardError
from facekit.nets.classifier import FaceClassifier
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.recipes.classifier import Classifier, ClassifierParams, ClassifierScene
from facekit.storage import card, images
from facekit.training import memory_estimate

TINY = {"width": 8, "augment": 0, "erase": 0, "dropout": 0, "smooth": 0}
LABELS = ("bars", "stripes")


def faces(root, count=16, size=32):
    """Grey images with bars upright or across, on changing ground: `stripes` and `bars`."""
    for k, label in enumerate(LABELS):
        for index in range(count):
            rng = np.random.default_rng([index, k])
            wave = np.sin(np.arange(size) * rng.uniform(0.6, 1.2) + rng.uniform(0, 6)) * rng.uniform(20, 60)
            pixels = np.broadcast_to(wave[:, None] if k else wave, (size, size)) + rng.uniform(80, 170)
            noisy = (pixels + rng.normal(0, 8, (size, size))).clip(0, 255).astype(np.uint8)
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).convert("RGB").save(root / label / f"{index}.png")
    return root


def made(params=None, size=32):
    return Classifier({**TINY, "labels": LABELS, **(params or {})}, size)


def scene(params=None, count=8, x=None, label=None):
    torch.manual_seed(2)
    built = made(params)
    nets = torch.nn.ModuleDict(built.nets())
    x = torch.rand(count, 3, 32, 32) * 2 - 1 if x is None else x
    label = built.blank(count, 32)["x_label"] if label is None else label
    return ClassifierScene(built, nets, {"x": x, "x_label": label}, 0)


def test_the_net_has_the_size_that_it_tells_and_takes_any_edge():
    for edge in (32, 64, 97, 128):
        assert FaceClassifier(5, 2)(torch.zeros(2, 3, edge, edge)).shape == (2, 5)
    assert sum(p.numel() for p in FaceClassifier(5).parameters()) == 619_493
    assert f"{619_493:,}" in FaceClassifier.__doc__
    deeper = sum(p.numel() for p in FaceClassifier(5, 8, 2).parameters())
    assert deeper > sum(p.numel() for p in FaceClassifier(5, 8).parameters())


def test_grey_and_coloured_images_are_the_same_but_where_colour_counts():
    torch.manual_seed(0)
    x = torch.rand(4, 3, 32, 32) * 2 - 1
    alike = x.mean(1, keepdim=True).expand_as(x)
    blind, seeing = FaceClassifier(3, 8), FaceClassifier(3, 8, colour=True)  # norms of the batch: not yet trained
    assert torch.allclose(blind(x), blind(alike), atol=1e-4)
    assert not torch.allclose(seeing(x), seeing(alike), atol=0.05)


def test_brightness_and_contrast_do_not_matter():
    torch.manual_seed(0)
    net, x = FaceClassifier(3, 8), torch.rand(4, 3, 32, 32)
    assert torch.allclose(net(x), net(0.4 * x - 0.3), atol=1e-2)
    assert not torch.allclose(net(x), net(x.flip(2)), atol=0.05)


@pytest.mark.slow
def test_it_learns_labels_and_reports_its_accuracy(tmp_path, facekit):
    data, run = faces(tmp_path / "data"), tmp_path / "run"
    options = [f"--set=params.{name}={value}" for name, value in TINY.items()]
    options += ["--set=run.ema=0.8", "--set=data.split=[2,1,1]", "--size", 32, "--batch", 8, "--steps", 30]
    command = ["train", "classifier", "--data", data, "--out", run, "--lr", 0.01, "--set", "data.flip=false", *options]
    done = facekit(*command)
    assert done.code == 0, done.err
    scores = card.read_made(run / "card.yaml")["scores"]
    assert set(scores) == {"test_images", "accuracy", "mean_accuracy", "label_accuracy"}
    assert scores["test_images"] == 8 and set(scores["label_accuracy"]) == set(LABELS)
    assert scores["accuracy"] >= 0.75 and scores["mean_accuracy"] >= 0.75
    assert not list((run / "previews").glob("*")) and (run / "index.html").exists()
    model = checkpoint.load_model(run)
    assert model.recipe.params.labels == LABELS
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    shares = model.recipe.probabilities(model.nets, x)
    assert shares.shape == (3, 2) and torch.allclose(shares.sum(1), torch.ones(3), atol=1e-5)
    toy.fill(tmp_path / "in", 1)
    told = facekit("translate", tmp_path / "in", tmp_path / "out", "--weights", run, "--no-align")
    assert told.code == 2 and "translates nothing" in told.err


def test_it_translates_nothing():
    built = made()
    assert built.targets(card.Domains()) == {} and built.previews() == {} and built.directions == ()
    with pytest.raises(CardError, match="translates nothing"):
        built.translate(None, torch.zeros(1, 3, 32, 32), "bars")


def test_probabilities_come_at_any_size_and_in_the_order_of_the_labels():
    built = made({"labels": ("a", "b", "c")})

    class Corner(torch.nn.Module):
        def forward(self, x):
            assert x.shape[2:] == (32, 32)
            return torch.stack([x[:, 0].mean((1, 2)) * 5, x[:, 1].mean((1, 2)) * 5, x[:, 2].mean((1, 2)) * 5], 1)

    nets = torch.nn.ModuleDict({"face": Corner()})
    for size in (32, 17, 100):
        x = torch.full((3, 3, size, size), -1.0)
        x[0, 0], x[1, 1], x[2, 2] = 1, 1, 1
        found = built.probabilities(nets, x)
        assert found.argmax(1).tolist() == [0, 1, 2] and found.min() < 1e-4
        assert torch.allclose(found.sum(1), torch.ones(3))
    several = made({"labels": ("a", "b", "c"), "single": False})
    assert several.probabilities(nets, torch.ones(1, 3, 32, 32)).tolist()[0] == pytest.approx([0.9933] * 3, abs=1e-3)


def test_the_loss_is_cross_entropy_of_smoothed_labels():
    seen = scene({"smooth": 0.2})
    assert torch.allclose(seen.wanted[0], torch.tensor([0.9, 0.1]))
    expected = -(seen.wanted * seen.logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(seen.cross_entropy(), expected)
    right = torch.nn.functional.cross_entropy(seen.logits, seen.x_label.argmax(1), label_smoothing=0.2)
    assert torch.allclose(seen.cross_entropy(), right)


def test_attributes_have_a_loss_each():
    label = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).repeat(4, 1)
    seen = scene({"single": False, "smooth": 0.2}, label=label)
    assert seen.wanted[0].tolist() == pytest.approx([0.9, 0.9]) and seen.wanted[1].tolist() == pytest.approx([0.1, 0.1])
    p = seen.logits.sigmoid()
    expected = -(seen.wanted * p.log() + (1 - seen.wanted) * (1 - p).log()).mean()
    assert torch.allclose(seen.cross_entropy(), expected, atol=1e-6)


def test_a_square_is_blanked_in_some_images():
    x = torch.ones(200, 3, 32, 32)
    assert scene(x=x, count=200).shown is x
    shown = scene({"erase": 0.5}, x=x, count=200).shown
    touched = (shown == 0).any(3).any(2).any(1).float().mean()
    assert 0.35 < touched < 0.65
    assert (scene({"erase": 1.0}, x=x, count=200).shown == 0).any(3).any(2).any(1).all()


def test_rare_labels_come_as_often_unless_images_have_several():
    assert ClassifierParams().balance and not ClassifierParams(single=False).balance
    assert not ClassifierParams(balance=False).balance
    again = ClassifierParams.model_validate(ClassifierParams(single=False).model_dump())
    assert not again.balance


def test_accuracies_are_those_of_hand_made_answers():
    built = made({"labels": ("a", "b", "c")})
    truth = torch.eye(3)[[0, 0, 0, 1, 1]].bool()
    likely = torch.eye(3)[[0, 0, 1, 1, 2]]
    assert built.scores(likely, truth) == {
        "accuracy": 0.6,
        "mean_accuracy": pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-4),
        "label_accuracy": {"a": 0.6667, "b": 0.5},
    }


def test_accuracies_of_attributes_count_images_with_and_without_alike():
    built = made({"labels": ("a", "b"), "single": False})
    truth = torch.tensor([[1, 0], [0, 0], [0, 0], [0, 0]]).bool()
    found = built.scores(torch.tensor([[0.4, 0.1], [0.2, 0.1], [0.1, 0.9], [0.3, 0.2]]), truth)
    assert found == {"accuracy": 0.75, "mean_accuracy": 0.625, "label_accuracy": {"a": 0.5, "b": 0.75}}


@pytest.mark.slow
def test_attributes_are_scored_on_all_test_images(tmp_path, facekit):
    """Images without any attribute count too."""
    root = faces(tmp_path / "data", 12)
    rows = [f"{label}/{i}.png,{int(label == 'bars')},{int(i % 2)}" for label in LABELS for i in range(12)]
    (tmp_path / "l.csv").write_text("\n".join(["file,Upright,Odd", *rows]))
    options = [f"--set=params.{name}={value}" for name, value in {**TINY, "single": "false"}.items()]
    command = ["train", "classifier", "--data", root, "--labels", tmp_path / "l.csv", "--out", tmp_path / "run"]
    done = facekit(*command, "--size", 32, "--batch", 4, "--steps", 2, "--set", "data.split=[1,1,1]", *options)
    assert done.code == 0, done.err
    found = card.read_made(tmp_path / "run" / "card.yaml")["scores"]
    assert found["test_images"] == 8 and set(found["label_accuracy"]) == {"Odd", "Upright"}


def test_without_test_images_there_are_no_scores(tmp_path):
    built = made()
    empty = Layout({"x": []}, {"x": []}, {}, {"x": []}, {"x": None}, {})
    assert built.finish(torch.nn.ModuleDict(built.nets()), empty, tmp_path) == {}


def test_learning_rate_rises_falls_and_ends_at_zero():
    factors = [made().lr_factor(Progress(step, 200)) for step in range(200)]
    assert 0 < factors[0] < factors[5] < factors[10] == max(factors) == pytest.approx(1)
    assert factors[10:] == sorted(factors[10:], reverse=True) and factors[-1] < 0.001


def test_the_memory_estimate_counts_its_activations():
    values = card.TrainCard.model_validate({"recipe": "classifier", "data": {"size": 64, "batch": 32}})
    built = Classifier({"labels": ["a", "b", "c", "d", "e"]}, 64)
    guess = memory_estimate.estimate(built, built.terms(), values)
    assert guess.parameters == {"face": 619_493} and guess.activation_bytes > 32 * 3 * 64 * 64


def test_its_example_card_is_whole():
    values = card.load(Path(__file__).parents[2] / "examples" / "cards" / "classifier.yaml")
    checked = card.validate(card.TrainCard, values, "the example")
    assert set(values["params"]) == set(ClassifierParams.model_fields) - {"labels"}
    assert ClassifierParams.model_validate(checked.params) == ClassifierParams()
    assert registry.find("classifier")[0] is Classifier


def test_the_shipped_classifier_sees_a_smile():
    from skimage.data import astronaut

    from facekit.faces import align_face, find_detector

    model = checkpoint.load_model("expressions")
    face = align_face(astronaut(), find_detector("cascade").detect(astronaut())[0], 96, 0.0).image
    likely = model.recipe.probabilities(model.nets, images.to_tensor(face)[None])[0]
    assert likely.argmax() == model.recipe.params.labels.index("happiness") and likely.max() > 0.8
