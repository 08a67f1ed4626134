"""`export NAME.mlpackage`: with a stand-in for coremltools, and with the real one where it is installed.

Core ML runs on macOS only. So the real package is read back from disk, and its operations are computed one by one here.
"""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

import toy
from facekit.inference import coreml_export, onnx_export
from facekit.inference.export_plan import ExportOptions, planned
from facekit.inference.translator import load
from facekit.recipe_api import checkpoint
from facekit.storage import images


class Model:
    """What the pretended converter makes, and what it runs; every picture is `off` by so many levels."""

    off = 0

    def __init__(self, path, compute_units=None):
        about = json.loads((Path(path) / "about.json").read_text())
        self.net = torch.export.load(Path(path) / "net.pt2").module()
        self.scale, self.bias = about["scale"], torch.tensor(about["bias"])[:, None, None]

    def predict(self, given):
        x = torch.from_numpy(np.asarray(given["image"], np.float32)).permute(2, 0, 1) * self.scale + self.bias
        made = self.net(x[None])[0].permute(1, 2, 0).numpy()
        assert np.array_equal(made, made.round())  # Core ML may cut what is behind the point
        return {"translation": images.Image.fromarray((made + self.off).clip(0, 255).astype(np.uint8))}


class Made(SimpleNamespace):
    @property
    def user_defined_metadata(self):
        return self.user_defined

    def save(self, path):
        place = Path(path)
        place.mkdir()
        (place / "Manifest.json").write_text("{}")
        (place / coreml_export.DEBUGGING).write_text("{}")
        torch.export.save(self.program, place / "net.pt2")
        about = {name: getattr(self, name, None) for name in ("short_description", "author", "license")}
        about["metadata"] = self.user_defined_metadata
        about |= {"scale": self.input.scale, "bias": self.input.bias, "computed": self.computed, "bits": self.bits}
        (place / "about.json").write_text(json.dumps(about))


@pytest.fixture
def converter(monkeypatch):
    """A converter that writes what torch.export gives it, and a Core ML that runs that."""

    def convert(program, inputs, outputs, compute_precision, **more):
        return Made(
            program=program,
            input=inputs[0],
            computed=compute_precision,
            bits=None,
            user_defined={},
            input_description={},
            output_description={},
        )

    def linear_quantize_weights(model, config):
        model.bits = 8
        return model

    tools = SimpleNamespace(
        linear_quantize_weights=linear_quantize_weights,
        OptimizationConfig=SimpleNamespace,
        OpLinearQuantizerConfig=SimpleNamespace,
    )
    module = SimpleNamespace(
        convert=convert,
        ImageType=SimpleNamespace,
        colorlayout=SimpleNamespace(RGB="RGB"),
        precision=SimpleNamespace(FLOAT32=32, FLOAT16=16),
        target=SimpleNamespace(iOS16=16),
        models=SimpleNamespace(MLModel=Model),
        ComputeUnit=SimpleNamespace(CPU_ONLY=1),
        optimize=SimpleNamespace(coreml=tools),
    )
    monkeypatch.setitem(sys.modules, "coremltools", module)
    monkeypatch.setattr(coreml_export, "sys", SimpleNamespace(platform="linux"))
    monkeypatch.setattr(Model, "off", 0)
    return module


@pytest.fixture
def export(facekit, tmp_path):
    """Runs `facekit export` on a model of three layers that translates to anime at 16 px."""
    torch.manual_seed(0)
    values = {"recipe": str(toy.FILE), "data": {"size": 16}, "domains": {"a": "photo", "b": "anime"}}
    weights = tmp_path / "weights" / "tiny.safetensors"
    weights.parent.mkdir()
    checkpoint.save_model(weights, nn.ModuleDict({"ab": toy.Toy({}, 16).nets()["ab"]}), values)

    def run(*more):
        return facekit("export", weights, *more, "--recipe", toy.FILE)

    return run


@pytest.fixture
def on_a_mac(converter, monkeypatch):
    monkeypatch.setattr(coreml_export, "sys", SimpleNamespace(platform="darwin"))


def about(path):
    return json.loads((path / "about.json").read_text())


@pytest.mark.slow
def test_the_package_is_written_once_and_says_that_it_was_not_compared(export, converter, tmp_path):
    out = tmp_path / "a.mlpackage"
    done = export(out, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out.splitlines()[-1])
    assert told["size"] == 16 and told["compared"] is False
    assert sorted(path.name for path in out.iterdir()) == ["Manifest.json", "about.json", "net.pt2"]
    card = yaml.safe_load((tmp_path / "a.mlpackage.card.yaml").read_text())
    assert card["options"] == {"to": "anime", "size": 16} and card["made"]["compared"] is False
    assert "nothing to do" in export(out).err
    other = export(out, "--size", 32)
    assert other.code == 2 and "options.size: 16 -> 32" in other.err
    again = export(out, "--size", 32, "--force")
    assert again.code == 0 and "not compared with PyTorch" in again.out + again.err
    assert about(out)["metadata"]["size"] == "32"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mlpackage", "a.mlpackage.card.yaml", "weights"]


