"""Weights files: what goes in comes out, and whatever else a file may be is refused without being run."""

import json
import pickle
import re
import time
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from skimage.data import astronaut
from torch import nn

import facekit as package
import toy
from facekit.errors import CardError, InputError, MissingError, OutOfMemory
from facekit.inference.translator import Translator
from facekit.nets import pretrained
from facekit.recipe_api import checkpoint, default_weights, registry

SHIPPED = checkpoint.SHIPPED / "anime.safetensors"
OWN = str(toy.FILE)
CARD = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}


def nets() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]})


@pytest.fixture
def model(tmp_path):
    """Writes a toy model, with other card values if there are any, and returns its path."""

    def make(name="model.safetensors", half=False, **values):
        checkpoint.save_model(tmp_path / name, nets(), {**CARD, **values}, half)
        return tmp_path / name

    return make


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_model_comes_back_as_it_was_saved(model):
    loaded = checkpoint.load_model(model(), recipe=OWN)
    for key, value in nets().state_dict().items():
        torch.testing.assert_close(loaded.nets.state_dict()[key], value, rtol=0, atol=0)
    assert loaded.card.recipe == str(toy.FILE) and loaded.directions == {"anime": "b"}
    assert not loaded.nets.training and not any(p.requires_grad for p in loaded.nets.parameters())


def test_half_precision_halves_the_file_and_loads_as_floats(model):
    whole, half = model(), model("half.safetensors", half=True)
    assert half.stat().st_size < whole.stat().st_size - 2 * sum(p.numel() for p in nets().parameters()) + 20
    for key, value in checkpoint.load_model(half, recipe=OWN).nets.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, nets().state_dict()[key], rtol=1e-3, atol=1e-4)


def test_equal_models_are_equal_files(model):
    assert model("one.safetensors").read_bytes() == model("two.safetensors").read_bytes()


def test_only_the_header_is_needed_to_know_what_a_file_is(model):
    _, header = checkpoint.read_tensors(model())
    assert json.loads(header[checkpoint.KEY]) == CARD


def test_a_run_folder_stands_for_its_model(model):
    path = model()
    assert checkpoint.find_weights(path.parent) == path


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def noise(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def empty(path):
    path.write_bytes(b"")


def pickled(path):
    path.write_bytes(pickle.dumps(Evil(path.with_name("made")), protocol=2))


def zipped(path):
    torch.save({"ab.0.weight": Evil(path.with_name("made"))}, path)


def foreign(path):
    save_file({"x": torch.zeros(2)}, path, {"format": "pt"})


def listed(path):
    save_file({"x": torch.zeros(2)}, path, {checkpoint.KEY: "[1, 2]"})


def scrawled(path):
    save_file({"x": torch.zeros(2)}, path, {checkpoint.KEY: "{not json"})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "not a complete safetensors file"),
        (noise, "not a complete safetensors file"),
        (empty, "not a complete safetensors file"),
        (pickled, "pickled checkpoints"),
        (zipped, "pickled checkpoints"),
        (foreign, "no facekit card"),
        (listed, "does not fit its card"),
        (scrawled, "does not fit its card"),
    ],
)
def test_a_file_that_is_not_a_model_exits_5_and_is_never_run(facekit, model, tmp_path, damage, words):
    path = model("weights.pt")
    damage(path)
    done = facekit(
        "translate", toy.fill(tmp_path / "in", 1), tmp_path / "out", "--weights", path, "--no-align", "--recipe", OWN
    )
    assert done.code == 5 and words in done.err
    assert len(done.err.splitlines()) == 2 and "  next: " in done.err
    assert not (tmp_path / "made").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"params": {"width": 8}}, "size mismatch for ab.0.weight"),
        ({"params": {"widht": 8}}, "did you mean 'width'?"),
        ({"recipe": "cyclegan", "params": {"width": 4, "blocks": 1}}, "ab."),
        ({"recipe": "toonify"}, "no recipe 'toonify'"),
        ({"recipe": "gone/own.py"}, "gone/own.py"),
        ({"data": {"size": "large"}}, "data.size"),
    ],
)
def test_weights_that_do_not_fit_their_card_are_refused(facekit, model, tmp_path, values, words):
    path = model(**values)
    own = [] if "recipe" in values else ["--recipe", OWN]
    done = facekit("translate", toy.fill(tmp_path / "in", 1), tmp_path / "out", "--weights", path, "--no-align", *own)
    assert done.code == 5 and words in done.err and path.name in done.err
    assert len(done.err.splitlines()) == 2 and len(done.err) < 600


