"""Feature extractors from files and from clean-fid, the one resize before them, and the cache."""

import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import toy
import toy_scores
from facekit.errors import InputError, MissingError
from facekit.scoring import extractors, features, image_set
from facekit.storage import remembered
from facekit.storage.cache import cache_folder
from facekit.storage.folder import Source


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


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
    found = extractors.load(toy_scores.write_onnx(tmp_path / "toy.onnx"))
    seen = []

    def run(x):
        seen.append(len(x))
        return found.run(x)

    counted = extractors.Extractor(**{**vars(found), "run": run, "batch": 4})
    return counted, seen


def test_features_come_in_the_order_of_names(tmp_path, net):
    folder = toy.fill(tmp_path / "in", 10)
    found = features.extract(folder, net[0])
    assert found.shape == (10, 48) and found.dtype == np.float32 and sorted(net[1]) == [2, 4, 4]
    for i, path in enumerate(sorted(folder.glob("*.png"))):
        assert found[i] == pytest.approx(net[0].run(features.pixels(Image.open(path), 32)[None])[0], abs=1e-6)
    assert np.array_equal(features.extract(folder, net[0], limit=3), found[:3])


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
    slow = extractors.Extractor(**{**vars(extractor), "run": run})
    found = features.extract(folder, slow, workers=workers)
    assert found == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(found, features.extract(folder, extractor, workers=3))


def test_torch_has_its_threads_again_after_the_workers(tmp_path):
    folder = toy.fill(tmp_path / "in", 9)
    extractor = extractors.load(
        toy_scores.write_script(tmp_path / "net.pt", nn.AdaptiveAvgPool2d(2), nn.Flatten()), edge=20
    )
    seen = []

    def run(x):
        seen.append(torch.get_num_threads())
        return extractor.run(x)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(6)
        features.extract(folder, extractors.Extractor(**{**vars(extractor), "run": run}), workers=2)
        assert torch.get_num_threads() == 6 and seen == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_a_net_that_fails_stops_the_rest(tmp_path, net):
    seen = []

    def run(x):
        seen.append(len(x))
        raise MissingError("no net")

    broken = extractors.Extractor(**{**vars(net[0]), "run": run})
    with pytest.raises(MissingError, match="no net"):
        features.extract(toy.fill(tmp_path / "in", 80), broken, workers=1)
    assert len(seen) < 20


def test_sizes_are_not_mixed_without_resize(tmp_path, net):
    folder = toy.fill(tmp_path / "in", 3)
    toy.picture(24).save(folder / "other.png")
    with pytest.raises(InputError, match="several sizes") as told:
        features.extract(folder, net[0])
    assert "--resize 16" in told.value.hint
    assert len(features.extract(folder, net[0], resize=16)) == 4


def test_images_that_cannot_be_read_are_left_out_and_noted(tmp_path, net):
    folder = toy.fill(tmp_path / "in", 6)
    (folder / "001.png").write_bytes(b"")
    whole = (folder / "003.png").read_bytes()
    (folder / "003.png").write_bytes(whole[: len(whole) // 2])
    images = image_set.ImageSet(folder)
    assert features.extract(images, net[0], cache=True).shape == (4, 48)
    assert set(images.failed) == {"001.png", "003.png"} and len(images) == 4
    assert not list(cache_folder().glob("features/*"))


def test_a_folder_of_broken_images_is_refused(tmp_path, net):
    folder = toy.fill(tmp_path / "in", 2)
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="can be read"):
        features.extract(folder, net[0])


def test_the_digest_is_of_names_and_contents(tmp_path):
    one, two = (image_set.ImageSet(toy.fill(tmp_path / name, 3)).digest for name in ("one", "two"))
    assert one == two
    toy.picture(16, 5).save(tmp_path / "two" / "001.png")
    assert image_set.ImageSet(tmp_path / "two").digest != one
    (tmp_path / "one" / "001.png").rename(tmp_path / "one" / "1.png")
    assert image_set.ImageSet(tmp_path / "one").digest != one


def test_of_a_large_folder_only_files_that_changed_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(remembered, "FEWEST", 4)
    folder = toy.fill(tmp_path / "in", 5)
    toy.picture(24).save(folder / "j.jpg")
    (folder / "x.png").write_bytes(b"no image")
    read, read_bytes = [], Source.read_bytes
    monkeypatch.setattr(Source, "read_bytes", lambda source: read.append(source.name) or read_bytes(source))

    def seen():
        read.clear()
        found = image_set.ImageSet(folder)
        return found.digest, found.sizes, found.formats, found.failed, len(found)

    first = seen()
    assert len(read) == 7 and first[1:3] == ({(16, 16): 5, (24, 24): 1}, {"PNG": 5, "JPEG": 1})
    assert seen() == first and read == ["x.png"]
    toy.picture(16, 7).save(folder / "001.png")
    assert seen()[0] != first[0] and read == ["001.png", "x.png"]
    image_set.ImageSet(folder, reading="clean-fid")
    assert len(read) == 9  # sizes can differ there


def test_kinds_go_by_content(tmp_path):
    folder = toy.fill(tmp_path / "in", 1)
    toy.picture().save(folder / "b.png", "JPEG")
    toy.picture().save(folder / "c.webp")
    toy.picture().save(folder / "d.bmp")
    assert dict(image_set.ImageSet(folder).formats) == {"PNG": 1, "JPEG": 1, "WebP": 1, "BMP": 1}


# how files become pixels


@pytest.fixture
def odd(tmp_path):
    """A folder of pictures that Pillow alone reads otherwise than facekit: turned by EXIF, transparent, 16 bits."""
    folder = toy.fill(tmp_path / "odd", 3)
    exif = Image.Exif()
    exif[0x112] = 3
    toy.picture(16, 7).save(folder / "turned.jpg", exif=exif)
    clear = toy.picture(16, 8).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((16, 16)))
    clear.save(folder / "clear.png")
    Image.fromarray((np.arange(256, dtype=np.uint16) * 200).reshape(16, 16)).save(folder / "deep.png")
    toy.picture(16, 9).convert("P").save(folder / "palette.png")
    return folder


