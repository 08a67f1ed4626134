"""Enlarging: sizes and proportions, when the net is asked, other weights, faces that go back into photos."""

import numpy as np
import pytest
import yaml
from PIL import Image
from skimage import data

from facekit.errors import CardError, MissingError
from facekit.inference import enlarger
from facekit.inference.enlarger import Enlarger
from facekit.inference.face_input import Crop
from facekit.inference.translator import load
from facekit.storage import images

FACE = Image.fromarray(data.astronaut()[0:200, 120:320])


def values(size):
    return images.to_tensor(FACE.resize(size, Image.Resampling.LANCZOS))


def doublings(made, monkeypatch):
    """Count the passes of the net, by the sizes that it is given."""
    passes = []
    recipe = made.model.recipe
    whole = recipe.doubled
    seen = lambda nets, x: passes.append((x.shape[3], x.shape[2])) or whole(nets, x)  # noqa: E731
    monkeypatch.setattr(recipe, "doubled", seen)
    return passes


def test_interpolation_is_lanczos():
    small = FACE.resize((60, 40))
    wanted = small.resize((150, 100), Image.Resampling.LANCZOS)
    assert np.array_equal(Enlarger("none")(images.to_tensor(small), 100), wanted)


@pytest.mark.parametrize(
    ("edge", "size", "passes"),
    [
        (40, (60, 40), []),
        (20, (30, 20), []),
        (43, (64, 43), []),
        (60, (90, 60), [(60, 40)]),
        (80, (120, 80), [(60, 40)]),
        (81, (122, 81), [(60, 40), (120, 80)]),
        (500, (750, 500), [(60, 40), (120, 80)]),
    ],
)
def test_the_net_doubles_as_often_as_needed(edge, size, passes, monkeypatch):
    made = Enlarger()
    seen = doublings(made, monkeypatch)
    assert made(values((60, 40)), edge).size == size
    assert seen == passes


def test_the_net_makes_no_picture_beyond_its_limit(monkeypatch):
    monkeypatch.setattr(enlarger, "LARGEST", 100)
    made = Enlarger()
    seen = doublings(made, monkeypatch)
    assert made(values((48, 48)), 300).size == (300, 300)
    assert seen == [(48, 48)]


def test_the_net_is_sharper_than_interpolation_and_keeps_colours():
    sharp, soft = (np.asarray(Enlarger(name)(values((64, 64)), 128), float) for name in ("upscaler", "none"))
    steps = [np.abs(np.diff(x, axis=0)).mean() + np.abs(np.diff(x, axis=1)).mean() for x in (sharp, soft)]
    assert steps[0] > 1.02 * steps[1]
    assert np.abs(sharp.mean((0, 1)) - soft.mean((0, 1))).max() < 3
    assert np.abs(sharp - soft).mean() < 10


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(CardError, match="anime holds no upscaler"):
        Enlarger("anime")
    with pytest.raises(MissingError):
        Enlarger(str(tmp_path / "nothing"))


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "drawn"), [(0.5, 256), (2.0, 128), (0.01, 512)], ids=["larger", "smaller", "huge"])
def test_faces_grow_to_their_place_in_the_photo_and_no_further(scale, drawn):
    translator = load("anime", upscaler="none")
    crop = Crop(FACE.resize((128, 128)), np.array([[0, -scale, 9], [scale, 0, 9]]), 128)  # a face that lies
    assert translator.fitted([crop.face], places=[crop.place])[0].size == (drawn, drawn)
    assert translator.fitted([crop.face])[0].size == (128, 128)


@pytest.mark.slow
def test_pasted_faces_are_enlarged_by_the_net_that_was_asked_for():
    photo = Image.fromarray(data.astronaut()).resize((1024, 1024))
    sharp, soft = (np.asarray(load("anime", upscaler=name)(photo, paste=True), int) for name in ("upscaler", "none"))
    changed = np.abs(sharp - soft).max(2) > 2
    rows, columns = np.nonzero(changed)
    assert 0.01 < changed.mean() < 0.2
    assert rows.max() < 700 and columns.min() > 200  # the face alone


@pytest.mark.slow
def test_the_card_says_what_enlarged(tmp_path, facekit):
    FACE.save(tmp_path / "face.png")
    line = ["translate", tmp_path / "face.png"]

    def said(*more):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        assert facekit(*line, out, "--no-align", *more).code == 0
        found = yaml.safe_load(out.with_name(f"{out.name}.card.yaml").read_text())
        return found["options"].get("upscaler"), "upscaler" in found["inputs"]

    assert said() == (None, False)
    assert said("--size", 512) == (None, True)
    assert said("--size", 512, "--upscaler", "none") == ("none", False)