@pytest.mark.slow
def test_the_package_says_who_made_it_and_under_which_terms(tmp_path):
    told = coreml_export._about(planned("anime", ExportOptions(), None))
    assert told["author"] == "the facekit authors" and "anime" in told["short_description"]
    assert "MIT licence" in told["license"] and "research" in told["license"] and "#" not in told["license"]
    assert json.loads(told["metadata"]["facekit"])["recipe"] == "projected-cut"
    own = tmp_path / "mine.safetensors"
    shutil.copy(checkpoint.shipped()["anime"], own)
    told = coreml_export._about(planned(str(own), ExportOptions(size=64), None))
    assert not {"author", "license"} & set(told) and told["metadata"]["size"] == "64"
    own.with_suffix(".md").write_text("# Mine\n\n## License\n\nCC0, see\n[here](note.md).\n\nMore.\n")
    assert coreml_export._about(planned(str(own), ExportOptions(), None))["license"] == "CC0, see here."


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "computed", "bits"), [("fp32", 32, None), ("fp16", 16, None), ("int8", 16, 8)])
def test_pictures_are_compared_on_macos_at_every_precision(
    export, converter, on_a_mac, tmp_path, precision, computed, bits
):
    out = tmp_path / "a.mlpackage"
    done = export(out, "--size", 16, "--precision", precision, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out.splitlines()[-1])
    assert told["compared"] and told["mean_levels"] < 0.1 and told["largest_levels"] <= 1
    assert (about(out)["computed"], about(out)["bits"]) == (computed, bits)
    assert ("precision" in yaml.safe_load((tmp_path / "a.mlpackage.card.yaml").read_text())["options"]) == (
        precision != "fp32"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "off"), [("fp32", 3), ("fp16", 40)])
def test_a_package_whose_pictures_differ_is_not_kept(
    export, converter, on_a_mac, tmp_path, monkeypatch, precision, off
):
    monkeypatch.setattr(Model, "off", off)
    done = export(tmp_path / "a.mlpackage", "--size", 16, "--precision", precision)
    assert done.code == 1 and "differ from PyTorch's by" in done.err
    assert not (tmp_path / "a.mlpackage").exists()
    assert not list(tmp_path.glob(".*part"))
    monkeypatch.setattr(Model, "predict", lambda self, given: 1 / 0)
    done = export(tmp_path / "a.mlpackage", "--size", 16)
    assert done.code == 1 and "macOS 13" in done.err


@pytest.mark.slow
def test_a_net_that_cannot_be_converted_is_an_error_with_a_way_out(export, converter, tmp_path, monkeypatch):
    monkeypatch.setattr(converter, "convert", lambda *more, **options: 1 / 0)
    done = export(tmp_path / "a.mlpackage", "--size", 16)
    assert done.code == 1 and "NAME.onnx" in done.err and not (tmp_path / "a.mlpackage").exists()


def test_without_the_converter_the_line_that_installs_it_is_shown(export, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    done = export(tmp_path / "a.mlpackage", "--size", 16)
    assert done.code == 5 and "pip install 'facekit-anime[coreml]'" in done.err


@pytest.mark.slow
def test_somebody_elses_folder_and_options_that_do_not_fit_are_refused(export, converter, tmp_path):
    mine = tmp_path / "a.mlpackage"
    mine.mkdir()
    (mine / "note.txt").write_text("mine")
    for more in ([], ["--force"]):
        done = export(mine, *more)
        assert done.code == 2 and "no Core ML package" in done.err and (mine / "note.txt").read_text() == "mine"
    (mine / "Manifest.json").write_text("{}")
    done = export(mine, "--size", 16)
    assert done.code == 2 and "not created by facekit" in done.err
    assert export(mine, "--size", 16, "--force").code == 0 and not (mine / "note.txt").exists()
    done = export(tmp_path / "b.mlpackage", "--precision", "int8", "--calibrate", tmp_path)
    assert done.code == 2 and "--calibrate" in done.err
    assert export(tmp_path / "c.mlpackage", "--dry-run").code == 0
    assert not (tmp_path / "c.mlpackage").exists()


def test_products_are_added_as_torch_does():
    x, one, other = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(0))
    made = coreml_export._decompositions()[torch.ops.aten.addcmul.default](x, one, other, value=0.5)
    assert torch.allclose(made, torch.addcmul(x, one, other, value=0.5))


