"""What the demo's button does, without the page: faces, grids, files to download."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from torch import nn

import toy
from facekit.errors import CardError, InputError
from facekit.recipe_api import checkpoint
from facekit.serving import demo_run
from facekit.serving.demo_run import Controls
from facekit.serving.studio import Studio

PORTRAIT = Image.fromarray(astronaut()[20:220, 110:340])
RECIPE = '''
import torch
from torch import nn
from facekit.recipe_api.labelled import Labelled

class Many(Labelled):
    """Adds a colour per label."""

    presets = {"many": {}}
    exports = ("level",)
    multiple = 4

    def nets(self):
        return {"level": nn.Conv2d(1, 1, 1)}

    def translate(self, nets, x, to, strength=1.0):
        red, green, blue = (self.vector(to, x) * strength).T
        return torch.stack([red, green, blue], 1)[:, :, None, None].expand_as(x) * 0.5
'''
TOLD = '''
from toy import Toy

class Told(Toy):
    """Paints the angle that it is told, 45 degrees as white."""

    presets = {"told": {}}
    exports = ("level",)

    def nets(self):
        from torch import nn
        return {"level": nn.Conv2d(1, 1, 1)}

    def translate(self, nets, x, to, roll=None):
        return (roll / 45)[:, None, None, None].expand_as(x)
'''


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "me.png"
    PORTRAIT.save(path)
    return path


@pytest.fixture
def plain(tmp_path) -> Studio:
    torch.manual_seed(0)
    values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    path = tmp_path / "tiny.safetensors"
    checkpoint.save_model(path, nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)
    return Studio([str(path)], "cpu", str(toy.FILE), "cascade")


@pytest.fixture
def many(tmp_path) -> Studio:
    own = tmp_path / "many.py"
    own.write_text(RECIPE)
    path = tmp_path / "many.safetensors"
    values = {"recipe": str(own), "data": {"size": 16}, "params": {"labels": ["angry", "smile", "young"]}}
    checkpoint.save_model(path, nn.ModuleDict({"level": nn.Conv2d(1, 1, 1)}), values)
    return Studio([str(path)], "cpu", str(own), "cascade")


def test_a_photo_gives_the_whole_photo_its_face_and_two_files(plain, photo, tmp_path, facekit):
    shown = demo_run.run(plain, photo, Controls("tiny", ("anime",)), tmp_path / "out")
    assert shown.result.size == PORTRAIT.size and shown.text.startswith("1 face, ")
    assert [text for _, text in shown.gallery] == ["face", "anime"] and shown.columns == 2
    assert np.array_equal(np.asarray(Image.open(shown.result_file)), np.asarray(shown.result))
    again = tmp_path / "again.png"
    done = facekit("translate", "--card", shown.card_file, "--recipe", toy.FILE, photo, again)
    assert done.code == 0, done.err
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(shown.result))


def test_several_labels_become_a_grid_with_a_column_each(many, photo, tmp_path):
    controls = Controls("many", ("angry", "smile"), weights_own={"strength": 2.0}, align=False)
    shown = demo_run.run(many, photo, controls, tmp_path / "out")
    assert [text for _, text in shown.gallery] == ["face", "angry", "smile"] and shown.columns == 3
    colours = [np.asarray(image)[0, 0].tolist() for image, _ in shown.gallery[1:]]
    assert colours == [[255, 128, 128], [128, 255, 128]]  # strength 2
    assert shown.result.width > 3 * demo_run.CELL


@pytest.mark.slow
def test_a_tilted_face_is_turned_as_translate_does_it(plain, tmp_path, facekit):
    tilted = tmp_path / "tilted.png"
    PORTRAIT.rotate(-20, Image.Resampling.BICUBIC).save(tilted)
    controls = Controls("tiny", ("anime",), every=True, align=False, rotation="upright")
    shown = demo_run.run(plain, tilted, controls, tmp_path / "out")
    again = tmp_path / "again.png"
    done = facekit("translate", "--card", shown.card_file, "--recipe", toy.FILE, tilted, again)
    assert done.code == 0, done.err
    made = np.asarray(shown.result, int)
    assert np.array_equal(np.asarray(Image.open(again)), made)
    flat = demo_run.run(plain, tilted, Controls("tiny", ("anime",), align=False), tmp_path / "out")
    assert np.abs(made - np.asarray(flat.result)).max() > 0
    before = [np.asarray(picture) for picture, text in (*shown.gallery, *flat.gallery) if text == "face"]
    assert np.array_equal(*before)  # shown as it came


def test_only_weights_of_an_angle_are_told_it(tmp_path, photo):
    own = tmp_path / "told.py"
    own.write_text(TOLD)
    path = tmp_path / "told.safetensors"
    values = {"recipe": str(own), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(path, nn.ModuleDict({"level": nn.Conv2d(1, 1, 1)}), values)
    told = Studio([str(path)], "cpu", str(own), "cascade")
    assert told.describe()[0]["rotations"] == ["upright", "condition"]
    tilted = tmp_path / "tilted.png"
    PORTRAIT.rotate(-20, Image.Resampling.BICUBIC).save(tilted)
    controls = Controls("told", ("anime",), align=False, rotation="condition")
    shown = demo_run.run(told, tilted, controls, tmp_path / "out")
    degrees = np.asarray(shown.result, float)[0, 0, 0] / 127.5 * 45 - 45
    assert 10 < degrees < 30


def test_an_angle_for_weights_that_know_none_is_refused(plain, photo, tmp_path):
    assert plain.describe()[0]["rotations"] == ["upright"]
    with pytest.raises(CardError, match="not conditioned") as error:
        demo_run.run(plain, photo, Controls("tiny", ("anime",), align=False, rotation="condition"), tmp_path / "out")
    assert "upright" in error.value.hint
    blank = tmp_path / "blank.png"
    Image.new("RGB", (64, 64)).save(blank)
    with pytest.raises(InputError) as missing:
        demo_run.run(plain, blank, Controls("tiny", ("anime",), align=False, rotation="upright"), tmp_path / "out")
    assert "rotation" in missing.value.hint


def test_controls_that_do_not_fit_and_photos_without_a_face_are_sentences(plain, tmp_path):
    blank = tmp_path / "blank.png"
    Image.new("RGB", (64, 64)).save(blank)
    for controls, kind in [
        (Controls("tiny", ()), CardError),
        (Controls("tiny", ("anime",), weights_own={"strength": 2.0}), CardError),
        (Controls("tiny", ("anime",)), InputError),
    ]:
        with pytest.raises(kind) as error:
            demo_run.run(plain, blank, controls, tmp_path / "out")
        assert error.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_film_gives_a_film_of_its_first_seconds(plain, tmp_path, monkeypatch):
    clips = pytest.importorskip("clips")
    monkeypatch.setattr(demo_run, "FILM_SECONDS", 1)
    clips.write(tmp_path / "clip.mp4", times=range(14))  # at 10 frames a second
    (name,) = plain.models
    made, text = demo_run.run_film(plain, tmp_path / "clip.mp4", Controls(name, ("anime",)), tmp_path)
    assert made.suffix == ".mp4" and text.endswith(" s")
    frames = clips.frames(made)
    assert len(frames) == 10 and frames[0].shape == (140, 160, 3)
    assert np.abs(frames[0].astype(int) - clips.frames(tmp_path / "clip.mp4")[0]).max() > 40  # the face has changed
    with pytest.raises(CardError, match="to one label"):
        demo_run.run_film(plain, tmp_path / "clip.mp4", Controls(name, ()), tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(InputError) as told:
        demo_run.run_film(plain, tmp_path / "broken.mp4", Controls(name, ("anime",)), tmp_path)
    assert str(tmp_path) not in told.value.message


def test_results_are_removed_after_an_hour(plain, photo, tmp_path, monkeypatch):
    controls = Controls("tiny", ("anime",), align=False)
    first = demo_run.run(plain, photo, controls, tmp_path / "out")
    second = demo_run.run(plain, photo, controls, tmp_path / "out")
    assert first.result_file.exists() and second.result_file.exists()
    monkeypatch.setattr(demo_run, "KEPT", -1)
    demo_run.run(plain, photo, controls, tmp_path / "out")
    assert not first.result_file.exists() and not second.result_file.exists()
