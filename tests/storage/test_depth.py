"""More than 8 bits a channel: the declared maximum is white."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from facekit.storage import images


def levels(path) -> list[int]:
    pixels = np.asarray(images.read(path))
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


@pytest.mark.parametrize("maximum", [255, 300, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_the_maximum_of_a_pgm_is_white(tmp_path, maximum, plain):
    values = [0, maximum // 3, maximum // 1000, maximum]
    if plain:
        data = f"P2 4 1 {maximum}\n{' '.join(map(str, values))}\n".encode()
    else:
        data = b"P5 4 1 %d\n" % maximum + np.array(values, ">u2" if maximum > 255 else "u1").tobytes()
    (tmp_path / "a.pgm").write_bytes(data)
    assert levels(tmp_path / "a.pgm") == pytest.approx([255 * v / maximum for v in values], abs=0.51)


def test_a_dark_pgm_of_16_bits_stays_dark(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([0, 200], ">u2").tobytes())
    assert levels(tmp_path / "a.pgm") == [0, 1]


def tiff(path, values, bits: int, sample_format: int = 1, **tags: int):
    """Write one row of grey values as a TIFF of `bits` bits; `t281=4095` adds a tag."""
    if bits in (16, 32):
        body = np.array(values, {1: "<u", 2: "<i", 3: "<f"}[sample_format] + str(bits // 8)).tobytes()
    else:
        row = "".join(f"{value:0{bits}b}" for value in values)
        body = int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big")
    fields = {256: len(values), 257: 1, 258: bits, 259: 1, 262: 1, 277: 1, 278: 1, 279: len(body), 339: sample_format}
    fields |= {int(name[1:]): value for name, value in tags.items()}
    fields[273] = 8 + 2 + 12 * (len(fields) + 1) + 4
    ifd = b"".join(struct.pack("<HHII", tag, 4, 1, fields[tag]) for tag in sorted(fields))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(fields)) + ifd + bytes(4) + body)
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16, 32])
def test_the_largest_number_of_a_tiff_is_white(tmp_path, bits):
    top = 2**bits - 1
    assert levels(tiff(tmp_path / "a.tif", [0, top // 2, top, top // 4], bits)) == pytest.approx(
        [0, 127.5, 255, 63.75], abs=0.76
    )


def test_a_signed_tiff_has_the_largest_signed_number_as_white(tmp_path):
    assert levels(tiff(tmp_path / "a.tif", [-5, 2**30, 2**31 - 1], 32, 2)) == [0, 128, 255]


@pytest.mark.parametrize("bits", [16, 32])
def test_a_tiff_that_declares_its_maximum_is_believed(tmp_path, bits):
    assert levels(tiff(tmp_path / "a.tif", [0, 2048, 4095], bits, t281=4095)) == [0, 128, 255]


def test_a_dark_tiff_of_16_bits_stays_dark(tmp_path):
    assert levels(tiff(tmp_path / "a.tif", [0, 200, 257], 16)) == [0, 1, 1]


def test_16_bits_stored_in_32_are_16_bits(tmp_path):
    assert levels(tiff(tmp_path / "a.tif", [0, 32768, 65535], 32)) == [0, 128, 255]


def png(path, depth: int, colour: int, pixels: bytes, width: int, transparent: bytes):
    """Write one row as a PNG with a transparent colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)) + chunk(b"tRNS", transparent)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" + pixels)) + chunk(b"IEND", b""))
    return path


def test_a_transparent_grey_of_16_bits_is_that_value_alone(tmp_path):
    values = struct.pack(">HHH", 1000, 1001, 40000)
    assert levels(png(tmp_path / "a.png", 16, 0, values, 3, values[:2])) == [255, 4, 156]


def test_a_transparent_colour_of_16_bits_is_that_colour_alone(tmp_path):
    values = struct.pack(">HHH", 1000, 2000, 3000) + struct.pack(">HHH", 1000, 2000, 3001)
    found = images.read(png(tmp_path / "a.png", 16, 2, values, 2, values[:6]))
    assert found.getpixel((0, 0)) == (255, 255, 255) and found.getpixel((1, 0)) == (3, 7, 11)


@pytest.mark.parametrize(("depth", "row"), [(1, b"\x40"), (2, b"\x30"), (4, b"\x0f"), (8, b"\x00\xff")])
def test_a_transparent_grey_of_few_bits_is_that_value_alone(tmp_path, depth, row):
    """A black pixel that is opaque, then one of the largest value, which is transparent; then the other way round."""
    top = struct.pack(">H", 2**depth - 1)
    assert levels(png(tmp_path / "a.png", depth, 0, row, 2, top)) == [0, 255]
    assert levels(png(tmp_path / "b.png", depth, 0, row, 2, b"\0\0")) == [255, 255]


def test_raw_values_are_kept(tmp_path):
    values = np.array([[0, 300, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(images.read_raw(tmp_path / "a.png")), values)