def test_the_reading_of_clean_fid_gives_its_pixels_and_scores(tmp_path, odd):
    from cleanfid import fid
    from cleanfid.inception_torchscript import InceptionV3W

    extractor = extractors.load(toy_scores.write_clean(tmp_path / "w" / "inception-2015-12-05.pt"))
    theirs = fid.get_folder_features(
        str(odd), InceptionV3W(str(tmp_path / "w"), download=False), num_workers=0, device="cpu", verbose=False
    )
    names = sorted(path.name for path in odd.iterdir())
    ours = features.extract(image_set.ImageSet(odd, reading="clean-fid"), extractor)
    assert ours == pytest.approx(theirs, abs=1e-6)
    plain = features.extract(odd, extractor)
    differ = [name for name, x, y in zip(names, plain, ours, strict=True) if not np.allclose(x, y, atol=1e-3)]
    assert differ == ["clear.png", "deep.png", "turned.jpg"]


# cache


def test_features_are_kept_by_content(tmp_path, net, cache):
    first = features.extract(toy.fill(tmp_path / "in", 5), net[0], cache=True)
    net[1].clear()
    again = features.extract(toy.fill(tmp_path / "copy", 5), net[0], cache=True)
    assert net[1] == [] and np.array_equal(first, again)
    assert [path.suffix for path in (cache / "features").iterdir()] == [".npy"]


@pytest.mark.parametrize("change", ["image", "net", "preprocessing", "resize", "limit"])
def test_features_are_computed_again_when_an_input_changes(tmp_path, net, change):
    folder = toy.fill(tmp_path / "in", 5)
    extractor, seen = net
    features.extract(folder, extractor, cache=True)
    seen.clear()
    more = {"resize": {"resize": 8}, "limit": {"limit": 3}}.get(change, {})
    if change == "image":
        toy.picture(16, 77).save(folder / "002.png")
    if change in ("net", "preprocessing"):
        extractor = extractors.Extractor(**{**vars(extractor), "digest" if change == "net" else change: "other"})
    features.extract(folder, extractor, cache=True, **more)
    assert sum(seen) == (3 if change == "limit" else 5)


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "shape", "nan"])
def test_a_damaged_cache_is_made_again(tmp_path, net, cache, damage):
    folder = toy.fill(tmp_path / "in", 5)
    first = features.extract(folder, net[0], cache=True)
    (path,) = (cache / "features").iterdir()
    data = path.read_bytes()
    if damage in ("shape", "nan"):
        np.save(path, first[:2] if damage == "shape" else first * np.nan)
    else:
        path.write_bytes({"empty": b"", "cut": data[:-40], "other": b"no archive"}[damage])
    assert np.array_equal(features.extract(folder, net[0], cache=True), first)
    net[1].clear()
    assert np.array_equal(features.extract(folder, net[0], cache=True), first) and net[1] == []


def test_a_cache_that_cannot_be_written_is_not_an_error(tmp_path, net, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "file"))
    assert len(features.extract(toy.fill(tmp_path / "in", 5), net[0], cache=True)) == 5


def test_the_cache_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FACEKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "facekit"


def test_large_sets_are_kept_in_a_file(tmp_path, net, monkeypatch):
    folder = toy.fill(tmp_path / "in", 10)
    expected = features.extract(folder, net[0], cache=True)
    monkeypatch.setattr(features, "IN_MEMORY", 1000)
    for cache in (False, True):
        found = features.extract(folder, net[0], cache=cache)
        assert isinstance(found, np.memmap) and np.array_equal(found, expected)
