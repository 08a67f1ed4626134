"""Damage beside the pixels is no damage; damage in the pixels is."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import icc
import toy
from facekit.errors import InputError
from facekit.storage import images

WHOLE = toy.picture()


def read(tmp_path, data: bytes) -> Image.Image:
    (tmp_path / "a").write_bytes(data)
    assert images.size_of(tmp_path / "a") in (WHOLE.size, (64, 64))
    return images.read(tmp_path / "a")


def same(image: Image.Image, other: Image.Image) -> bool:
    return image.size == other.size and image.tobytes() == other.tobytes()


def encoded(kind: str, image: Image.Image = WHOLE, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


# PNG


def chunk(kind: bytes, body: bytes, crc: int | None = None, length: int | None = None) -> bytes:
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body) if length is None else length) + kind + body + struct.pack(">I", crc)


BIG = b"x" * 3_000_000
PACKED = zlib.compress(BIG[:900_000])
EXTRA = {
    "compressed text of 3 MB": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(BIG)),
    "XMP of 3 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG)),
    "many texts": b"".join(chunk(b"zTXt", b"k%d\0\0" % i + PACKED) for i in range(80)),
    "a wrong sum": chunk(b"tEXt", b"a\0b", crc=0),
    "a wrong sum of a time": chunk(b"tIME", b"1234567", crc=0),
    "a cut density": chunk(b"pHYs", b"12"),
    "an unknown chunk": chunk(b"prVt", b"\xff" * 9, crc=1),
    "a cut profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(icc.P3)[:50], crc=3),
    "broken EXIF": chunk(b"eXIf", b"nonsense"),
    "a cut gamma": chunk(b"gAMA", b"1"),
}


@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA.keys())
@pytest.mark.parametrize("end", [False, True])
def test_a_png_is_read_whatever_stands_beside_its_pixels(tmp_path, extra, end):
    data = encoded("PNG")
    data = data[:-12] + extra + data[-12:] if end else data[:33] + extra + data[33:]
    assert same(read(tmp_path, data), WHOLE)


@pytest.mark.parametrize("cut", [4, 8, 12, 20, 1000])
def test_a_png_that_ends_behind_its_pixels_is_read(tmp_path, cut):
    data = encoded("PNG")[:-12] + chunk(b"tEXt", b"note\0" + b"y" * 985) + encoded("PNG")[-12:]
    assert same(read(tmp_path, data[:-cut]), WHOLE)


def test_a_damaged_text_costs_neither_profile_nor_turn(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded("PNG", WHOLE.crop((0, 0, 64, 32)), icc_profile=icc.P3, exif=exif)
    (tmp_path / "a.png").write_bytes(data[:33] + EXTRA["a wrong sum"] + data[33:])
    right = icc.shown(WHOLE.crop((0, 0, 64, 32)), icc.P3).transpose(Image.Transpose.ROTATE_270)
    assert images.size_of(tmp_path / "a.png") == right.size
    found = np.asarray(images.read(tmp_path / "a.png"), int)
    assert np.abs(found - np.asarray(right)).max() <= 1


def test_large_texts_written_by_pillow_are_read(tmp_path):
    words = PngImagePlugin.PngInfo()
    words.add_itxt("XML:com.adobe.xmp", BIG.decode(), zip=True)
    assert same(read(tmp_path, encoded("PNG", pnginfo=words)), WHOLE)


def test_a_png_whose_pixels_have_a_wrong_checksum_is_read(tmp_path):
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(WHOLE)))
    head = encoded("PNG")[:33]
    for wrong in (packed[:-4] + b"\1\2\3\4", packed[:-2] + b"zz"):
        assert same(read(tmp_path, head + chunk(b"IDAT", wrong) + chunk(b"IEND", b"")), WHOLE)
    with pytest.raises(InputError):
        read(tmp_path, head + chunk(b"IDAT", packed[: len(packed) // 2]) + chunk(b"IEND", b""))


# JPEG


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


SEGMENTS = {
    "a short JFIF": (0xE0, b"JFIF\0"),
    "a profile without its number": (0xE2, b"ICC_PROFILE\0"),
    "a part of a profile": (0xE2, b"ICC_PROFILE\0\2\3abc"),
    "a cut list of pictures": (0xE2, b"MPF\0II*\0"),
    "cut resources of Photoshop": (0xED, b"Photoshop 3.0\x008BIM\4\4"),
    "a short transform": (0xEE, b"Adobe"),
    "a comment of any bytes": (0xFE, bytes(range(256))),
}


@pytest.mark.parametrize("extra", SEGMENTS.values(), ids=SEGMENTS.keys())
def test_a_jpeg_is_read_whatever_stands_before_its_pixels(tmp_path, extra):
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded("JPEG", exif=exif, quality=95)
    whole = read(tmp_path, data)
    assert same(read(tmp_path, data[:2] + segment(*extra) + data[2:]), whole)
    assert same(read(tmp_path, data[:2] + segment(*extra) + data[2:-2]), whole)


KINDS = {"baseline": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 4}}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_without_its_end_marker_is_read(tmp_path, options, cut):
    data = encoded("JPEG", **options)
    assert same(read(tmp_path, data[:-cut]), read(tmp_path, data))


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("cut", [8, 20, 60, 200])
def test_a_jpeg_that_lacks_pixels_is_refused(tmp_path, options, cut):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", **options)[:-cut])
    with pytest.raises(InputError, match="cannot be decoded"):
        images.read(tmp_path / "a.jpg")


# WebP


@pytest.mark.parametrize("cut", [2, 10, 40])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_webp_with_a_cut_end_is_read(tmp_path, cut, alpha):
    image = WHOLE.convert("RGBA" if alpha else "RGB")
    data = encoded("WEBP", image, lossless=True, xmp=b"<x>" + b"y" * 100 + b"</x>")
    assert same(read(tmp_path, data[:-cut]), WHOLE)


def test_a_webp_that_lacks_pixels_is_refused(tmp_path):
    (tmp_path / "a.webp").write_bytes(encoded("WEBP", lossless=True)[:-60])
    with pytest.raises(InputError):
        images.read(tmp_path / "a.webp")
