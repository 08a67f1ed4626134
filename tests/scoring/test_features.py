"""Feature extractors from files and from clean-fid, the one resize before them, and the cache."""

import time
import urllib.error

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

import toy
from facekit.errors import CardError, InputError, MissingError
from facekit.scoring import features
from facekit.storage import files
from facekit.storage.cache import cache_folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_onnx(path, shape=("n", 3, 32, 32), kind=TensorProto.FLOAT, pool=8):
    """Write an ONNX file that averages squares of `pool` px: 48 features of an image of 32 px."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[pool, pool], strides=[pool, pool]),
        helper.make_node("Flatten", ["pooled"], ["feat"]),
    ]
    x = helper.make_tensor_value_info("x", kind, shape)
    feat = helper.make_tensor_value_info("feat", kind, ("n", "d"))
    graph = helper.make_graph(nodes, "toy", [x], [feat])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def write_script(path, *layers):
    """Write a TorchScript file."""
    torch.jit.script(nn.Sequential(*layers)).save(str(path))
    return path


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


class Clean(nn.Module):
    """Laid out as the file that clean-fid downloads: `layers` makes 2048 features."""

    def __init__(self, layers=None):
        super().__init__()
        torch.manual_seed(0)
        self.layers = layers or nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 2048))

    def forward(self, x):
        return self.layers(x)


def write_clean(path, layers=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.script(Clean(layers)).save(str(path))
    return path


@pytest.fixture
def nowhere(monkeypatch):
    """Makes sure that the machine's own copy of clean-fid's weights is not found, nor the network."""
    from cleanfid import downloads_helper

    def fail(fpath):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(features, "CLEAN_FILE", "inception-of-a-test.pt")
    monkeypatch.setattr(downloads_helper, "check_download_inception", fail)


# extractors


def test_an_onnx_file_says_its_own_size_and_dimension(tmp_path):
    found = features.load(write_onnx(tmp_path / "toy.onnx"))
    assert (found.name, found.unit, found.dim, found.edge) == ("toy.onnx", "48", 48, 32)
    assert "32 px" in found.preprocessing and "(v - 128) / 128" in found.preprocessing
    assert found.digest == files.digest(tmp_path / "toy.onnx")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("inception", -1.0), ("symmetric", -1.0), ("unit", 0.0), ("bytes", 0.0), ("imagenet", -0.485 / 0.229)],
)
def test_preprocessing_scales_the_pixels(tmp_path, name, expected):
    found = features.load(write_onnx(tmp_path / "toy.onnx"), name)
    assert found.run(np.zeros((2, 3, 32, 32), np.float32))[:, 0] == pytest.approx(expected, rel=1e-5)
    assert features.SCALES[name][0] in found.preprocessing


def test_an_onnx_file_that_leaves_its_size_open_takes_299_or_what_is_given(tmp_path):
    path = write_onnx(tmp_path / "open.onnx", ("n", 3, "h", "w"))
    assert features.load(path).edge == 299
    assert (features.load(path, edge=64).edge, features.load(path, edge=64).dim) == (64, 192)


def test_a_torchscript_file_is_an_extractor(tmp_path):
    path = write_script(tmp_path / "net.pt", nn.AdaptiveAvgPool2d(2), nn.Flatten())
    found = features.load(path, "unit", 20)
    assert (found.unit, found.edge) == ("12", 20)
    assert found.run(np.full((3, 3, 20, 20), 51, np.float32)) == pytest.approx(np.full((3, 12), 0.2))


def test_maps_of_one_pixel_are_features(tmp_path):
    assert features.load(write_script(tmp_path / "net.pt", nn.AdaptiveAvgPool2d(1))).dim == 3


@pytest.mark.parametrize("shape", [("n", 3, 32, 24), ("n", 1, 32, 32), ("n", 3, 32), (16, 3, 32, 32)])
def test_an_onnx_file_that_takes_no_square_images_is_refused(tmp_path, shape):
    if len(shape) == 3:
        path = tmp_path / "flat.onnx"
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        feat = helper.make_tensor_value_info("feat", TensorProto.FLOAT, ("n", "d"))
        graph = helper.make_graph([helper.make_node("Flatten", ["x"], ["feat"])], "flat", [x], [feat])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    else:
        path = write_onnx(tmp_path / "odd.onnx", shape)
    with pytest.raises(MissingError) as told:
        features.load(path)
    assert told.value.code == 5 and path.name in told.value.message and told.value.hint


def test_a_size_that_contradicts_the_file_is_refused(tmp_path):
    with pytest.raises(CardError, match="32 px, not 64"):
        features.load(write_onnx(tmp_path / "toy.onnx"), edge=64)


def test_a_torchscript_file_of_another_size_is_refused_with_the_way_out(tmp_path):
    path = write_script(tmp_path / "net.pt", nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
    with pytest.raises(MissingError, match="299 px") as told:
        features.load(path)
    assert "--input-size" in told.value.hint
    assert features.load(path, edge=8).dim == 5


def test_a_net_that_makes_maps_is_refused(tmp_path):
    with pytest.raises(MissingError, match="one row of features"):
        features.load(write_script(tmp_path / "net.pt", nn.AvgPool2d(10)))


@pytest.mark.parametrize("name", ["net.onnx", "net.pt"])
@pytest.mark.parametrize("data", [b"", b"not a net"])
def test_a_damaged_file_is_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MissingError, match=r"not a whole|neither a whole"):
        features.load(tmp_path / name)


def test_a_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no features file"):
        features.load(tmp_path / "gone.onnx")
    with pytest.raises(CardError, match="preprocessing"):
        features.load(write_onnx(tmp_path / "toy.onnx"), "odd")


# clean-fid


def test_clean_fid_is_taken_from_where_it_is_kept_and_gives_its_own_features(cache, nowhere, monkeypatch):
    from cleanfid.features import InceptionV3W
    from cleanfid.resize import build_resizer

    monkeypatch.setattr(features, "CLEAN_FILE", "inception-2015-12-05.pt")
    monkeypatch.setattr(features, "clean_file", lambda: cache / "inception-2015-12-05.pt")
    write_clean(cache / "inception-2015-12-05.pt")
    found = features.load()
    assert (found.unit, found.dim, found.edge) == ("clean", 2048, 299)
    picture = toy.picture(40)
    theirs = torch.from_numpy(build_resizer("clean")(np.asarray(picture))).permute(2, 0, 1)[None]
    expected = InceptionV3W(str(cache), download=False)(theirs).detach().numpy()
    assert found.run(features.pixels(picture, 299)[None]) == pytest.approx(expected, abs=1e-6)


def test_channels_last_and_folded_norms_change_no_feature_of_clean_fid(tmp_path):
    from cleanfid.features import InceptionV3W

    path = write_clean(tmp_path / "inception-2015-12-05.pt", convolutions())
    x = np.random.default_rng(0).uniform(0, 255, (3, 3, 299, 299)).astype(np.float32)
    expected = InceptionV3W(str(tmp_path), download=False)(torch.from_numpy(x)).detach().numpy()
    found = features.load(path).run(x)
    assert found.std(0).max() > 1e-3  # the images differ, and by more than is allowed below
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_a_file_of_clean_fid_that_cannot_be_frozen_gives_its_features_all_the_same(tmp_path, monkeypatch):
    path = write_clean(tmp_path / "inception-2015-12-05.pt", convolutions())
    x = np.random.default_rng(0).uniform(0, 255, (2, 3, 299, 299)).astype(np.float32)
    expected = features.load(path).run(x)

    def refuse(net):
        raise RuntimeError("not of this kind")

    monkeypatch.setattr(torch.jit, "freeze", refuse)
    assert features.load(path).run(x) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_file_of_clean_fid_is_known_by_its_name(tmp_path):
    found = features.load(write_clean(tmp_path / "inception-2015-12-05.pt"))
    assert found.unit == "clean" and found.dim == 2048
    with pytest.raises(CardError, match="299 px"):
        features.load(tmp_path / "inception-2015-12-05.pt", edge=128)


def test_clean_fid_downloads_into_the_cache_once(cache, nowhere, monkeypatch):
    from cleanfid import downloads_helper

    calls = []

    def fetch(fpath):
        calls.append(fpath)
        return str(write_clean(cache / "download" / "x.pt"))

    monkeypatch.setattr(downloads_helper, "check_download_inception", fetch)
    assert features.clean_file() == features.clean_file() == cache / "inception-of-a-test.pt"
    assert len(calls) == 1 and features.clean_file().is_file()


def test_a_download_that_fails_says_what_to_do(cache, nowhere):
    with pytest.raises(MissingError, match="cannot download") as told:
        features.load("clean-fid")
    assert told.value.code == 5 and "--features" in told.value.hint
    assert list(cache.iterdir()) == []


def test_a_cut_download_of_clean_fid_says_to_remove_it(tmp_path):
    path = write_clean(tmp_path / "inception-2015-12-05.pt")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(MissingError, match="damaged") as told:
        features.load(path)
    assert f"rm {path}" in told.value.hint


# images


@pytest.mark.parametrize("size", [(16, 16), (400, 400), (299, 299), (40, 30)])
def test_images_are_resized_as_clean_fid_does(size):
    from cleanfid.resize import build_resizer

    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    expected = build_resizer("clean")(noise).transpose(2, 0, 1)
    assert np.array_equal(features.pixels(Image.fromarray(noise), 299), expected)


@pytest.fixture
def net(tmp_path):
    """A small extractor that counts the images it has seen."""
    found = features.load(write_onnx(tmp_path / "toy.onnx"))
    seen = []

    def run(x):
        seen.append(len(x))
        return found.run(x)

    counted = features.Extractor(**{**vars(found), "run": run, "batch": 4})
    return counted, seen


def test_features_come_in_the_order_of_names(tmp_path, net):
    folder = toy.fill(tmp_path / "in", 10)
    found = features.of_folder(folder, net[0])
    assert found.shape == (10, 48) and found.dtype == np.float32 and sorted(net[1]) == [2, 4, 4]
    for i, path in enumerate(sorted(folder.glob("*.png"))):
        assert found[i] == pytest.approx(net[0].run(features.pixels(Image.open(path), 32)[None])[0], abs=1e-6)
    assert np.array_equal(features.of_folder(folder, net[0], limit=3), found[:3])


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_features_do_not_depend_on_the_workers(tmp_path, net, workers):
    """Also where the first batch takes longest."""
    extractor = net[0]
    folder = toy.fill(tmp_path / "in", 18)
    first = features.pixels(Image.open(folder / "000.png"), 32)

    def run(x):
        if np.array_equal(x[0], first):
            time.sleep(0.2)
        return extractor.run(x)

    expected = np.concatenate(
        [extractor.run(features.pixels(Image.open(p), 32)[None]) for p in sorted(folder.iterdir())]
    )
    slow = features.Extractor(**{**vars(extractor), "run": run})
    found = features.of_folder(folder, slow, workers=workers)
    assert found == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(found, features.of_folder(folder, extractor, workers=3))


def test_torch_has_its_threads_again_after_the_workers(tmp_path):
    folder = toy.fill(tmp_path / "in", 9)
    extractor = features.load(write_script(tmp_path / "net.pt", nn.AdaptiveAvgPool2d(2), nn.Flatten()), edge=20)
    seen = []

    def run(x):
        seen.append(torch.get_num_threads())
        return extractor.run(x)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        features.of_folder(folder, features.Extractor(**{**vars(extractor), "run": run}), workers=2)
        assert torch.get_num_threads() == 6 and seen == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_a_net_that_fails_stops_the_rest(tmp_path, net):
    seen = []

    def run(x):
        seen.append(len(x))
        raise MissingError("no net")

    broken = features.Extractor(**{**vars(net[0]), "run": run})
    with pytest.raises(MissingError, match="no net"):
        features.of_folder(toy.fill(tmp_path / "in", 80), broken, workers=1)
    assert len(seen) < 20


def test_sizes_are_not_mixed_without_resize(tmp_path, net):
    folder = toy.fill(tmp_path / "in", 3)
    toy.picture(24).save(folder / "other.png")
    with pytest.raises(InputError, match="several sizes") as told:
        features.of_folder(folder, net[0])
    assert "--resize 16" in told.value.hint
    assert len(features.of_folder(folder, net[0], resize=16)) == 4


def test_images_that_cannot_be_read_are_left_out_and_noted(tmp_path, net):
    folder = toy.fill(tmp_path / "in", 6)
    (folder / "001.png").write_bytes(b"")
    whole = (folder / "003.png").read_bytes()
    (folder / "003.png").write_bytes(whole[: len(whole) // 2])
    images = features.ImageSet(folder)
    assert features.of_folder(images, net[0], cache=True).shape == (4, 48)
    assert set(images.failed) == {"001.png", "003.png"} and len(images) == 4
    assert not list(cache_folder().glob("features/*"))


def test_a_folder_of_broken_images_is_refused(tmp_path, net):
    folder = toy.fill(tmp_path / "in", 2)
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="can be read"):
        features.of_folder(folder, net[0])


def test_the_digest_is_of_names_and_contents(tmp_path):
    one, two = (features.ImageSet(toy.fill(tmp_path / name, 3)).digest for name in ("one", "two"))
    assert one == two
    toy.picture(16, 5).save(tmp_path / "two" / "001.png")
    assert features.ImageSet(tmp_path / "two").digest != one
    (tmp_path / "one" / "001.png").rename(tmp_path / "one" / "1.png")
    assert features.ImageSet(tmp_path / "one").digest != one


def test_kinds_go_by_content(tmp_path):
    folder = toy.fill(tmp_path / "in", 1)
    toy.picture().save(folder / "b.png", "JPEG")
    toy.picture().save(folder / "c.webp")
    toy.picture().save(folder / "d.bmp")
    assert dict(features.ImageSet(folder).kinds) == {"PNG": 1, "JPEG": 1, "WebP": 1, "BMP": 1}


# cache


def test_features_are_kept_by_content(tmp_path, net, cache):
    first = features.of_folder(toy.fill(tmp_path / "in", 5), net[0], cache=True)
    net[1].clear()
    again = features.of_folder(toy.fill(tmp_path / "copy", 5), net[0], cache=True)
    assert net[1] == [] and np.array_equal(first, again)
    assert [path.suffix for path in (cache / "features").iterdir()] == [".npz"]


@pytest.mark.parametrize("change", ["image", "net", "preprocessing", "resize", "limit"])
def test_whatever_features_depend_on_makes_them_anew(tmp_path, net, change):
    folder = toy.fill(tmp_path / "in", 5)
    extractor, seen = net
    features.of_folder(folder, extractor, cache=True)
    seen.clear()
    more = {"resize": {"resize": 8}, "limit": {"limit": 3}}.get(change, {})
    if change == "image":
        toy.picture(16, 77).save(folder / "002.png")
    if change in ("net", "preprocessing"):
        extractor = features.Extractor(**{**vars(extractor), "digest" if change == "net" else change: "other"})
    features.of_folder(folder, extractor, cache=True, **more)
    assert sum(seen) == (3 if change == "limit" else 5)


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "shape", "nan"])
def test_a_damaged_cache_is_made_again(tmp_path, net, cache, damage):
    folder = toy.fill(tmp_path / "in", 5)
    first = features.of_folder(folder, net[0], cache=True)
    (path,) = (cache / "features").iterdir()
    data = path.read_bytes()
    if damage in ("shape", "nan"):
        np.savez(path, features=first[:2] if damage == "shape" else first * np.nan)
    else:
        path.write_bytes({"empty": b"", "cut": data[:-40], "other": b"no archive"}[damage])
    assert np.array_equal(features.of_folder(folder, net[0], cache=True), first)
    net[1].clear()
    assert np.array_equal(features.of_folder(folder, net[0], cache=True), first) and net[1] == []


def test_a_cache_that_cannot_be_written_is_no_hindrance(tmp_path, net, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "file"))
    assert len(features.of_folder(toy.fill(tmp_path / "in", 5), net[0], cache=True)) == 5


def test_the_cache_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FACEKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "facekit"


def test_the_shared_inception_gives_768_features(shared):
    found = features.load(shared / "weights" / "inception-2015-12-05-768.onnx")
    assert (found.unit, found.dim, found.edge) == ("768", 768, 299)
