"""Labelled images on their way into a run: splits, balance, readers, augmentation, previews; and `--to LABEL`.

The file is also a recipe: `facekit train tests/recipe_api/test_labelled.py`.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import toy
from facekit.data.loader import Batches
from facekit.errors import CardError, InputError
from facekit.ops.losses import l1
from facekit.recipe_api.base import Phase, term
from facekit.recipe_api.labelled import FEWEST, Labelled, LabelledParams, LabelledReader, LabelledScene, open_labelled
from facekit.storage import card
from facekit.training import memory_estimate


class ToneScene(LabelledScene):
    """`g` makes an image of a label's tone."""

    @term("G")
    def tone(self) -> Tensor:
        """An image translated to its own labels is itself."""
        return l1(self.nets.g(self.x_label)[:, :, None, None], self.image)


class Tone(Labelled):
    """A toy: all images of a label become one tone."""

    Scene = ToneScene
    phases = (Phase("G", ("g",)),)
    presets = {"tone": {}}
    defaults = {"data": {"size": 16, "batch": 4}, "run": {"steps": 4, "log_every": 1}, "optim": {"lr": 0.05}}
    exports = ("g",)

    def nets(self) -> dict[str, nn.Module]:
        return {"g": nn.Linear(self.labels, 3)}

    def translate(self, nets: nn.ModuleDict, x: Tensor, to: str) -> Tensor:
        return nets["g"](self.vector(to, x))[:, :, None, None].expand_as(x).clamp(-1, 1)


