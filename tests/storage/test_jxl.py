"""JPEG XL in and out: with a stand-in for the package that reads and writes it."""

import io

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

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
