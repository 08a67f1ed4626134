"""`export NAME.tflite`: checked against PyTorch; the real converter where it is installed."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from facekit.inference import litert_export


class Interpreter:
    """Runs what the pretended converter has written, `off` by so much."""

    off = 0.0

    def __init__(self, model_content, num_threads):
        self.net = torch.jit.load(__import__("io").BytesIO(model_content))

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"index": 0}]

    get_output_details = get_input_details

    def set_tensor(self, index, x):
        self.x = torch.from_numpy(x)

    def invoke(self):
        with torch.inference_mode():
            self.y = self.net(self.x).numpy() + self.off

    def get_tensor(self, index):
        return self.y


@pytest.fixture
def converter(monkeypatch):
    """A converter that writes TorchScript, and an interpreter for it."""

    def convert(net, example):
        traced = torch.jit.trace(net, example)
        return SimpleNamespace(export=lambda path: torch.jit.save(traced, path))

    monkeypatch.setitem(sys.modules, "litert_torch", SimpleNamespace(convert=convert))
    monkeypatch.setitem(sys.modules, "ai_edge_litert", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", SimpleNamespace(Interpreter=Interpreter))
    monkeypatch.setattr(Interpreter, "off", 0.0)


@pytest.mark.slow
def test_the_file_is_written_once_with_its_card_beside_it(facekit, converter, tmp_path):
    call = ("export", "anime", tmp_path / "a.tflite", "--size", 32)
    done = facekit(*call, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out.splitlines()[-1])
    assert told["shape"] == [1, 3, 32, 32] and told["difference"] < 1e-5
    card = yaml.safe_load((tmp_path / "a.tflite.card.yaml").read_text())
    assert card["options"] == {"to": "anime", "size": 32} and card["made"]["difference"] == told["difference"]
    assert "nothing to do" in facekit(*call).err
    other = facekit("export", "anime", tmp_path / "a.tflite", "--size", 64)
    assert other.code == 2 and "options.size: 32 -> 64" in other.err
    assert facekit("export", "anime", tmp_path / "a.tflite", "--size", 64, "--force").code == 0


@pytest.mark.slow
def test_a_file_that_answers_differently_is_not_kept(facekit, converter, tmp_path, monkeypatch):
    monkeypatch.setattr(Interpreter, "off", 0.01)
    done = facekit("export", "anime", tmp_path / "a.tflite", "--size", 32)
    assert done.code == 1 and "differ from PyTorch's by 0.01" in done.err
    assert not (tmp_path / "a.tflite").exists()


@pytest.mark.slow
def test_a_net_that_cannot_be_converted_is_an_error_with_a_way_out(facekit, converter, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["litert_torch"], "convert", lambda net, example: 1 / 0)
    done = facekit("export", "anime", tmp_path / "a.tflite", "--size", 32)
    assert done.code == 1 and "NAME.onnx" in done.err and not (tmp_path / "a.tflite").exists()


def test_without_the_converter_the_line_that_installs_it_is_shown(facekit, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    done = facekit("export", "anime", tmp_path / "a.tflite", "--size", 32)
    assert done.code == 5 and "pip install 'facekit-anime[litert]'" in done.err


def test_somebody_elses_file_and_other_options_are_refused(facekit, converter, tmp_path):
    (tmp_path / "a.tflite").write_text("mine")
    assert facekit("export", "anime", tmp_path / "a.tflite").code == 2
    assert (tmp_path / "a.tflite").read_text() == "mine"
    done = facekit("export", "anime", tmp_path / "b.tflite", "--precision", "fp16")
    assert done.code == 2 and "--precision" in done.err
    assert facekit("export", "anime", tmp_path / "c.tflite", "--dry-run").code == 0
    assert not (tmp_path / "c.tflite").exists()


def test_the_real_converter_agrees_with_pytorch(tmp_path):
    pytest.importorskip("litert_torch")
    from facekit.inference.translator import load

    translator = load("anime", device="cpu", size=32)
    net = litert_export.onnx_export.open_generator(translator)
    assert litert_export.write(net, tmp_path / "a.tflite", 32) < 1e-4
    assert (tmp_path / "a.tflite").read_bytes()[4:8] == b"TFL3"
