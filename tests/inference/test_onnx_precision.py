"""`export --precision`: smaller files that draw nearly the same, and what is refused."""

import json

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import toy
from facekit.errors import FacekitError
from facekit.inference import onnx_export, onnx_precision


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder with 20 versions of a face."""
    from skimage.data import astronaut

    folder = tmp_path_factory.mktemp("faces")
    face = Image.fromarray(astronaut()[:220, 110:330]).resize((64, 64))
    for number in range(20):
        Image.eval(face, lambda value, gain=0.5 + number / 40: round(value * gain)).save(folder / f"{number:02d}.png")
    return folder


def translate(path, x):
    return onnxruntime.InferenceSession(str(path)).run(None, {"image": x})[0]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "share", "far"), [("fp16", 0.52, 0.1), ("int8", 0.3, 8)])
def test_a_smaller_file_draws_nearly_the_same(facekit, tmp_path, faces, precision, share, far):
    more = ("--calibrate", faces) if precision == "int8" else ()
    done = facekit("export", "anime", tmp_path / "small.onnx", "--size", 64, "--precision", precision, *more, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out.splitlines()[-1])
    assert facekit("export", "anime", tmp_path / "full.onnx", "--size", 64).code == 0
    sizes = [(tmp_path / name).stat().st_size for name in ("small.onnx", "full.onnx")]
    assert sizes[0] < share * sizes[1]
    x = onnx_precision.read_faces(faces, 64)[:4]
    small, full = (translate(tmp_path / name, x) for name in ("small.onnx", "full.onnx"))
    apart = np.abs(small.clip(-1, 1) - full.clip(-1, 1)) * 127.5
    assert apart.mean() < far and 0 < told["mean_levels"] < far
    wide = translate(tmp_path / "small.onnx", np.zeros((2, 3, 64, 96), np.float32))  # its axes stay free
    assert wide.shape == (2, 3, 64, 96)
    again = facekit("export", "anime", tmp_path / "small.onnx", "--size", 64, "--precision", precision, *more)
    assert "nothing to do" in again.err
    assert facekit("export", "anime", tmp_path / "small.onnx", "--size", 64).code == 2


@pytest.mark.slow
def test_other_faces_are_another_export(facekit, tmp_path, faces):
    call = ("export", "anime", tmp_path / "a.onnx", "--size", 32, "--precision", "int8", "--calibrate")
    assert facekit(*call, faces).code == 0
    toy.fill(tmp_path / "others", 3)
    done = facekit(*call, tmp_path / "others")
    assert done.code == 2 and "inputs.calibrate" in done.err and "3 faces say little" in done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--precision", "int8"), "--calibrate"),
        (("--precision", "fp16", "--calibrate", "."), "for --precision int8"),
        (("--precision", "fp16", "--web"), "leave out --precision"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(facekit, tmp_path, flags, said):
    done = facekit("export", "anime", tmp_path / "a.onnx", *flags)
    assert done.code == 2 and said in done.err and not (tmp_path / "a.onnx").exists()


def test_a_folder_without_faces_is_refused(facekit, tmp_path):
    (tmp_path / "empty").mkdir()
    call = ("export", "anime", tmp_path / "a.onnx", "--precision", "int8", "--calibrate")
    assert facekit(*call, tmp_path / "empty").code == 3
    assert facekit(*call, tmp_path / "lost").code == 3


@pytest.mark.slow
def test_a_file_that_draws_something_else_is_not_kept(facekit, tmp_path, faces, monkeypatch):
    monkeypatch.setattr(onnx_precision, "LIMIT", 1e-4)
    call = ("export", "anime", tmp_path / "a.onnx", "--size", 32, "--precision", "int8", "--calibrate", faces)
    done = facekit(*call)
    assert done.code == FacekitError.code and "--precision fp16 or fp32" in done.err
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.slow
def test_tools_that_fail_are_an_error_with_a_way_out(facekit, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_precision, "_halve", lambda path: 1 / 0)
    done = facekit("export", "anime", tmp_path / "a.onnx", "--size", 32, "--precision", "fp16")
    assert done.code == FacekitError.code and "--precision fp32" in done.err and not (tmp_path / "a.onnx").exists()


@pytest.mark.slow
def test_the_metadata_tells_how_far_it_is(facekit, tmp_path):
    assert facekit("export", "anime", tmp_path / "a.onnx", "--size", 32, "--precision", "fp16").code == 0
    told = onnx_export.read_metadata(tmp_path / "a.onnx")
    assert 0 < float(told["difference"]) < 0.02 and json.loads(told["export"])["options"]["precision"] == "fp16"
