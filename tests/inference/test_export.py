"""`facekit export`: every method's file answers as PyTorch does, says how to feed it, and is never half there."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import facekit as package
import toy
from facekit.inference import onnx_export
from facekit.recipe_api import checkpoint, registry
from facekit.storage import card
from support import small

DOCS = Path(__file__).parents[2] / "docs" / "commands" / "export.md"
NAMES = {"a": "photo", "b": "anime"}


def translating() -> list[str]:
    """A preset of every generator of the catalogue, but for segnet's, the detector's and those that invert photos."""
    first: dict[object, str] = {}
    for name in registry.catalogue():
        if targets(name) and not name.startswith(("segnet", "detector", "second-look")):
            kind, _ = registry.find(name)
            if hasattr(kind, "invert"):
                continue
            made = kind(small(name).params, small(name).data.size).nets()
            first.setdefault((kind.translate, *(repr(made[net]) for net in kind.exports)), name)
    return list(first.values())


def targets(name: str) -> dict[str, str]:
    kind, _ = registry.find(name)
    values = small(name)
    return kind(values.params, values.data.size).targets(values.domains)


def lively_model(name: str, path: Path) -> checkpoint.Model:
    """A small model of a recipe whose untrained nets give pictures of some contrast."""
    torch.manual_seed(0)
    values = small(name)
    kind, _ = registry.find(name)
    made = kind(values.params, values.data.size)
    every = made.nets()
    nets = nn.ModuleDict({net: every[net] for net in made.exports})
    for module in nets.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    for key, tensor in nets.state_dict().items():
        if key.endswith("snapshots"):
            tensor.normal_(0, 0.5)
    checkpoint.save_model(path, nets, card.plain(values))
    return checkpoint.load_model(path)


def toy_model(path: Path, seed: int = 0, bias: float = 0.0, kind: str = str(toy.FILE)) -> Path:
    torch.manual_seed(seed)
    net = toy.Toy({}, 16).nets()["ab"]
    nn.init.constant_(net[2].bias, bias)
    checkpoint.save_model(path, nn.ModuleDict({"ab": net}), {"recipe": kind, "data": {"size": 16}, "domains": NAMES})
    return path


def own_recipe(body: str) -> str:
    """Write a recipe of one's own, whose translation is `body` of nets, x and to; returns its path."""
    Path("own.py").write_text(
        "from toy import Toy\n\n\nclass Own(Toy):\n    '''A method for one test.'''\n\n    presets = {'own': {}}\n\n"
        f"    def translate(self, nets, x, to):\n        return {body}\n"
    )
    return "own.py"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with a model that translates to anime at 16 px."""
    monkeypatch.chdir(tmp_path)
    toy_model(Path("model.safetensors"))
    return tmp_path


@pytest.fixture
def export(facekit, here):
    """Runs `facekit export model.safetensors out.onnx`."""

    def run(*more, model="model.safetensors", out="out.onnx"):
        own = []
        if Path(model).suffix == ".safetensors":
            kind = json.loads(checkpoint.read_tensors(Path(model))[1][checkpoint.KEY])["recipe"]
            own = ["--recipe", kind] if registry.is_file(kind) else []
        return facekit("export", model, out, *own, *more)

    return run


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7)) * 2 - 1


def answer(path: str | Path, x: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["translation"], {"image": x.numpy()})[0]


def shape_of(path: str | Path) -> list:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, made.name) == ("image", "translation") and given.shape[:2] == made.shape[:2]
    return given.shape


def state() -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path().iterdir()}


# Every method


@pytest.mark.slow
@pytest.mark.parametrize("name", translating())
def test_every_method_answers_as_in_pytorch(export, name):
    model = lively_model(name, Path("model.safetensors"))
    to, size = list(model.directions)[-1], model.recipe.size
    source = [next(iter(model.directions))] if model.recipe.needs_source else []
    done = export("--to", to, *[word for label in source for word in ("--from", label)])
    assert done.code == 0, done.err
    free = shape_of("out.onnx")
    one_size = not model.recipe.multiple or name == "cyclegan-angle"
    assert free == ([1, 3, size, size] if source else ["batch", 3, *([size] * 2 if one_size else ["height", "width"])])
    assert ("the file takes" in done.err) == ("height" not in free)
    shape = [3 if free[0] == "batch" else 1, 3, size, size if isinstance(free[3], int) else 2 * size]
    x = pictures(*shape)
    with torch.no_grad():
        told = {"source": source * len(x)} if source else {}
        expected = model.recipe.translate(model.nets, x, model.directions[to], **told).numpy()
    assert expected.std() > 0.03  # or equality would be cheap
    assert np.abs(answer("out.onnx", x) - expected).max() < 1e-4
    assert float(onnx_export.read_metadata(Path("out.onnx"))["difference"]) < 1e-4


@pytest.mark.slow
def test_each_direction_has_its_own_nets_only(export):
    model = lively_model("cyclegan", Path("model.safetensors"))
    for to in ("a", "b"):
        assert export("--to", to, out=f"{to}.onnx").code == 0
    held = sum(np.prod(each.dims) for each in onnx.load("a.onnx").graph.initializer)
    assert held <= sum(p.numel() for p in model.nets["ba"].parameters())
    assert np.abs(answer("a.onnx", pictures(1, 3, 32, 32)) - answer("b.onnx", pictures(1, 3, 32, 32))).max() > 0.1


def test_weights_of_several_labels_want_one(export):
    lively_model("stargan", Path("model.safetensors"))
    if len(targets("stargan")) > 2:
        assert export().code == 2
    done = export("--to", "pirate")
    assert done.code == 2 and "--to " in done.err and not Path("out.onnx").exists()


@pytest.mark.slow
def test_weights_that_must_know_the_source_say_so(export):
    lively_model("combogan", Path("model.safetensors"))
    label = next(iter(targets("combogan")))
    done = export("--to", label)
    assert done.code == 2 and "--from" in done.err
    assert export("--to", label, "--from", "pirate").code == 2
    assert not Path("out.onnx").exists()


@pytest.mark.slow
def test_the_example_of_the_docs_translates_as_facekit_does(facekit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert facekit("export", "anime", "anime.onnx", "--size", 64).code == 0
    toy.picture(90).save("face.jpg")
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    (example,) = (each for each in examples if "onnxruntime" in each)
    exec(example, {})
    expected = package.load("anime", size=64, device="cpu")(Image.open("face.jpg"), align=False)
    made = np.asarray(Image.open("anime.png"), int)
    assert made.shape == (64, 64, 3) and np.abs(made - np.asarray(expected, int)).max() <= 1


# What stands in it


def test_the_metadata_tell_the_model_and_how_to_feed_it(export):
    done = export("--json")
    told = onnx_export.read_metadata(Path("out.onnx"))
    event = json.loads(done.out.splitlines()[-1])
    own = card.plain(checkpoint.load_model("model.safetensors", recipe=str(toy.FILE)).card)
    assert json.loads(told["facekit"]) == own | {"recipe": toy.FILE.name}  # no path of this machine
    assert {key: told[key] for key in ("domain", "size", "multiple", "range", "channels")} == {
        "domain": "anime",
        "size": "16",
        "multiple": "4",
        "range": "-1 to 1",
        "channels": "RGB",
    }
    assert told["difference"] == f"{event['difference']:.2g}"
    assert event["event"] == "result" and event["shape"] == ["batch", 3, "height", "width"]
    assert [3, 3, 20, 16] in event["compared"] and [2, 3, 16, 20] in event["compared"]


def test_fixed_is_one_image_of_one_size(export):
    assert export("--fixed", "--size", 24).code == 0
    told = onnx_export.read_metadata(Path("out.onnx"))
    assert shape_of("out.onnx") == [1, 3, 24, 24] and told["size"] == "24" and told["multiple"] == "0"


@pytest.mark.parametrize("opset", [13, 20])
def test_the_opset_is_the_one_asked_for(export, opset):
    assert export("--opset", opset).code == 0
    assert [each.version for each in onnx.load("out.onnx").opset_import if not each.domain] == [opset]


def test_equal_weights_give_equal_files(export):
    export()
    before = Path("out.onnx").read_bytes()
    export("--force")
    assert Path("out.onnx").read_bytes() == before


# What is compared


def test_a_trace_that_took_a_number_for_granted_is_refused_and_leaves_nothing(export):
    kind = own_recipe("nets['ab'](x) + float(x.mean())")
    toy_model(Path("model.safetensors"), kind=kind)
    before = state()
    done = export()
    assert done.code == 1 and "differ from PyTorch's by" in done.err and "next:" in done.err
    assert {name: at for name, at in state().items() if name != "__pycache__"} == before


def test_weights_that_are_not_finite_are_refused(export):
    toy_model(Path("model.safetensors"), bias=float("nan"))
    done = export()
    assert done.code == 5 and "NaN" in done.err and not Path("out.onnx").exists()


def test_a_failed_export_leaves_the_old_file(export):
    export()
    before = Path("out.onnx").read_bytes()
    toy_model(Path("model.safetensors"), bias=float("nan"))
    assert export("--force").code == 5
    assert Path("out.onnx").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("nets['ab'](x) / len(x)", [1, 3, "height", "width"]),
        ("nets['ab'](x) / int(x.shape[3])", ["batch", 3, 16, 16]),
        ("nets['ab'](x) / len(x) / int(x.shape[3])", [1, 3, 16, 16]),
    ],
)
def test_axes_that_a_net_takes_for_granted_are_fixed_and_a_note_says_so(export, body, shape):
    toy_model(Path("model.safetensors"), kind=own_recipe(body))
    done = export()
    assert done.code == 0 and f"[{', '.join(map(str, shape))}]" in done.err
    assert shape_of("out.onnx") == shape


def test_what_torch_cannot_write_is_refused_in_one_line(export, capfd):
    toy_model(Path("model.safetensors"), kind=own_recipe("torch.special.i0(nets['ab'](x))"))
    Path("own.py").write_text("import torch\n" + Path("own.py").read_text())
    done = export("--json")
    assert done.code == 2 and "aten::i0" in done.err and "bug" not in done.err and not Path("out.onnx").exists()
    assert all(json.loads(line) for line in done.out.splitlines()) and "graph(" not in capfd.readouterr().out


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_a_package_that_is_not_here_is_named_with_the_way_to_it(export, monkeypatch, name):
    there = onnx_export.import_module

    def gone(wanted):
        if wanted == name:
            raise ImportError(f"No module named {name!r}")
        return there(wanted)

    monkeypatch.setattr(onnx_export, "import_module", gone)
    done = export()
    assert done.code == 5 and f"pip install {name}" in done.err and not Path("out.onnx").exists()


# What stays as it is


def test_a_second_run_writes_nothing(export):
    assert export().code == 0
    before = state()
    done = export()
    assert done.code == 0 and "nothing to do" in done.err and state() == before


@pytest.mark.slow
@pytest.mark.parametrize("change", ["--fixed", "weights"])
def test_another_export_under_the_name_is_refused_with_the_difference(export, change):
    export()
    before = Path("out.onnx").read_bytes()
    if change == "weights":
        toy_model(Path("model.safetensors"), seed=1)
    more = [change] if change != "weights" else []
    done = export(*more)
    assert done.code == 2 and ("inputs.weights: " if change == "weights" else "options.dynamic: ") in done.err
    assert Path("out.onnx").read_bytes() == before
    assert export(*more, "--force").code == 0 and Path("out.onnx").read_bytes() != before


@pytest.mark.parametrize("kind", ["text", "onnx"])
def test_a_file_of_somebody_elses_is_refused(export, kind):
    if kind == "text":
        Path("out.onnx").write_text("mine")
    else:
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "mine", [], [])), "out.onnx")
    before = state()
    done = export()
    assert done.code == 2 and "was not created by facekit" in done.err and "--force" in done.err and state() == before
    assert export("--force").code == 0 and shape_of("out.onnx")


def test_force_does_not_overwrite_the_weights(export):
    Path("model.safetensors").rename("model.onnx")
    before = state()
    done = export("--force", model="model.onnx", out="model.onnx")
    assert done.code == 2 and "weights" in done.err and state() == before


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(export):
    before = state()
    done = export("--dry-run")
    assert done.code == 0 and "[batch, 3, height, width]" in done.out and state() == before


@pytest.mark.parametrize(
    ("more", "out", "words"),
    [
        ([], "out.pt", "out.pt.onnx"),
        ([], "folder.onnx", "is a folder"),
        (["--size", 30], "out.onnx", "--size 28 or --size 32"),
        (["--to", "photo"], "out.onnx", "--to anime"),
        (["--from", "photo"], "out.onnx", "leave out --from"),
        (["--opset", 99], "out.onnx", "--opset"),
    ],
)
def test_what_cannot_be_is_refused(export, more, out, words):
    Path("folder.onnx").mkdir()
    before = state()
    done = export(*more, out=out)
    assert done.code == 2 and words in done.err and state() == before


def test_a_method_that_inverts_photos_is_refused_with_the_way_round(export):
    lively_model("jojogan", Path("model.safetensors"))
    done = export()
    assert done.code == 2 and "latent of each photo" in done.err and "facekit pairs" in done.err


def test_a_segmenter_is_refused_with_the_reason(export):
    done = export(model="segnet")
    assert done.code == 2 and "labels the parts" in done.err and not Path("out.onnx").exists()


def test_a_detector_is_refused_with_the_way_to_its_nets(export):
    done = export(model="detector")
    assert done.code == 2 and "frames the faces" in done.err and "--web" in done.err
    assert not Path("out.onnx").exists()


def test_weights_that_translate_nothing_are_refused(export):
    done = export(model="facefeat")
    assert done.code == 2 and "translates nothing" in done.err


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["a.tflite", "--precision", "fp16"], "--precision"),
        (["a.tflite", "--opset", "17", "--dynamic"], "--dynamic and --opset"),
        (["a.mlpackage", "--precision", "int8", "--calibrate", "faces"], "--calibrate"),
        (["a.mlpackage", "--dynamic"], "--dynamic"),
        (["page", "--web", "--precision", "int8", "--calibrate", "faces"], "--precision and --calibrate"),
        (["--hub", "me/faces", "--opset", "17"], "--opset"),
    ],
)
def test_an_option_that_would_be_left_unused_is_refused(facekit, tmp_path, monkeypatch, words, unused):
    monkeypatch.chdir(tmp_path)
    done = facekit("export", "anime", *words, "--dry-run")
    assert done.code == 2 and f"has no use for {unused}" in done.err
    assert not list(tmp_path.iterdir())


def test_fixed_says_what_files_of_one_size_are(facekit, tmp_path):
    assert facekit("export", "anime", tmp_path / "a.tflite", "--fixed", "--dry-run").code == 0
