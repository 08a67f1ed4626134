"""`facekit translate` with weights that know several labels: --to, --from, --strength, --mask."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import toy
from facekit.errors import CardError
from facekit.inference import translator
from facekit.recipe_api import checkpoint

RECIPE = '''
import torch
from torch import nn
from facekit.recipe_api.labelled import Labelled, LabelledParams

class Many(Labelled):
    """Adds a colour per label."""

    presets = {"many": {}}
    exports = ("level",)
    multiple = 4
    masks = True

    def nets(self):
        return {"level": nn.Conv2d(1, 1, 1)}

    def translate(self, nets, x, to, strength=1.0):
        red, green, blue = (self.vector(to, x) * strength).T
        return torch.stack([red, green, blue], 1)[:, :, None, None].expand_as(x) * 0.5

    def mask(self, nets, x, to):
        return torch.full_like(x[:, :1], 0.25)


class Keeps(Many):
    """Shows the attributes that a face has after the change."""

    presets = {"keeps": {}}

    def translate(self, nets, x, to, source=None):
        return self.vector(to, x, source)[:, :, None, None].expand_as(x)


class Bright(Labelled):
    """A classifier: whoever is in the picture is young, and angry."""

    presets = {"bright": {}}
    exports = ("level",)

    def nets(self):
        return {"level": nn.Conv2d(1, 1, 1)}

    def translate(self, nets, x, to):
        return x

    def probabilities(self, nets, x):
        return torch.tensor([[0.9, 0.2, 0.7]]).expand(len(x), -1)


class Told(Many):
    """Shows what it is told of each face."""

    presets = {"told": {}}

    def translate(self, nets, x, to, source=None):
        rows = torch.cat([self.vector(name, x[:1]) for name in source])
        return rows[:, :, None, None].expand_as(x)
'''
TOY, MANY = ("--recipe", toy.FILE), ("--recipe", "many.py")
LABELS = ["angry", "smile", "young"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Three pictures in in/, and weights of four kinds."""
    monkeypatch.chdir(tmp_path)
    toy.fill(Path("in"), 3)
    (tmp_path / "many.py").write_text(RECIPE)
    kinds = (("one", "many", True), ("any", "many", False), ("told", "told", True))
    for name, recipe, single in (*kinds, ("keeps", "keeps", False), ("bright", "bright", False)):
        values = {
            "recipe": f"{tmp_path}/many.py:{recipe}",
            "data": {"size": 16},
            "params": {"labels": LABELS, "single": single},
        }
        checkpoint.save_model(tmp_path / f"{name}.safetensors", nn.ModuleDict({"level": nn.Conv2d(1, 1, 1)}), values)
    return tmp_path


@pytest.fixture
def translate(facekit, here):
    def run(*more, weights="one", out="out"):
        given = ["--weights", f"{weights}.safetensors", "--recipe", "many.py", "--no-align"]
        return facekit("translate", "in", out, *given, *more)

    return run


def colour(path) -> tuple[int, int, int]:
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert (pixels == pixels[0, 0]).all()
    return tuple(int(v) for v in pixels[0, 0])


def level(value: float) -> int:
    return round((value + 1) * 127.5)


def files(folder) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*.png"))


def test_one_label_goes_where_a_domain_would(translate):
    assert translate("--to", "smile").code == 0
    assert files("out") == ["000.png", "001.png", "002.png"]
    red, green, blue = colour("out/000.png")
    assert (red, blue) == (level(0), level(0)) and abs(green - level(0.5)) <= 1


def test_several_labels_are_folders(translate):
    done = translate("--to", "young,angry", "--sheet")
    assert done.code == 0, done.err
    assert files("out") == [f"{label}/00{i}.png" for label in ("angry", "young") for i in range(3)]
    assert colour("out/angry/001.png")[0] > 180 > colour("out/young/001.png")[0]
    assert Path("out-sheet.png").exists()
    assert yaml.safe_load(Path("out/card.yaml").read_text())["options"]["to"] == "young,angry"
    again = translate("--to", "young,angry")
    assert again.code == 0 and "nothing" in again.err


def test_all_is_every_label_of_the_weights_a_column_each(translate):
    assert translate("--to", "all", "--sheet").code == 0
    assert sorted(p.name for p in Path("out").iterdir() if p.is_dir()) == LABELS
    sheet = Image.open("out-sheet.png")
    assert sheet.width > 4 * 128 and sheet.height > 3 * 128  # the input and three labels; three faces


def test_the_columns_of_a_sheet_are_as_asked_for(translate):
    assert translate("--to", "young, angry", "--sheet").code == 0
    sheet = np.asarray(Image.open("out-sheet.png").convert("RGB"), int)
    column = sheet.shape[1] // 3
    young, angry = (sheet[sheet.shape[0] // 2, int(column * (k + 0.5))] for k in (1, 2))
    assert young[2] > 180 > young[0] and angry[0] > 180 > angry[2]


def test_a_domain_may_be_called_anything(facekit, here):
    values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "all, of them"}}
    checkpoint.save_model(here / "odd.safetensors", nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)
    done = facekit("translate", "in", "o", "--weights", "odd.safetensors", *TOY, "--no-align", "--to", "all, of them")
    assert done.code == 0 and files("o") == ["000.png", "001.png", "002.png"]


def test_weights_cannot_write_outside_the_output(facekit, here):
    values = {"recipe": f"{here}/many.py:many", "data": {"size": 16}, "params": {"labels": ["..", "a/b", "c"]}}
    checkpoint.save_model(here / "bad.safetensors", nn.ModuleDict({"level": nn.Conv2d(1, 1, 1)}), values)
    for to in ("all", "a/b,c"):
        done = facekit("translate", "in", "o/p", "--weights", "bad.safetensors", *MANY, "--no-align", "--to", to)
        assert done.code == 2 and "cannot be the name of a folder" in done.err and not Path("o").exists()


