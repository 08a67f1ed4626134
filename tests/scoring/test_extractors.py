"""Feature extractors from files and from clean-fid, the one resize before them, and the cache."""

import urllib.error

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import toy
import toy_scores
from facekit.errors import CardError, MissingError
from facekit.scoring import extractors, features
from facekit.storage import files


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def convolutions():
    """A small net with what Inception has: convolutions, norms with moments of their own, and 2048 features."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4, bias=False), nn.BatchNorm2d(8, eps=1e-3), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16, eps=1e-3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 2048),
    )  # fmt: skip
    layers.train()(torch.randn(4, 3, 99, 99) + 0.5)
    return layers.eval()


@pytest.fixture
def nowhere(monkeypatch):
    """Makes sure that the machine's own copy of clean-fid's weights is not found, nor the network."""
    from cleanfid import downloads_helper

    def fail(fpath):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(extractors, "CLEAN_FILE", "inception-of-a-test.pt")
    monkeypatch.setattr(downloads_helper, "check_download_inception", fail)


# extractors


def test_an_onnx_file_says_its_own_size_and_dimension(tmp_path):
    found = extractors.load(toy_scores.write_onnx(tmp_path / "toy.onnx"))
    assert (found.name, found.unit, found.dim, found.edge) == ("toy.onnx", "48", 48, 32)
    assert "32 px" in found.preprocessing and "(v - 128) / 128" in found.preprocessing
    assert found.digest == files.digest(tmp_path / "toy.onnx")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("inception", -1.0), ("symmetric", -1.0), ("unit", 0.0), ("bytes", 0.0), ("imagenet", -0.485 / 0.229)],
)
def test_preprocessing_scales_the_pixels(tmp_path, name, expected):
    found = extractors.load(toy_scores.write_onnx(tmp_path / "toy.onnx"), name)
    assert found.run(np.zeros((2, 3, 32, 32), np.float32))[:, 0] == pytest.approx(expected, rel=1e-5)
    assert extractors.SCALES[name][0] in found.preprocessing


def test_an_onnx_file_that_leaves_its_size_open_takes_299_or_what_is_given(tmp_path):
    path = toy_scores.write_onnx(tmp_path / "open.onnx", ("n", 3, "h", "w"))
    assert extractors.load(path).edge == 299
    assert (extractors.load(path, edge=64).edge, extractors.load(path, edge=64).dim) == (64, 192)


def test_a_torchscript_file_is_an_extractor(tmp_path):
    path = toy_scores.write_script(tmp_path / "net.pt", nn.AdaptiveAvgPool2d(2), nn.Flatten())
    found = extractors.load(path, "unit", 20)
    assert (found.unit, found.edge) == ("12", 20)
    assert found.run(np.full((3, 3, 20, 20), 51, np.float32)) == pytest.approx(np.full((3, 12), 0.2))


def test_maps_of_one_pixel_are_features(tmp_path):
    assert extractors.load(toy_scores.write_script(tmp_path / "net.pt", nn.AdaptiveAvgPool2d(1))).dim == 3


@pytest.mark.parametrize("shape", [("n", 3, 32, 24), ("n", 1, 32, 32), ("n", 3, 32), (16, 3, 32, 32)])
def test_an_onnx_file_that_takes_no_square_images_is_refused(tmp_path, shape):
    if len(shape) == 3:
        path = tmp_path / "flat.onnx"
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        feat = helper.make_tensor_value_info("feat", TensorProto.FLOAT, ("n", "d"))
        graph = helper.make_graph([helper.make_node("Flatten", ["x"], ["feat"])], "flat", [x], [feat])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    else:
        path = toy_scores.write_onnx(tmp_path / "odd.onnx", shape)
    with pytest.raises(MissingError) as told:
        extractors.load(path)
    assert told.value.code == 5 and path.name in told.value.message and told.value.hint


def test_a_size_that_contradicts_the_file_is_refused(tmp_path):
    with pytest.raises(CardError, match="32 px, not 64"):
        extractors.load(toy_scores.write_onnx(tmp_path / "toy.onnx"), edge=64)


def test_a_torchscript_file_of_another_size_is_refused_with_the_way_out(tmp_path):
    path = toy_scores.write_script(tmp_path / "net.pt", nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    with pytest.raises(MissingError, match="299 px") as told:
        extractors.load(path)
    assert "--input-size" in told.value.hint
    assert extractors.load(path, edge=8).dim == 5


def test_a_net_that_makes_maps_is_refused(tmp_path):
    with pytest.raises(MissingError, match="one row of features"):
        extractors.load(toy_scores.write_script(tmp_path / "net.pt", nn.AvgPool2d(10)))


@pytest.mark.parametrize("name", ["net.onnx", "net.pt"])
@pytest.mark.parametrize("data", [b"", b"not a net"])
def test_a_damaged_file_is_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MissingError, match=r"not a complete|neither a complete"):
        extractors.load(tmp_path / name)


def test_a_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no features file"):
        extractors.load(tmp_path / "gone.onnx")
    with pytest.raises(CardError, match="preprocessing"):
        extractors.load(toy_scores.write_onnx(tmp_path / "toy.onnx"), "odd")


# clean-fid


@pytest.mark.slow
def test_clean_fid_is_taken_from_where_it_is_kept_and_gives_its_own_features(cache, nowhere, monkeypatch):
    from cleanfid.features import InceptionV3W
    from cleanfid.resize import build_resizer

    monkeypatch.setattr(extractors, "CLEAN_FILE", "inception-2015-12-05.pt")
    monkeypatch.setattr(extractors, "clean_file", lambda: cache / "inception-2015-12-05.pt")
    toy_scores.write_clean(cache / "inception-2015-12-05.pt")
    found = extractors.load()
    assert (found.unit, found.dim, found.edge) == ("clean", 2048, 299)
    picture = toy.picture(40)
    theirs = torch.from_numpy(build_resizer("clean")(np.asarray(picture))).permute(2, 0, 1)[None]
    expected = InceptionV3W(str(cache), download=False)(theirs).detach().numpy()
    assert found.run(features.pixels(picture, 299)[None]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_channels_last_and_folded_norms_change_no_feature_of_clean_fid(tmp_path):
    from cleanfid.features import InceptionV3W

    path = toy_scores.write_clean(tmp_path / "inception-2015-12-05.pt", convolutions())
    x = np.random.default_rng(0).uniform(0, 255, (3, 3, 299, 299)).astype(np.float32)
    expected = InceptionV3W(str(tmp_path), download=False)(torch.from_numpy(x)).detach().numpy()
    found = extractors.load(path).run(x)
    assert found.std(0).max() > 1e-3  # the images differ, and by more than is allowed below
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.slow
def test_a_file_of_clean_fid_that_cannot_be_frozen_gives_its_features_all_the_same(tmp_path, monkeypatch):
    path = toy_scores.write_clean(tmp_path / "inception-2015-12-05.pt", convolutions())
    x = np.random.default_rng(0).uniform(0, 255, (2, 3, 299, 299)).astype(np.float32)
    expected = extractors.load(path).run(x)

    def refuse(net):
        raise RuntimeError("not of this kind")

    monkeypatch.setattr(torch.jit, "freeze", refuse)
    assert extractors.load(path).run(x) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_file_of_clean_fid_is_known_by_its_name(tmp_path):
    found = extractors.load(toy_scores.write_clean(tmp_path / "inception-2015-12-05.pt"))
    assert found.unit == "clean" and found.dim == 2048
    with pytest.raises(CardError, match="299 px"):
        extractors.load(tmp_path / "inception-2015-12-05.pt", edge=128)


def test_clean_fid_downloads_into_the_cache_once(cache, nowhere, monkeypatch):
    from cleanfid import downloads_helper

    calls = []

    def fetch(fpath):
        calls.append(fpath)
        return str(toy_scores.write_clean(cache / "download" / "x.pt"))

    monkeypatch.setattr(downloads_helper, "check_download_inception", fetch)
    assert extractors.clean_file() == extractors.clean_file() == cache / "inception-of-a-test.pt"
    assert len(calls) == 1 and extractors.clean_file().is_file()


def test_a_download_that_fails_says_what_to_do(cache, nowhere):
    with pytest.raises(MissingError, match="cannot download") as told:
        extractors.load("clean-fid")
    assert told.value.code == 5 and "--features" in told.value.hint
    assert list(cache.iterdir()) == []


def test_a_cut_download_of_clean_fid_says_to_remove_it(tmp_path):
    path = toy_scores.write_clean(tmp_path / "inception-2015-12-05.pt")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(MissingError, match="damaged") as told:
        extractors.load(path)
    assert f"rm {path}" in told.value.hint


def test_the_shared_inception_gives_768_features(shared):
    found = extractors.load(shared / "weights" / "inception-2015-12-05-768.onnx")
    assert (found.unit, found.dim, found.edge) == ("768", 768, 299)
