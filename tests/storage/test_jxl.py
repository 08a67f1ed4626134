"""JPEG XL in and out: with a stand-in for the package that reads and writes it, and with the real one where it is."""

import io

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

import icc
import toy
from facekit.storage import image_files, images

PICTURE = toy.picture(64).crop((0, 0, 64, 32))
ORIENTATION, CAMERA, GPS = 0x0112, 0x010F, 0x8825


def exif(orientation: int = 1) -> bytes:
    """EXIF of a phone, with a place."""
    made = Image.Exif()
    made[ORIENTATION], made[CAMERA] = orientation, "a phone"
    made.get_ifd(GPS)[1] = "N"
    return made.tobytes()


def photo(**more) -> bytes:
    out = io.BytesIO()
    PICTURE.save(out, "JPEG", quality=95, **more)
    return out.getvalue()


def written(image: Image.Image, **more) -> bytes:
    """The file that the real package writes."""
    pytest.importorskip("pillow_jxl")
    out = io.BytesIO()
    image.save(out, "JXL", **more)
    return out.getvalue()


def far(image: Image.Image, other: Image.Image) -> int:
    assert image.mode == "RGB" and image.size == other.size
    return int(np.abs(np.asarray(image, int) - np.asarray(other.convert("RGB"), int)).max())


@pytest.fixture
def encoder(monkeypatch):
    """Notes what an encoder of JPEG XL gets, in place of the real one."""
    seen = []

    def save(image, file, name):
        seen.append((image, image.encoderinfo))

    Image.init()
    monkeypatch.setitem(Image.SAVE, "JXL", save)
    return seen


def test_the_best_quality_is_lossless(encoder):
    for quality in (None, 99, 100):
        image_files.encode(PICTURE, ".jxl", quality)
    given = [options for _, options in encoder]
    assert [options["quality"] for options in given] == [image_files.QUALITY["JXL"], 99, 100]
    assert [options.get("lossless", False) for options in given] == [False, False, True]


def test_an_encoder_sees_only_the_exif_that_is_to_be_kept(encoder):
    read = images.decode(photo(exif=exif()))
    assert read.info["exif"]  # what a photo that faces are pasted into holds
    image_files.encode(read, ".jxl")
    image_files.encode(read, ".jxl", exif=b"Exif\0\0kept")
    (first, plain), (_, kept) = encoder
    assert not first.getexif() and "exif" not in plain and kept["exif"] == b"Exif\0\0kept"
    assert read.getexif()  # the picture itself is as it was


def test_a_jpeg_that_was_packed_is_turned_by_its_exif(tmp_path, monkeypatch):
    def unpack(file, name):
        file.seek(2)
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(file.read()))
        image.format, image.jpeg = "JXL", True  # as pillow_jxl says it
        return image

    Image.init()
    monkeypatch.setitem(Image.OPEN, "JXL", (unpack, lambda head: head[:2] == b"\xff\x0a"))
    monkeypatch.setattr(Image, "ID", [*Image.ID, "JXL"])
    packed = b"\xff\x0a" + photo(exif=exif(6))
    upright = images.decode(photo(exif=exif(6)))
    assert images.size_of("packed", packed) == upright.size == (32, 64)
    assert far(images.decode(packed), upright) == 0


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_photo_that_the_package_packs_is_upright_and_keeps_its_colours(tmp_path, orientation):
    path = tmp_path / "me.jpg"
    path.write_bytes(photo(exif=exif(orientation), icc_profile=icc.P3))
    with Image.open(path) as image:
        packed = written(image)  # the JPEG itself, made smaller
    (tmp_path / "packed.jxl").write_bytes(packed)
    assert far(images.read(tmp_path / "packed.jxl"), images.read(path)) <= 2
    assert images.size_of(tmp_path / "packed.jxl") == images.size_of(path)
    kept = Image.Exif()
    kept.load(image_files.read_exif(tmp_path / "packed.jxl"))
    assert kept[CAMERA] == "a phone" and ORIENTATION not in kept and GPS not in kept


def test_the_package_reads_transparency_and_16_bits(tmp_path):
    layer = PICTURE.copy()
    layer.putalpha(Image.linear_gradient("L").resize(PICTURE.size))
    assert far(images.decode(written(layer, lossless=True)), images.to_rgb(layer)) == 0
    (tmp_path / "layer.jxl").write_bytes(written(layer, lossless=True))
    alpha = image_files.read_alpha(tmp_path / "layer.jxl")
    assert alpha is not None and np.array_equal(np.asarray(alpha), np.asarray(layer.getchannel("A")))
    light = np.arange(32 * 64, dtype=np.uint16).reshape(32, 64) * 32
    read = np.asarray(images.decode(written(Image.fromarray(light), lossless=True)))[..., 0]
    value = light / 65535  # the package declares grey of 16 bits as linear light
    bright = value > 0.25  # linear light of 8 bits has few dark levels
    assert np.abs(read - (1.055 * value ** (1 / 2.4) - 0.055) * 255)[bright].max() < 2


def test_the_package_writes_any_quality_and_the_exif_that_is_kept(tmp_path):
    pytest.importorskip("pillow_jxl")
    image_files.check(".jxl", 50)
    made = {quality: image_files.encode(toy.picture(256), ".jxl", quality) for quality in (0, 50, 92, 100)}
    sizes = [len(data) for data in made.values()]
    assert sizes == sorted(sizes) and len(set(sizes)) == 4
    assert far(images.decode(made[100]), toy.picture(256)) == 0
    assert len(image_files.encode(toy.picture(256), ".jxl")) == len(made[92])
    with Image.open(io.BytesIO(image_files.encode(PICTURE, ".jxl", exif=exif()))) as image:
        assert image.format == "JXL" and image.getexif()[CAMERA] == "a phone"
    read = images.decode(photo(exif=exif()))
    assert b"a phone" not in image_files.encode(read, ".jxl")