def test_an_unknown_label_is_refused_with_those_there_are(translate):
    for to in ("smle", "smile,smle"):
        done = translate("--to", to)
        assert done.code == 2 and "did you mean 'smile'" in done.err and "angry or smile or young" in done.err
    assert not Path("out").exists()


def test_of_three_labels_none_is_taken_unasked(translate):
    done = translate()
    assert done.code == 2 and "angry or smile or young" in done.err


def test_attributes_can_be_asked_for_together(translate):
    assert translate("--to", "smile+angry", weights="any").code == 0
    red, green, blue = colour("out/000.png")
    assert red == green > 180 > blue
    done = translate("--to", "smile+angry", weights="one", out="other")
    assert done.code == 2


def test_strength_scales_what_is_done(translate):
    assert translate("--to", "smile", "--strength", 0.5).code == 0
    assert abs(colour("out/000.png")[1] - level(0.25)) <= 1
    assert yaml.safe_load(Path("out/card.yaml").read_text())["options"]["strength"] == 0.5
    assert translate("--to", "smile", "--strength", 0, "--from", "angry", weights="told", out="other").code == 0
    assert np.array_equal(np.asarray(Image.open("other/000.png")), np.asarray(Image.open("in/000.png")))
    done = translate("--to", "smile", "--strength", 2, "--from", "angry", weights="told", out="more")
    assert done.code == 2 and "from 0 to 1" in done.err


def test_a_mask_shows_where_faces_are_changed(translate):
    assert translate("--to", "smile", "--mask").code == 0
    assert colour("out/000.png") == (64, 64, 64)


def test_a_method_without_a_mask_says_so(facekit, tmp_path):
    toy.fill(tmp_path / "in", 1)
    torch.manual_seed(0)
    checkpoint.save_model(
        tmp_path / "a.safetensors", nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), {"recipe": str(toy.FILE)}
    )
    done = facekit(
        "translate", tmp_path / "in", tmp_path / "o", "--weights", tmp_path / "a.safetensors", *TOY, "--mask"
    )
    assert done.code == 2 and "mask" in done.err


def test_from_says_what_the_faces_are(translate):
    assert translate("--to", "smile", "--from", "young", weights="told").code == 0
    assert colour("out/000.png") == (128, 128, 255)
    done = translate("--to", "smile", "--from", "yung", weights="told", out="other")
    assert done.code == 2 and "did you mean 'young'" in done.err
    done = translate("--to", "smile", "--from", "young", out="other")
    assert done.code == 2 and "leave out --from" in done.err


def test_or_by_their_folder(translate):
    done = translate("--to", "smile", weights="told")
    assert done.code == 2 and "--from" in done.err
    for index, label in enumerate(("angry", "young")):
        Path("in", label).mkdir()
        Path("in", f"00{index}.png").rename(Path("in", label, "x.png"))
    for left in Path("in").glob("*.png"):
        left.unlink()
    assert translate("--to", "smile", weights="told").code == 0
    assert colour("out/angry/x.png") == (255, 128, 128) and colour("out/young/x.png") == (128, 128, 255)


def test_one_file_cannot_hold_several(facekit, here):
    done = facekit(
        "translate", "in/000.png", "o.png", "--weights", "one.safetensors", *MANY, "--no-align", "--to", "all"
    )
    assert done.code == 2 and "folder" in done.err


def test_the_same_from_python(here):
    model = translator.load("one.safetensors", "smile", strength=2.0, device="cpu", recipe="many.py")
    assert model.domains == LABELS and model.name == "smile"
    assert np.asarray(model(toy.picture(), align=False))[0, 0, 1] == 255
    with pytest.raises(CardError, match="sml"):
        translator.load("one.safetensors", "sml", device="cpu", recipe="many.py")


def test_attributes_stay_as_they_are_given(translate):
    assert translate("--to", "smile", "--from", "young", weights="keeps").code == 0
    assert colour("out/000.png") == (128, 255, 255)
    assert translate("--to", "no-young", "--from", "young+angry", weights="keeps", out="old").code == 0
    assert colour("old/000.png") == (255, 128, 128)
    assert translate("--to", "smile", "--from", "none", weights="keeps", out="plain").code == 0
    assert colour("plain/000.png") == (128, 255, 128)
    assert translate("--to", "all", "--from", "none", weights="keeps", out="each").code == 0
    assert sorted(p.name for p in Path("each").iterdir() if p.is_dir()) == LABELS


def test_attributes_come_from_a_labels_file_or_a_classifier(translate):
    Path("labels.csv").write_text("file,labels\n000.png,angry\n001.png,young\n002.png,young|angry\n")
    assert translate("--to", "smile", "--labels", "labels.csv", weights="keeps").code == 0
    assert [colour(f"out/00{i}.png") for i in range(3)] == [(255, 255, 128), (128, 255, 255), (255, 255, 255)]
    assert translate("--to", "smile", "--classifier", "bright.safetensors", weights="keeps", out="seen").code == 0
    assert colour("seen/000.png") == (255, 255, 255)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "must know"),
        (("--labels", "labels.csv"), "have no labels (the first: 001.png)"),
        (("--from", "young", "--labels", "labels.csv"), "both"),
        (("--classifier", "one.safetensors"), "not a classifier"),
    ],
)
def test_attributes_that_nothing_tells_are_an_error(translate, more, words):
    Path("labels.csv").write_text("file,labels\n000.png,angry\n")
    done = translate("--to", "smile", *more, weights="keeps", out="other")
    assert done.code == 2 and words in done.err