def of_colour(folder: Path, count: int, colour: tuple[int, int, int]) -> None:
    """Write `count` images of one colour, a little different each."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (16, 16), (*colour[:2], colour[2] + index)).save(folder / f"{folder.name}{index:02d}.png")


def three_colours(root: Path) -> Path:
    """Write three labels: 40 red, 16 green, 8 blue."""
    of_colour(root / "red", 40, (200, 0, 0))
    of_colour(root / "green", 16, (0, 200, 0))
    of_colour(root / "blue", 8, (0, 0, 200))
    return root


@pytest.fixture
def faces(tmp_path):
    return three_colours(tmp_path / "faces")


def opened(root, params=None, **data):
    return open_labelled(card.Data(root=str(root), size=16, **data), LabelledParams(**(params or {})))


def names(paths) -> list[str]:
    return [path.name for path in paths]


def counts(paths) -> dict[str, int]:
    folders = [path.parent.name for path in paths]
    return {label: folders.count(label) for label in sorted(set(folders))}


@pytest.fixture
def attributes(tmp_path):
    """24 images: every second one is young, every third one smiles, eight do neither."""
    root = toy.fill(tmp_path / "d", 24)
    rows = [f"{i:03d}.png,{int(i % 2 == 0)},{int(i % 3 == 0)},1" for i in range(24)]
    (tmp_path / "l.csv").write_text("\n".join(["file,Young,Smiling,Human", *rows]))
    return {"root": root, "labels": str(tmp_path / "l.csv")}


def test_every_image_has_a_one_for_its_label(faces):
    layout = opened(faces)
    assert layout.params == {"labels": ["blue", "green", "red"]}
    reader = layout.readers["x"]
    for path in layout.train["x"] + layout.previews["x"]:
        sample = reader.read(path, 16)
        assert sample["x"].shape == (16, 16, 3) and sample["x_label"].dtype == np.float32
        assert layout.params["labels"][int(sample["x_label"].argmax())] == path.parent.name
        assert sample["x_label"].sum() == 1


def test_labels_come_in_the_order_that_is_asked_for_and_others_go(faces):
    layout = opened(faces, {"labels": ("red", "blue")})
    assert layout.params == {"labels": ["red", "blue"]}
    assert set(counts(layout.train["x"])) == {"red", "blue"}
    path = next(p for p in layout.train["x"] if p.parent.name == "blue")
    assert layout.readers["x"].labels[path].tolist() == [0, 1]


def test_some_of_each_label_are_held_out_and_scored(faces):
    layout = opened(faces)
    assert counts(layout.previews["x"]) == {"blue": 1, "green": 2, "red": 4}
    assert set(layout.test["x"]) == set(layout.previews["x"])
    assert not set(layout.previews["x"]) & set(layout.train["x"])
    assert len(layout.previews["x"]) + len(layout.train["x"]) == 64
    assert [p.parent.name for p in layout.previews["x"][:3]] == ["blue", "green", "red"]  # previews show the first few
    assert {label: len(layout.previews[label]) for label in ("blue", "green", "red")} == {
        "blue": 1,
        "green": 2,
        "red": 4,
    }
    assert counts(opened(faces, holdout=3).previews["x"]) == {"blue": 3, "green": 3, "red": 3}
    assert counts(opened(faces, holdout=100).train["x"]) == {"blue": 1, "green": 1, "red": 1}
    assert opened(faces, holdout=0).previews["x"] == []


def test_a_split_deals_each_label_into_three(faces):
    layout = opened(faces, split=(6, 1, 1), holdout=2)
    assert counts(layout.train["x"]) == {"blue": 6, "green": 12, "red": 30}
    assert counts(layout.previews["x"]) == {"blue": 1, "green": 2, "red": 2}
    assert counts(layout.test["x"]) == {"blue": 1, "green": 2, "red": 5}
    assert {label: len(layout.test[label]) for label in layout.params["labels"]} == counts(layout.test["x"])
    parts = [set(layout.train["x"]), set(layout.previews["x"]), set(layout.test["x"])]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert opened(faces, split=(6, 1, 1), holdout=0).previews["x"] == []


def test_a_test_folder_is_scored_and_nothing_else_is_left_out(tmp_path, facekit):
    of_colour(tmp_path / "train" / "red", 9, (200, 0, 0))
    of_colour(tmp_path / "train" / "blue", 8, (0, 0, 200))
    of_colour(tmp_path / "test" / "red", 6, (200, 0, 0))
    of_colour(tmp_path / "test" / "blue", 2, (0, 0, 200))
    of_colour(tmp_path / "test" / "grey", 2, (90, 90, 90))
    layout = opened(tmp_path, split=(8, 1, 1))
    assert counts(layout.train["x"]) == {"blue": 8, "red": 9}
    assert counts(layout.test["x"]) == {"blue": 2, "red": 6}
    assert counts(layout.previews["x"]) == {"blue": 2, "red": 4}
    assert all(path.parts[-3] == "test" for path in layout.previews["x"] + layout.test["x"])
    said = facekit("train", __file__, "--data", tmp_path, "--dry-run").err
    assert "only test images are labelled 'grey'" in said


def test_balance_shows_rare_labels_as_often_as_the_commonest(faces):
    plain, even = opened(faces, holdout=0), opened(faces, {"balance": True}, holdout=0)
    assert counts(plain.train["x"]) == {"blue": 8, "green": 16, "red": 40}
    assert counts(even.train["x"]) == {"blue": 40, "green": 40, "red": 40}
    times = [even.train["x"].count(path) for path in set(even.train["x"])]
    assert sorted(set(times)) == [1, 2, 3, 5]  # of 16 green images 8 come three times
    assert counts(opened(faces, {"balance": True}, limit=10, holdout=1).train["x"]) == dict.fromkeys(
        ("blue", "green", "red"), 9
    )


def test_the_limit_counts_each_label(faces):
    assert counts(opened(faces, limit=10, holdout=0).train["x"]) == {"blue": 8, "green": 10, "red": 10}


def test_images_may_have_several_labels_or_none(attributes):
    layout = opened(attributes["root"], {"single": False, "labels": ("Smiling", "Young")}, labels=attributes["labels"])
    assert len(layout.train["x"]) + len(layout.previews["x"]) == 24 and len(layout.previews["x"]) == 3
    vectors = {path.name: vector.tolist() for path, vector in layout.readers["x"].labels.items()}
    assert [vectors[f"{i:03d}.png"] for i in (0, 1, 2, 3)] == [[1, 1], [0, 0], [0, 1], [1, 0]]
    held = [int(path.stem) for path in layout.previews["x"]]
    assert names(layout.previews["Young"]) == [f"{i:03d}.png" for i in held if i % 2 == 0]


def test_several_labels_are_refused_where_there_must_be_one(attributes):
    several = r"000\.png is labelled Human and Smiling and Young, not one, and so are 15"
    with pytest.raises(InputError, match=several) as error:
        opened(attributes["root"], labels=attributes["labels"])
    assert "single=false" in error.value.hint
    with pytest.raises(CardError, match="one label each"):
        opened(attributes["root"], {"single": False, "balance": True}, labels=attributes["labels"])


def test_labels_that_cannot_be_trained_are_refused(faces, attributes):
    with pytest.raises(CardError, match="did you mean 'green'"):
        opened(faces, {"labels": ("red", "gren")})
    with pytest.raises(CardError, match="'red' twice"):
        opened(faces, {"labels": ("red", "blue", "red")})
    with pytest.raises(CardError, match="only one label"):
        opened(faces, {"labels": ("red",)})
    next((faces / "blue").glob("*.png")).unlink()
    with pytest.raises(InputError, match=f"only 7 images are labelled 'blue', of {FEWEST}"):
        opened(faces)
    (attributes["root"] / "000.png").unlink()
    with pytest.raises(InputError, match="only 7 images are labelled 'Smiling'"):
        opened(attributes["root"], {"single": False}, labels=attributes["labels"])


def test_unreadable_images_are_passed_over(faces):
    (faces / "blue" / "zzz.png").write_bytes(b"no image")
    layout = opened(faces, holdout=0)
    assert counts(layout.train["x"])["blue"] == 8
    next((faces / "blue").glob("blue*.png")).write_bytes(b"")
    with pytest.raises(InputError, match="only 7 images"):
        opened(faces)


@pytest.mark.slow
def test_the_balance_is_reported(faces, facekit):
    said = facekit("train", __file__, "--data", faces, "--dry-run").err
    assert "57 images with labels: blue 7 (12%), green 14 (25%), red 36 (63%); previews of 7, 7 for scores" in said
    assert "'red' has 5.1 times the images of 'blue'" in said and "params.balance=true" in said
    even = facekit("train", __file__, "--data", faces, "--set", "params.balance=true", "--dry-run").err
    assert "each label shown as often" in even and "times the images" not in even
    two = facekit("train", __file__, "--data", faces, "--set", "params.labels=[green, blue]", "--dry-run").err
    assert "40 images have none of these labels" in two and "times the images" not in two


def test_a_mirrored_image_keeps_its_labels():
    reader = LabelledReader("x", {})
    image, label = np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.array([0, 1], np.float32)
    mirrored = reader.mirror({"x": image, "x_label": label})
    assert (mirrored["x"] == image[:, ::-1]).all() and (mirrored["x_label"] == label).all()


def test_batches_pair_images_with_their_labels(faces):
    layout = opened(faces, {"labels": ("red", "green", "blue")})
    batches = Batches.of(layout.train, 16, layout.readers, seed=0, batch=8, size=16)
    for step in range(3):
        (batch,) = batches(step)
        assert batch["x"].shape == (8, 3, 16, 16) and batch["x_label"].shape == (8, 3)
        assert torch.equal(batch["x"].mean((2, 3)).argmax(1), batch["x_label"].argmax(1))


def scene(augment=0.0, count=6):
    torch.manual_seed(3)
    labels = torch.eye(3).repeat(count // 3, 1)
    x = torch.nn.functional.interpolate(torch.rand(count, 3, 4, 4) * 2 - 1, 16, mode="bicubic").clamp(-1, 1)
    made = Tone({"augment": augment, "labels": ["a", "b", "c"]}, 16)
    return ToneScene(made, nn.ModuleDict(), {"x": x, "x_label": labels}, 0)


def test_targets_are_the_labels_of_the_batch_in_another_order():
    seen = scene(count=30)
    assert torch.equal(seen.target.sum(0), seen.x_label.sum(0))
    assert not torch.equal(seen.target, seen.x_label)
    assert seen.target is seen.target  # drawn once
    torch.manual_seed(5)
    first = scene(count=30).target
    assert torch.equal(first, scene(count=30).target)


def test_augmentation_changes_a_little_and_each_image_in_its_own_way():
    plain, changed = scene(), scene(1.0)
    assert plain.image is plain.x
    image = changed.image
    assert image.shape == changed.x.shape and image.abs().max() <= 1 and image is changed.image
    moved = (image - changed.x).abs().mean((1, 2, 3))
    assert moved.min() > 0.02 and moved.max() < 0.5 and moved.std() > 1e-3
    gentle = (scene(0.2).image - plain.x).abs().mean()
    assert gentle < 0.6 * moved.mean()


def test_no_border_comes_in_where_an_image_is_turned():
    seen = scene(1.0)
    seen.x = torch.full((6, 3, 16, 16), 0.5)
    image = seen.image
    assert torch.allclose(image, image[:, :, :1, :1].expand_as(image), atol=1e-4)


def test_a_vector_has_a_one_for_each_label_asked_for():
    made = Tone({"labels": ["angry", "smile", "young"], "single": False}, 16)
    x = torch.zeros(2, 3, 4, 4)
    assert made.vector("smile", x).tolist() == [[0, 1, 0]] * 2
    assert made.vector("young+angry", x).tolist() == [[1, 0, 1]] * 2
    assert made.vector("smile", x.double()).dtype == torch.float64
    assert made.combines and not Tone({"labels": ["a", "b"]}, 16).combines
    off = {f"no-{name}": f"no-{name}" for name in made.params.labels}
    assert made.targets(card.Domains()) == {**{name: name for name in made.params.labels}, **off}


def test_a_face_keeps_the_attributes_that_are_not_asked_for_and_hair_has_one_colour():
    labels = ["Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"]  # the authors' choice of CelebA's
    made, x = Tone({"labels": labels, "single": False}, 16), torch.zeros(2, 3, 4, 4)
    faces = ["Black_Hair+Male+Young", "Brown_Hair"]
    for to, rows in (
        ("Blond_Hair", [[0, 1, 0, 1, 1], [0, 1, 0, 0, 0]]),
        ("Male", [[1, 0, 0, 1, 1], [0, 0, 1, 1, 0]]),
        ("no-Male", [[1, 0, 0, 0, 1], [0, 0, 1, 0, 0]]),
        ("no-Young+Black_Hair", [[1, 0, 0, 1, 0], [1, 0, 0, 0, 0]]),
    ):
        assert made.vector(to, x, faces).tolist() == rows
    own = Tone({"labels": ["hat", "cap", "young"], "single": False, "exclusive": [["hat", "cap"]]}, 16)
    assert own.vector("cap", x[:1], ["hat+young"]).tolist() == [[0, 1, 1]]


def test_the_memory_estimate_knows_the_batch():
    values = card.TrainCard.model_validate({"recipe": "tone", "data": {"size": 16, "batch": 4}})
    made = Tone({"labels": ["a", "b", "c"]}, 16)
    assert made.blank(4, 16)["x_label"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    guess = memory_estimate.estimate(made, made.terms(), values)
    assert guess.parameters == {"g": 12} and guess.activation_bytes


@pytest.fixture(scope="module")
def trained(facekit, tmp_path_factory):
    """The toy trained until it knows the three tones."""
    root = tmp_path_factory.mktemp("labelled")
    faces, run = three_colours(root / "faces"), root / "run"
    options = ["--steps", 60, "--set", "run.save_every=60", "--set", "params.labels=[red, green, blue]"]
    done = facekit("train", __file__, "--data", faces, "--out", run, *options)
    assert done.code == 0, done.err
    return run


@pytest.mark.slow
def test_a_preview_shows_every_label_beside_the_input(trained):
    (preview,) = (trained / "previews").glob("*.png")
    page = np.asarray(Image.open(preview)).astype(int)
    cells = {colour: (page.argmax(2) == k) & (page.max(2) - page.min(2) > 80) for k, colour in enumerate("rgb")}
    first = [int(np.nonzero(found.sum(0) >= 4 * 16)[0][0]) for found in cells.values()]  # four faces high
    assert first == sorted(first) and len(set(first)) == 3
    assert page.shape[1] > 4 * 16


def test_translate_requires_a_label(trained, facekit, tmp_path):
    toy.fill(tmp_path / "in", 2)
    for k, label in enumerate(("red", "green", "blue")):
        out = tmp_path / label
        done = facekit("translate", tmp_path / "in", out, "--weights", trained, "--to", label, "--no-align")
        assert done.code == 0, done.err
        pixels = np.asarray(Image.open(out / "000.png")).mean((0, 1))
        assert pixels.argmax() == k and pixels[k] > 100


@pytest.mark.parametrize("to", ["sad", "red+green", None])
def test_an_unknown_label_is_refused_with_the_list(trained, facekit, tmp_path, to):
    toy.fill(tmp_path / "in", 1)
    asked = () if to is None else ("--to", to)
    done = facekit("translate", tmp_path / "in", tmp_path / "out", "--weights", trained, *asked, "--no-align")
    assert done.code == 2
    assert "--to red or green or blue" in done.err
    assert not (tmp_path / "out" / "000.png").exists()


def test_labels_are_an_option_of_train_and_replace_those_of_a_card(attributes, facekit, tmp_path):
    root, labels = attributes["root"], attributes["labels"]
    options = ["--set", "params.single=false", "--dry-run"]
    done = facekit("train", __file__, "--data", root, "--labels", labels, *options)
    assert done.code == 0 and f"labels: {labels}" in done.out.replace("\n    ", " ")
    (tmp_path / "card.yaml").write_text(done.out)
    other = tmp_path / "other"
    for label in ("x", "y"):
        toy.fill(other / label, FEWEST)
    moved = facekit("train", "--card", tmp_path / "card.yaml", "--data", other, *options, "--set", "params.labels=[]")
    assert moved.code == 0 and labels not in moved.out and "[x, y]" in moved.out


def test_wrong_labels_end_with_their_exit_code(faces, facekit, tmp_path):
    (tmp_path / "l.csv").write_text("file,label\n../secret.png,red\n")
    done = facekit("train", __file__, "--data", faces, "--labels", tmp_path / "l.csv", "--dry-run")
    assert done.code == 3 and "not below the root" in done.err
    assert facekit("train", __file__, "--data", toy.domains(tmp_path / "two"), "--dry-run").code == 3
    assert facekit("train", __file__, "--set", "params.labels=[pink]", "--data", faces, "--dry-run").code == 2


def test_of_many_labels_previews_show_some_and_say_so(tmp_path, capsys):
    from facekit.runtime import console

    for index in range(20):
        of_colour(tmp_path / f"tone{index:02d}", 8, (index, 0, 0))
    token = console.current.set(console.Plain())
    layout = opened(tmp_path)
    console.current.reset(token)
    assert "previews show 16 of the 20 labels" in capsys.readouterr().err
    recipe = Tone(layout.params)
    nets = nn.ModuleDict(recipe.nets())
    shown = recipe.preview(nets, torch.zeros(1, 3, 16, 16), "tone00")
    assert len(shown) == 16 and set(shown) <= set(layout.params["labels"])


def test_the_cache_of_decoded_images_holds_no_rows_of_labels(faces):
    layout = opened(faces)
    batches = Batches.of(layout.train, 16, layout.readers, seed=0, batch=8, size=16)
    first, again = batches(0)[0], batches(0)[0]
    assert torch.equal(first["x_label"], again["x_label"]) and first["x_label"].shape == (8, 3)
    kept = [batches.domains[0].cache.get(number) for number in range(len(layout.train["x"]))]
    assert any(kept) and all(set(sample) == {"x"} for sample in kept if sample)