@pytest.fixture
def marked(tmp_path):
    """A copy of the toy recipe that leaves a file `ran` when it is run."""
    own = tmp_path / "own.py"
    text = toy.FILE.read_text(encoding="utf-8")
    own.write_text(f"{text}\n\nPath({str(tmp_path / 'ran')!r}).touch()\n", encoding="utf-8")
    return own


def test_weights_do_not_run_the_file_that_their_card_names(facekit, model, marked, tmp_path):
    path, source = model(recipe=str(marked)), toy.fill(tmp_path / "in", 1)
    for command in (("translate", source, tmp_path / "out", "--weights", path, "--no-align"),
                    ("export", path, tmp_path / "m.onnx")):  # fmt: skip
        refused = facekit(*command)
        assert refused.code == 5 and not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
        assert "weights never run code" in refused.err and f"--recipe {marked}" in refused.err
    assert facekit("translate", source, tmp_path / "out", "--weights", path, "--no-align", "--recipe", marked).code == 0
    assert (tmp_path / "ran").exists()


def test_a_recipe_file_that_has_moved_is_named_where_it_is(model, marked, tmp_path):
    path = model(recipe=f"{marked}:toy")
    moved = marked.rename(tmp_path / "elsewhere.py")
    assert checkpoint.load_model(path, recipe=str(moved)).directions == {"anime": "b"}


def test_the_card_of_a_translation_does_not_run_a_recipe_file(facekit, model, marked, tmp_path):
    path = model(recipe=str(marked))
    card = tmp_path / "again.yaml"
    card.write_text(f"command: translate\noptions: {{recipe: {marked}, weights: {path}, align: false}}\n")
    done = facekit("translate", "--card", card, toy.fill(tmp_path / "in", 1), tmp_path / "out")
    assert done.code == 2 and "--recipe" in done.err and not (tmp_path / "ran").exists()


def hostile(path: Path, values: object = None, tensors: dict | None = None, text: str | None = None) -> Path:
    save_file(tensors or {"x": torch.zeros(2)}, path, {checkpoint.KEY: json.dumps(values) if text is None else text})
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps({"recipe": "cyclegan", "params": {"blocks": 10**7}}), "too many layers"),
        (json.dumps({"recipe": "cyclegan", "params": {"width": 10**18}}), "does not fit"),
        (json.dumps({"recipe": "cyclegan", "data": {"size": 10**9}}), "px"),
        (json.dumps({"recipe": "cyclegan", "seed": 10**4000}), "seed"),
        ('{"recipe": "cyclegan", "seed": ' + "9" * 5000 + "}", "digits"),
        ('{"recipe": "cyclegan", "optim": {"lr": NaN}}', "NaN"),
        ('{"recipe": "cyclegan", "params": ' + "[" * 100_000 + "]" * 100_000 + "}", "recursion"),
        ('{"recipe": "' + "x" * 2_000_000 + '"}', "characters"),
    ],
)
def test_a_hostile_card_is_refused_soon_and_in_one_line(tmp_path, text, words):
    path, start = hostile(tmp_path / "w.safetensors", text=text), time.monotonic()
    with pytest.raises(MissingError, match=words) as caught:
        checkpoint.load_model(path)
    assert len(caught.value.message) < 500 and "\n" not in caught.value.message and time.monotonic() - start < 20