@pytest.mark.parametrize("dim", [None, [1], [2, 3]])
@pytest.mark.parametrize("more", [{}, {"correction": 0}, {"keepdim": True}, {"correction": 1, "keepdim": True}])
def test_means_and_variances_are_computed_as_torch_does(dim, more):
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    table = coreml_export._decompositions()
    for name in ("var_mean", "std_mean"):
        made = table[getattr(torch.ops.aten, name).correction](x, dim, **more)
        expected = getattr(torch, name)(x, dim, **more)
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(made, expected, strict=True))


# The real coremltools


def compute(program, picture):
    """Return what a program of Core ML gives for a picture (uint8 [S, S, 3]), by torch: [1, 3, S, S].

    Values are rounded to the type of each result, as 16-bit floats round.
    """
    from coremltools.converters.mil.mil import types

    function = program.functions["main"]
    ((name, _),) = function.inputs.items()
    found = {name: torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)[None]}

    def value(var):
        if var.name in found:
            return found[var.name]
        assert var.val is not None, var.name
        return torch.from_numpy(np.array(var.val, np.float32)) if np.issubdtype(type(var.val), np.floating) or (
            isinstance(var.val, np.ndarray) and var.val.dtype.kind in "fiu"
        ) else var.val  # fmt: skip

    for step in function.operations:
        if step.op_type == "const":
            continue
        given = {key: value(var) for key, var in step.inputs.items() if not isinstance(var, (list, tuple))}
        (out,) = step.outputs
        made = OPERATIONS[step.op_type](**given)
        half = types.builtin_to_string(out.dtype) == "fp16"
        found[out.name] = made.half().float() if half else made
    (last,) = function.outputs
    return found[last.name]


def convolve(x, weight, strides, pad_type, pad, dilations, groups, bias=None):
    assert pad_type in ("custom", "valid") and int(groups) == 1
    top, bottom, left, right = (int(edge) for edge in pad) if pad_type == "custom" else (0, 0, 0, 0)
    padded = F.pad(x, (left, right, top, bottom))
    return F.conv2d(padded, weight, bias, tuple(map(int, strides)), 0, tuple(map(int, dilations)))


def dequantize(quantized_data, zero_point, scale, axis):
    shape = [1] * quantized_data.ndim
    shape[int(axis)] = -1
    return (quantized_data - zero_point.reshape(shape)) * scale.reshape(shape)


OPERATIONS = {
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "cast": lambda x, dtype: x,
    "relu": lambda x: x.relu(),
    "tanh": lambda x: x.tanh(),
    "round": lambda x: x.round(),
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "conv": convolve,
    "constexpr_affine_dequantize": dequantize,
    "instance_norm": lambda x, gamma, beta, epsilon: F.instance_norm(x, None, None, gamma, beta, eps=float(epsilon)),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, int(downscale_factor)),
    "upsample_nearest_neighbor": lambda x, scale_factor_height, scale_factor_width: x.repeat_interleave(
        int(scale_factor_height), 2
    ).repeat_interleave(int(scale_factor_width), 3),
}


@pytest.mark.parametrize(("precision", "most"), [("fp32", 0.01), ("fp16", 0.3), ("int8", 3.0)])
def test_the_operations_of_the_real_package_give_pytorchs_picture(tmp_path, precision, most):
    ct = pytest.importorskip("coremltools")
    from coremltools.converters.mil.frontend.milproto.load import load as read_program

    size = 64
    net = onnx_export.open_generator(load("anime", device="cpu", size=size))
    path = tmp_path / "a.mlpackage"
    coreml_export.write(net, path, size, precision, {"license": "mine", "metadata": {"size": "64"}})
    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    for side, name in ((spec.description.input, "image"), (spec.description.output, "translation")):
        (kind,) = side
        picture = kind.type.imageType
        assert kind.name == name and (picture.width, picture.height) == (size, size)
        assert picture.colorSpace == picture.ColorSpace.Value("RGB")
    assert model.license == "mine" and model.user_defined_metadata["size"] == "64"
    assert sorted(found.name for found in path.iterdir()) == ["Data", "Manifest.json"]
    program = read_program(spec, spec.specificationVersion, model.weights_dir)
    picture = images.to_image(onnx_export.portraits((1, 3, size, size))[0])
    with torch.inference_mode():
        made = compute(program, picture)
        expected = net(images.to_tensor(picture)[None])
    assert torch.equal(made, made.round())
    apart = (made - images.from_bytes(np.asarray(images.to_image(expected[0]))[None]).add(1).mul(127.5)).abs()
    assert apart.mean() < most, float(apart.mean())
    assert apart.max() <= 1.001 if precision == "fp32" else apart.mean() > 0
