"""Whatever a recipe lets people set is a parameter of the service and a control of the demo."""

import numpy as np
import pytest
from PIL import Image
from torch import nn

import toy
from facekit.errors import CardError
from facekit.recipe_api import checkpoint
from facekit.serving import demo_run
from facekit.serving.demo_run import Controls
from facekit.serving.openapi import document
from facekit.serving.request import parse
from facekit.serving.studio import Studio

FACE = toy.picture(32)
RECIPE = '''
from torch import nn
from facekit.recipe_api.controls import Control, GENERAL
from toy import Toy

class Grey(Toy):
    """Paints one grey; `light` and `mood` are how light."""

    presets = {"grey": {}}
    exports = ("level",)
    controls = (
        *GENERAL,
        Control("light", 4, "how light the grey is", 0, LIGHTEST),
        Control("mood", "calm", "what it is like", choices=("calm", "glad", "wild")),
    )

    def nets(self):
        return {"level": nn.Conv2d(1, 1, 1)}

    def translate(self, nets, x, to, light=4, mood="calm"):
        return (x * 0 + light / 8) * (-1 if mood == "wild" else 1)
'''


@pytest.fixture
def studio(tmp_path) -> Studio:
    """Weights that let people set `light` and `mood`, and others that do not."""
    values = {"data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    own = tmp_path / "grey.py"
    own.write_text(RECIPE.replace("LIGHTEST", "8"))
    paths = [tmp_path / "plain.safetensors", tmp_path / "grey.safetensors"]
    plain = nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]})
    checkpoint.save_model(paths[0], plain, {"recipe": str(toy.FILE), **values})
    checkpoint.save_model(paths[1], nn.ModuleDict({"level": nn.Conv2d(1, 1, 1)}), {"recipe": str(own), **values})
    made = Studio([str(paths[1])], "cpu", str(own), "cascade")
    made.models["plain"] = Studio([str(paths[0])], "cpu", str(toy.FILE), "cascade").models["plain"]
    made.given["plain"] = str(paths[0])
    return made


def grey(image: Image.Image) -> int:
    levels = np.unique(np.asarray(image))
    assert len(levels) == 1
    return int(levels[0])


@pytest.mark.parametrize(
    ("query", "level"), [("", 191), ("light=8", 255), ("light=0&mood=glad", 128), ("light=8&mood=wild", 0)]
)
def test_the_service_takes_them_as_parameters(studio, query, level):
    pairs = [tuple(one.split("=")) for one in query.split("&") if one]
    request = parse([*pairs, ("weights", "grey"), ("align", "false")], studio.controls())
    assert grey(studio.translate(FACE, request).picture) == level


@pytest.mark.parametrize(
    ("weights", "name", "value", "text"),
    [
        ("grey", "light", "9", "not from 0 to 8"),
        ("grey", "light", "much", "not from 0 to 8"),
        ("grey", "mood", "sad", "not known"),
        ("plain", "light", "1", "no control light"),
    ],
)
def test_a_value_that_the_weights_do_not_take_is_an_error(studio, weights, name, value, text):
    request = parse([("weights", weights), ("align", "false"), (name, value)], studio.controls())
    with pytest.raises(CardError, match=text) as error:
        studio.translate(FACE, request)
    assert error.value.hint


def test_a_misspelt_one_is_named(studio):
    with pytest.raises(CardError, match="did you mean 'light'"):
        parse([("ligt", "1")], studio.controls())


def test_the_document_says_what_they_take(studio):
    translate = document(list(studio.models), studio.controls(), 1, 1)["paths"]["/translate"]["post"]
    given = {one["name"]: one for one in translate["parameters"]}
    assert given["light"]["schema"] == {"type": "integer", "minimum": 0, "maximum": 8}
    assert given["light"]["description"] == "how light the grey is"
    assert given["mood"]["schema"]["enum"] == ["calm", "glad", "wild"]


def test_other_limits_of_other_weights_are_taken_together(studio, tmp_path):
    own = tmp_path / "lighter.py"
    own.write_text(RECIPE.replace("LIGHTEST", "80"))
    path = tmp_path / "lighter.safetensors"
    values = {"recipe": str(own), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    checkpoint.save_model(path, nn.ModuleDict({"level": nn.Conv2d(1, 1, 1)}), values)
    studio.models["lighter"] = Studio([str(path)], "cpu", str(own), "cascade").models["lighter"]
    translate = document(list(studio.models), studio.controls(), 1, 1)["paths"]["/translate"]["post"]
    (light,) = (one for one in translate["parameters"] if one["name"] == "light")
    assert light["schema"]["maximum"] == 80


def test_the_card_of_the_demo_repeats_them(studio, tmp_path, facekit):
    photo = tmp_path / "face.png"
    FACE.save(photo)
    controls = Controls("grey", ("anime",), weights_own={"light": 8, "mood": "wild"}, align=False)
    shown = demo_run.run(studio, photo, controls, tmp_path / "out")
    assert grey(shown.result) == 0
    again = tmp_path / "again.png"
    done = facekit("translate", "--card", shown.card_file, "--recipe", tmp_path / "grey.py", photo, again)
    assert done.code == 0, done.err
    assert grey(Image.open(again)) == 0


def test_the_demo_shows_those_of_the_chosen_weights(studio):
    pytest.importorskip("gradio")
    from facekit.serving.demo_controls import DemoControls

    controls = DemoControls(studio.describe())
    shown = {one.elem_id: one for one in controls.components("grey")}
    assert (shown["control-light"].minimum, shown["control-light"].maximum, shown["control-light"].step) == (0, 8, 1)
    assert [value for _, value in shown["control-mood"].choices] == ["calm", "glad", "wild"]
    assert shown["control-light"].visible and shown["control-keep"].visible
    plain = {one.elem_id: one for one in controls.components("plain")}
    assert list(plain) == list(shown) and not plain["control-light"].visible and plain["control-keep"].visible
    places = {name: place for place, name in enumerate(shown)}
    values = [one.value for one in shown.values()]
    assert controls.read("grey", values).weights_own == {}
    for name, value in (("light", 8), ("mood", "wild"), ("keep", True)):
        values[places[f"control-{name}"]] = value
    assert controls.read("grey", values).weights_own == {"keep": "colours", "light": 8, "mood": "wild"}
    assert controls.read("plain", values).weights_own == {"keep": "colours"}