def test_a_header_of_many_megabytes_is_not_read(tmp_path):
    header = json.dumps({"__metadata__": {checkpoint.KEY: "x" * 10_000_000}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(MissingError, match="header takes"):
        checkpoint.load_model(tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    broken = nets()
    next(broken.parameters()).data[0, 0, 0, 0] = value
    checkpoint.save_model(tmp_path / "w.safetensors", broken, CARD)
    with pytest.raises(MissingError, match="NaN or infinite"):
        checkpoint.load_model(tmp_path / "w.safetensors", recipe=OWN)


def test_no_file_that_a_card_names_is_opened(tmp_path):
    values = {"recipe": "cyclegan", "params": {"width": 4, "blocks": 1, "d_width": 4, "pool": 0}}
    kind = registry.find("cyclegan")[0]
    made = kind(values["params"], 32).nets()
    named = {"extends": "/gone/card.yaml", "run": {"init": "/gone/init"}, "data": {"root": "/gone", "size": 32}}
    chosen = nn.ModuleDict({name: made[name] for name in kind.exports})
    checkpoint.save_model(tmp_path / "w.safetensors", chosen, {**values, **named})
    assert checkpoint.load_model(tmp_path / "w.safetensors").card.run.init == "/gone/init"


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(MissingError, match=r"holds no model\.safetensors") as caught:
        checkpoint.load_model(tmp_path)
    assert "train" in caught.value.hint


@pytest.fixture
def shelf(model, tmp_path, monkeypatch):
    """Two models take the place of those that come with facekit."""
    path = model()
    (tmp_path / "weights").mkdir()
    for name in ("anime", "pirate"):
        (tmp_path / "weights" / f"{name}.safetensors").write_bytes(path.read_bytes())
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "weights")
    return tmp_path / "weights"


def test_shipped_weights_are_found_by_name(shelf):
    assert checkpoint.find_weights("pirate") == shelf / "pirate.safetensors"


@pytest.mark.parametrize(("name", "words"), [("amine", "did you mean 'anime'?"), ("zzz", "known: anime, pirate")])
def test_an_unknown_name_is_refused_with_those_there_are(shelf, name, words):
    with pytest.raises(MissingError, match=re.escape(words)):
        checkpoint.find_weights(name)


def test_an_output_folder_does_not_hide_weights_of_the_same_name(shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("anime").mkdir()
    assert checkpoint.find_weights("anime") == shelf / "anime.safetensors"


def test_a_loaded_model_maps_pictures_to_pictures(model):
    translator = package.load(model(), device="cpu", recipe=OWN)
    assert translator.domains == ["anime"]
    picture = toy.picture(16)
    made = translator(picture, align=False)
    assert made.mode == "RGB" and made.size == (16, 16) and made.tobytes() != picture.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"])
def test_a_picture_of_any_mode_can_be_translated(model, mode):
    grey = toy.picture(24).convert("L")
    picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    made = package.load(model(), device="cpu", recipe=OWN)(picture, align=False)
    assert made.mode == "RGB" and made.size == (16, 16)


@pytest.mark.parametrize(
    ("size", "given", "expected"),
    [
        (None, (16, 16), (16, 16)),
        (None, (50, 25), (32, 16)),
        (None, (1, 1), (16, 16)),
        (32, (20, 40), (32, 64)),
        (30, (60, 60), (30, 30)),
    ],
)
def test_the_shorter_edge_takes_the_size_and_proportions_stay(model, size, given, expected):
    translator = package.load(model(), size=size, device="cpu", recipe=OWN)
    assert translator(toy.picture(8).resize(given), align=False).size == expected


def test_pictures_of_several_shapes_come_back_in_order(model):
    translator = package.load(model(), device="cpu", recipe=OWN)
    pictures = [toy.picture(16, 1), toy.picture(16, 2).resize((32, 16)), toy.picture(16, 3)]
    for picture, made in zip(pictures, translator.batch(pictures), strict=True):
        assert np.abs(np.asarray(made, int) - np.asarray(translator(picture, align=False), int)).max() <= 1


def test_a_domain_that_the_model_does_not_know_is_refused(model):
    with pytest.raises(CardError, match="'pirate'"):
        package.load(model(), to="pirate", device="cpu", recipe=OWN)
    with pytest.raises(CardError, match="did you mean 'anime'"):
        package.load(model(), device="cpu", recipe=OWN)(toy.picture(), to="amine", align=False)


def test_a_method_of_one_size_refuses_another(model):
    loaded = checkpoint.load_model(model(), recipe=OWN)
    loaded.recipe.multiple = 0
    assert Translator(loaded)(toy.picture(40).resize((40, 20)), align=False).size == (16, 16)
    with pytest.raises(CardError, match="16 px only"):
        Translator(loaded, size=32)


def test_memory_running_out_names_the_knobs(model, monkeypatch):
    translator = package.load(model(), device="cpu", recipe=OWN)

    def translate(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(translator.model.recipe, "translate", translate)
    with pytest.raises(OutOfMemory, match="1 images of 16 x 16") as caught:
        translator(toy.picture(), align=False)
    assert "batch" in caught.value.hint


def test_vgg_weights_come_from_a_file(tmp_path):
    save_file({"features.0.weight": torch.ones(2)}, tmp_path / "vgg.safetensors")
    torch.save({"features.0.weight": torch.ones(2)}, tmp_path / "vgg.pth")
    for name in ("vgg.safetensors", "vgg.pth"):
        assert pretrained.vgg_weights(str(tmp_path / name))["features.0.weight"].sum() == 2


@pytest.mark.parametrize("damage", [cut, noise, empty, pickled, zipped])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_broken_file_of_vgg_weights_is_refused_and_never_run(model, tmp_path, damage, suffix):
    path = model(f"vgg{suffix}")
    damage(path)
    with pytest.raises(MissingError, match="not a complete weights file") as caught:
        pretrained.vgg_weights(str(path))
    assert "\n" not in caught.value.message and not (tmp_path / "made").exists()


def test_a_missing_file_of_vgg_weights_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no weights file"):
        pretrained.vgg_weights(str(tmp_path / "vgg.pth"))


def test_a_file_without_names_holds_no_vgg_weights(tmp_path):
    torch.save(torch.ones(2), tmp_path / "vgg.pth")
    with pytest.raises(MissingError, match="no weights by name"):
        pretrained.vgg_weights(str(tmp_path / "vgg.pth"))


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError('invalid hash value (expected "ab", got "cd")')])
def test_a_download_that_fails_says_how_to_do_without(monkeypatch, error):
    from torchvision.models import VGG19_Weights

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(VGG19_Weights, "get_state_dict", fail)
    with pytest.raises(MissingError, match="cannot be downloaded") as caught:
        pretrained.vgg_weights("download")
    assert caught.value.code == 5 and "params.vgg=FILE" in caught.value.hint


@pytest.fixture
def anime():
    return package.load("anime", device="cpu")


def test_the_shipped_weights_are_small_and_documented(anime):
    assert SHIPPED.stat().st_size <= 12_000_000
    told = SHIPPED.with_suffix(".md").read_text(encoding="utf-8").lower()
    assert all(word in told for word in ("selfie2anime", "licen", "kid", "fid", "facekit train", "steps"))
    assert "anime" in anime.domains


@pytest.mark.slow
def test_a_photo_is_aligned_by_default(anime, tmp_path):
    photo = astronaut()
    Image.fromarray(photo).save(tmp_path / "me.png")
    made = anime(photo)
    assert made.size == (anime.size, anime.size)
    assert made.tobytes() == anime(tmp_path / "me.png").tobytes() == anime(Image.fromarray(photo)).tobytes()
    whole = anime(photo, align=False)
    assert whole.tobytes() != made.tobytes()
    pasted = np.asarray(anime(photo, paste=True), int)
    assert pasted.shape == photo.shape and (pasted[:, :60] == photo[:, :60]).all() and (pasted != photo).mean() > 0.02
    with pytest.raises(InputError, match="no face"):
        anime(np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(InputError, match="float64 of shape"):
        anime(photo / 255)
    with pytest.raises(CardError, match="paste"):
        anime(photo, align=False, paste=True)
    assert "anime" in repr(anime) and "256 px" in repr(anime)


def test_the_shipped_weights_draw_something_of_a_face(anime):
    face = Image.fromarray(astronaut()[20:200, 130:310])
    made = np.asarray(anime(face, align=False), float)
    before = np.asarray(face.resize(made.shape[1::-1]), float)
    assert made.shape == (anime.size, anime.size, 3)
    assert made.std() > 25 and np.abs(made - before).mean() > 8
    assert np.corrcoef(made.mean(2).ravel(), before.mean(2).ravel())[0, 1] > 0.3  # it is still that face


def test_the_cartoon_weights_are_small_documented_and_draw_in_ink(tmp_path):
    file = SHIPPED.with_name("cartoon.safetensors")
    told = file.with_suffix(".md").read_text(encoding="utf-8").lower()
    assert file.stat().st_size <= 2_100_000
    assert all(word in told for word in ("photo2cartoon", "licen", "psnr", "facekit train", "keep colours"))
    cartoon = package.load("cartoon", device="cpu")
    face = Image.fromarray(astronaut()[20:200, 130:310])
    made = np.asarray(cartoon(face, align=False), float)
    before = np.asarray(face.resize(made.shape[1::-1]), float)
    assert made.shape == (256, 256, 3) and cartoon.domains == ["cartoon"]
    assert np.corrcoef(made.mean(2).ravel(), before.mean(2).ravel())[0, 1] > 0.6  # it is still that face
    spread = [np.ptp(picture, axis=2).mean() for picture in (made, before)]
    assert spread[0] < 0.65 * spread[1]  # ink on paper: little colour


def test_the_game_weights_are_small_documented_and_draw_another_style_of_that_face(anime):
    file = SHIPPED.with_name("game.safetensors")
    told = file.with_suffix(".md").read_text(encoding="utf-8").lower()
    assert file.stat().st_size <= 12_000_000
    assert all(word in told for word in ("face2genshin", "licen", "kid-768", "facekit train", "bias"))
    game = package.load("game", device="cpu")
    face = Image.fromarray(astronaut()[20:200, 130:310])
    made = np.asarray(game(face, align=False), float)
    before, other = (np.asarray(x.resize(made.shape[1::-1]), float) for x in (face, anime(face, align=False)))
    assert game.domains == ["game"]
    assert np.corrcoef(made.mean(2).ravel(), before.mean(2).ravel())[0, 1] > 0.3  # it is still that face
    assert np.abs(made - other).mean() > 8


@pytest.mark.slow
def test_the_weights_called_as_the_domain_are_the_default(facekit, tmp_path):
    Image.fromarray(astronaut()[20:200, 130:310]).save(tmp_path / "face.png")
    call = ("translate", tmp_path / "face.png")
    for name, words in {
        "a": ("--to", "cartoon"),
        "b": ("--weights", "cartoon"),
        "c": (),
        "d": ("--to", "anime"),
    }.items():
        assert facekit(*call, tmp_path / f"{name}.png", "--no-align", *words).code == 0
    made = {name: (tmp_path / f"{name}.png").read_bytes() for name in "abcd"}
    assert made["a"] == made["b"] and made["c"] == made["d"] and made["a"] != made["c"]
    for name in default_weights.GENERATORS:
        assert name in package.load(name, device="cpu").domains
    refused = facekit(*call, tmp_path / "e.png", "--no-align", "--to", "photo")
    assert refused.code == 2 and "known: anime" in refused.err


@pytest.mark.parametrize("change", [lambda state: state.pop("features.2.weight"), lambda state: state.update(x=1)])
def test_a_trunk_takes_whole_weights_only(tmp_path, change):
    from facekit.nets.vgg import VGG

    net = VGG("vgg19", ["relu1_2"])
    state = {**net.state_dict(), "features.30.bias": torch.zeros(3)}
    change(state)
    whole = "features.2.weight" in state
    torch.save(state, tmp_path / "vgg.pth")
    if whole:
        pretrained.load_vgg(net, str(tmp_path / "vgg.pth"))
    else:
        with pytest.raises(MissingError, match="does not reach relu1_2, only relu1_1"):
            pretrained.load_vgg(net, str(tmp_path / "vgg.pth"))
