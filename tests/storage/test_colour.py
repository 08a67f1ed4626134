"""Colours are sRGB after reading, whatever profile, gamma or transparency a file has."""

import numpy as np
import pytest
from PIL import Image

import icc
import toy
from facekit.runtime import console
from facekit.storage import images

EXACT = {"png": {}, "tif": {}, "webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
PROFILES = {"Display P3": icc.P3, "Adobe RGB": icc.ADOBE, "red and green swapped": icc.SWAPPED}


@pytest.fixture
def warned(monkeypatch):
    """What was warned of."""
    said: list[str] = []
    monkeypatch.setattr(console, "warn", said.append)
    return said


def differ(image: Image.Image, other: Image.Image) -> int:
    assert image.mode == "RGB" and image.size == other.size
    return int(np.abs(np.asarray(image, int) - np.asarray(other.convert("RGB"), int)).max())


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
@pytest.mark.parametrize("suffix", EXACT)
def test_an_rgb_profile_is_followed(tmp_path, suffix, profile, warned):
    toy.picture().save(tmp_path / f"a.{suffix}", icc_profile=profile, **EXACT[suffix])
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        right = icc.shown(stored.convert("RGB"), profile)
    found = images.read(tmp_path / f"a.{suffix}")
    assert differ(found, right) <= 1 and differ(found, toy.picture()) > 5 and not warned


def test_the_same_picture_in_another_space_is_the_same(tmp_path):
    wide = np.asarray(toy.picture(32), float) / 255 * 120 + 60  # colours that both spaces have
    wide = Image.fromarray(wide.astype(np.uint8))
    wide.save(tmp_path / "wide.png", icc_profile=icc.P3)
    icc.shown(wide, icc.P3).save(tmp_path / "srgb.png")
    assert differ(images.read(tmp_path / "wide.png"), images.read(tmp_path / "srgb.png")) <= 1


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_a_grey_profile_is_followed(tmp_path, suffix):
    grey = toy.picture().convert("L")
    grey.save(tmp_path / f"a.{suffix}", icc_profile=icc.GREY, **EXACT[suffix])
    assert differ(images.read(tmp_path / f"a.{suffix}"), icc.shown(grey, icc.GREY)) <= 3
    assert differ(images.read(tmp_path / f"a.{suffix}"), grey) > 20


def test_16_bits_of_grey_follow_their_profile(tmp_path):
    grey = toy.picture().convert("L")
    deep = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    deep.save(tmp_path / "a.png", icc_profile=icc.GREY)
    assert differ(images.read(tmp_path / "a.png"), icc.shown(grey, icc.GREY)) <= 1


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_a_cmyk_profile_is_followed(tmp_path, suffix, warned):
    toy.picture().convert("CMYK").save(tmp_path / f"a.{suffix}", icc_profile=icc.CMYK, **EXACT[suffix])
    with Image.open(tmp_path / f"a.{suffix}") as stored:
        right, plain = icc.shown(stored, icc.CMYK), stored.convert("RGB")
    found = images.read(tmp_path / f"a.{suffix}")
    assert differ(found, right) <= 1 and differ(found, plain) > 20 and not warned


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_a_palette_and_grey_follow_an_rgb_profile(tmp_path, mode):
    image = toy.picture().quantize(16) if mode == "P" else toy.picture().convert(mode)
    image.save(tmp_path / "a.png", icc_profile=icc.ADOBE)
    assert differ(images.read(tmp_path / "a.png"), icc.shown(image.convert("RGB"), icc.ADOBE)) <= 1


def test_transparent_colours_follow_the_profile_and_show_white(tmp_path):
    layer = toy.picture().convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(layer.size))
    layer.save(tmp_path / "a.png", icc_profile=icc.P3)
    right = icc.shown(toy.picture(), icc.P3).convert("RGBA")
    right.putalpha(layer.getchannel("A"))
    right = Image.alpha_composite(Image.new("RGBA", right.size, "white"), right)
    assert differ(images.read(tmp_path / "a.png"), right) <= 1


BROKEN = {
    "cut": (icc.P3[:200], "RGB"),
    "text": (b"not a profile", "RGB"),
    "for grey": (icc.GREY, "RGB"),
    "for CMYK": (icc.CMYK, "RGB"),
    "for RGB": (icc.P3, "CMYK"),
}


@pytest.mark.parametrize(("profile", "mode"), BROKEN.values(), ids=BROKEN.keys())
def test_a_profile_that_cannot_be_followed_is_left_aside_with_a_warning(tmp_path, profile, mode, warned):
    toy.picture().convert(mode).save(tmp_path / "a.jpg", icc_profile=profile, quality=100, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert differ(images.read(tmp_path / "a.jpg"), stored.convert("RGB")) == 0
    (text,) = warned
    assert "a.jpg" in text and "colour profile" in text


def test_srgb_itself_changes_nothing(tmp_path):
    toy.picture().save(tmp_path / "a.png", icc_profile=icc.rgb(*icc.SRGB))
    assert differ(images.read(tmp_path / "a.png"), toy.picture()) == 0


# PNG's own words: gAMA, cHRM, sRGB


def chunk(kind: bytes, body: bytes) -> bytes:
    import struct
    import zlib

    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(path, **words: tuple[int, ...]):
    """Put chunks of 32-bit numbers behind the header of a PNG."""
    toy.picture().save(path)
    data = path.read_bytes()
    more = (chunk(name.encode(), b"".join(n.to_bytes(4, "big") for n in numbers)) for name, numbers in words.items())
    path.write_bytes(data[:33] + b"".join(more) + data[33:])
    return path


SRGB_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3_PRIMARIES = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 1 / 1.4])
def test_the_gamma_of_a_png_is_followed(tmp_path, gamma):
    found = images.read(with_chunks(tmp_path / "a.png", gAMA=(round(gamma * 1e5),)))
    assert differ(found, icc.shown(toy.picture(), icc.rgb(*icc.SRGB, exponent=1 / gamma))) <= 2


def test_the_primaries_of_a_png_are_followed(tmp_path):
    found = images.read(with_chunks(tmp_path / "a.png", gAMA=(45455,), cHRM=P3_PRIMARIES))
    assert differ(found, icc.shown(toy.picture(), icc.P3)) <= 2


@pytest.mark.parametrize(
    "words",
    [
        {"gAMA": (45455,)},
        {"gAMA": (45455,), "cHRM": SRGB_PRIMARIES},
        {"gAMA": (0,)},
        {"cHRM": (0,) * 8},
        {"cHRM": (31270, 32900) * 4},
    ],
)
def test_what_says_srgb_or_nonsense_changes_nothing(tmp_path, words):
    assert differ(images.read(with_chunks(tmp_path / "a.png", **words)), toy.picture()) == 0


def test_a_profile_counts_more_than_a_gamma(tmp_path):
    toy.picture().save(tmp_path / "a.png", icc_profile=icc.P3)
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"gAMA", (100000).to_bytes(4, "big")) + data[33:])
    assert differ(images.read(tmp_path / "a.png"), icc.shown(toy.picture(), icc.P3)) <= 1
