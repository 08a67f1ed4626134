"""TorchScript files: those that only compute run; those that do more are refused before any of their code runs."""

import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import toy_scores
from facekit.errors import CardError
from facekit.scoring import extractors

TARGET = "written-by-the-features-file"


class Saves(nn.Module):
    """Writes a file when it is called."""

    def forward(self, x):
        torch.save(x, "written-by-the-features-file")
        return x.mean(dim=[2, 3])


class Maps(nn.Module):
    """Maps a file that is not there, which creates it."""

    def forward(self, x):
        return x.mean(dim=[2, 3]) + torch.from_file("written-by-the-features-file", True, 4)[0]


class Prints(nn.Module):
    """Prints on the terminal."""

    def forward(self, x):
        print("text")
        return x.mean(dim=[2, 3])


class Wakes(nn.Module):
    """Writes a file while it is loaded."""

    def __init__(self):
        super().__init__()
        self.training = False

    @torch.jit.export
    def __getstate__(self):
        return torch.zeros(1), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        torch.save(state[0], "written-by-the-features-file")
        self.training = state[1]

    def forward(self, x):
        return x.mean(dim=[2, 3])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", [Saves, Maps, Prints, Wakes])
def test_code_that_does_more_than_compute_is_refused_before_it_runs(here, kind):
    torch.jit.script(kind()).save("net.pt")
    with pytest.raises(CardError, match="can write files") as told:
        extractors.load("net.pt", edge=16)
    assert "--allow-torchscript" in told.value.hint and not (here / TARGET).exists()


def test_the_user_can_allow_a_file(here):
    torch.jit.script(Saves()).save("net.pt")
    assert extractors.load("net.pt", edge=16, allow_torchscript=True).dim == 3
    assert (here / TARGET).exists()


def test_the_flag_is_on_the_command_line_alone(here, facekit):
    torch.jit.script(Saves()).save("net.pt")
    for name in ("a", "b"):
        toy_scores.draw(here / name / "1.png", toy_scores.FACE)
        toy_scores.draw(here / name / "2.png", {})
    given = ("score-fid", "a", "b", "--features", "net.pt", "--input-size", 16)
    assert facekit(*given).code == 2 and not (here / TARGET).exists()
    assert facekit(*given, "--allow-torchscript", "--save", "score.yaml").code == 0
    assert "allow" not in (here / "score.yaml").read_text().partition("made:")[0]


@pytest.mark.parametrize("trace", [False, True])
def test_code_that_computes_runs(trace):
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    whole = nn.Sequential(*layers).eval()
    made = torch.jit.trace(whole, torch.zeros(1, 3, 16, 16)) if trace else torch.jit.script(whole)
    made.save("net.pt")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 3, 16, 16)).astype(np.float32)
    expected = whole(torch.from_numpy((pixels - 128) / 128)).detach().numpy()
    assert extractors.load("net.pt", edge=16).run(pixels) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["net/extra.bin", "net/code/../../x", "net/code/evil.py"])
def test_an_archive_with_other_members_is_refused(name):
    torch.jit.script(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())).save("net.pt")
    with zipfile.ZipFile("net.pt", "a") as archive:
        archive.writestr(name, b"x.save")
    with pytest.raises(CardError, match="TorchScript"):
        extractors.load("net.pt", edge=16)


def test_clean_fids_name_makes_no_file_trusted(here):
    torch.jit.script(Saves()).save("inception-2015-12-05.pt")
    with pytest.raises(CardError, match="can write files"):
        extractors.load("inception-2015-12-05.pt")


@pytest.mark.parametrize("place", ["/etc/hostname", "../secret.bin", "sub/weights.bin", "link.bin"])
def test_onnx_weights_are_read_only_from_beside_the_file(here, place):
    (here / "link.bin").symlink_to("/etc/hostname")
    path = _with_weights(here, place)
    with pytest.raises(CardError, match="not a file beside it"):
        extractors.load(path)


def test_onnx_weights_beside_the_file_are_read(here):
    (here / "weights.bin").write_bytes(np.float32([3]).tobytes())
    found = extractors.load(_with_weights(here, "weights.bin"), "bytes")
    assert found.run(np.full((1, 3, 32, 32), 2, np.float32))[0, 0] == pytest.approx(6)


def _with_weights(folder, place):
    """Write an ONNX file that multiplies by a weight stored at `place`."""
    model = onnx.load(toy_scores.write_onnx(folder / "net.onnx"))
    weight = numpy_helper.from_array(np.float32([3]), "w")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=place)
    model.graph.initializer.append(weight)
    model.graph.node[-1].input[0] = "scaled"
    model.graph.node.insert(1, onnx.helper.make_node("Mul", ["pooled", "w"], ["scaled"]))
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"
