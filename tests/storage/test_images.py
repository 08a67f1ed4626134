"""Images in and out: every kind of file that people have, and what is refused."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

import toy
from facekit.errors import InputError, OutputError
from facekit.storage import images


def save(path, image, **options):
    image.save(path, **options)
    return path


def close(image: Image.Image, other: Image.Image, most: int = 0) -> bool:
    """Whether two RGB images differ by at most so many levels."""
    assert image.mode == "RGB" and image.size == other.size
    return int(np.abs(np.asarray(image, np.int16) - np.asarray(other.convert("RGB"), np.int16)).max()) <= most


GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


# what can be read


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_lossless_formats_are_read_exactly(tmp_path, suffix):
    assert close(images.read(save(tmp_path / f"a.{suffix}", toy.picture())), toy.picture())


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_are_read(tmp_path, suffix):
    assert close(images.read(save(tmp_path / f"a.{suffix}", toy.picture(), quality=95)), toy.picture(), 40)


@pytest.mark.parametrize(
    "deep",
    [
        GREY.astype(np.uint16) * 257,
        GREY.astype(np.int32) * 257,
        GREY.astype(np.float32) / 255,
        GREY.astype(np.float32),
    ],
    ids=["16 bit", "32 bit", "float to 1", "float to 255"],
)
def test_deep_grey_becomes_8_bits(tmp_path, deep):
    path = save(tmp_path / "a.tif", Image.fromarray(deep))
    assert close(images.read(path), Image.fromarray(GREY))


def test_a_16_bit_png_becomes_8_bits_even_if_it_is_dark(tmp_path):
    assert close(
        images.read(save(tmp_path / "a.png", Image.fromarray(GREY.astype(np.uint16) * 257))), Image.fromarray(GREY)
    )
    dark = images.read(save(tmp_path / "b.png", Image.fromarray(GREY.astype(np.uint16))))
    assert np.asarray(dark).max() == 1


def test_a_float_image_with_holes_is_read(tmp_path):
    deep = GREY.astype(np.float32) / 255
    deep[0, :2] = np.nan, np.inf
    assert close(
        images.read(save(tmp_path / "a.tif", Image.fromarray(deep))).crop((0, 1, 16, 16)), Image.fromarray(GREY[1:])
    )


def test_black_and_white_and_grey_are_read(tmp_path):
    bits = Image.fromarray(GREY > 127)
    assert close(images.read(save(tmp_path / "a.png", bits)), bits.convert("RGB"))
    assert close(images.read(save(tmp_path / "b.png", Image.fromarray(GREY))), Image.fromarray(GREY))


def test_a_palette_is_looked_up(tmp_path):
    few = toy.picture().quantize(16)
    assert close(images.read(save(tmp_path / "a.png", few)), few.convert("RGB"))


def test_cmyk_becomes_the_colours_it_stands_for(tmp_path):
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert close(images.read(save(tmp_path / "a.jpg", red, quality=100)), Image.new("RGB", (8, 8), "red"), 4)


def halves(mode: str) -> Image.Image:
    """Black, its right half transparent."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_white(tmp_path, mode):
    path = tmp_path / "a.png"
    if mode == "P":
        palette = Image.fromarray(np.repeat([[0] * 4 + [1] * 4], 8, 0).astype(np.uint8), "L").convert("P")
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.save(path, transparency=1)
    else:
        halves(mode).save(path)
    pixels = np.asarray(images.read(path))
    assert (pixels[:, :4] == 0).all() and (pixels[:, 4:] == 255).all()


def test_half_transparent_is_half_white(tmp_path):
    path = save(tmp_path / "a.webp", Image.new("RGBA", (8, 8), (0, 0, 0, 128)), lossless=True)
    assert close(images.read(path), Image.new("RGB", (8, 8), (127, 127, 127)))


TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_an_image_is_turned_as_its_exif_says(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = toy.picture(24).crop((0, 0, 24, 16))
    exact = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    path = save(tmp_path / f"a.{suffix}", stored, exif=exif, **exact)
    turned = Image.fromarray(np.ascontiguousarray(TURNS[orientation](np.asarray(stored))))
    assert images.size_of(path) == images.read_raw(path).size == turned.size
    assert close(images.read(path), turned, 4)


ODD_TAGS = {  # TIFF tag, type, count, value; a value of more than 4 bytes stands behind the tags
    "negative rational": (0x011A, 10, 1, struct.pack("<ii", -5, 3)),
    "divided by zero": (0x011A, 5, 1, struct.pack("<II", 1, 0)),
    "not a number": (0x011A, 12, 1, struct.pack("<d", float("nan"))),
    "text for a number": (0x011A, 2, 4, b"abc\0"),
    "text for a unit": (0x0128, 2, 2, b"2\0\0\0"),
    "negative bits": (0x0102, 8, 1, struct.pack("<hh", -8, 0)),
    "number for text": (0x0131, 3, 1, b"\1\0\0\0"),
    "an unknown type": (0x0131, 99, 1, b"\0\0\0\0"),
    "an offset outside": (0x0131, 2, 4000, struct.pack("<I", 60_000)),
    "a sub-folder outside": (0x8769, 4, 1, struct.pack("<I", 60_000)),
}


@pytest.mark.parametrize("tag", ODD_TAGS.values(), ids=ODD_TAGS.keys())
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_an_odd_tag_beside_the_turn_does_not_matter(tmp_path, suffix, tag):
    number, kind, count, value = tag
    inline = value if len(value) == 4 else struct.pack("<I", 38)
    entries = sorted([struct.pack("<HHII", 0x0112, 3, 1, 6), struct.pack("<HHI", number, kind, count) + inline])
    entries.sort(key=lambda entry: entry[:2][::-1])
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + b"".join(entries) + bytes(4) + value
    stored = toy.picture(24).crop((0, 0, 24, 16))
    stored.save(tmp_path / f"a.{suffix}", exif=exif, quality=100)
    assert images.size_of(tmp_path / f"a.{suffix}") == (16, 24)
    assert images.read(tmp_path / f"a.{suffix}").size == (16, 24)


@pytest.mark.parametrize("tag", ["negative rational", "not a number", "text for a number", "an offset outside"])
def test_an_odd_tag_in_a_turned_tiff_does_not_matter(tmp_path, tag):
    number, kind, count, value = ODD_TAGS[tag]
    fields = [(256, 4, 1, 3), (257, 4, 1, 2), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (274, 3, 1, 6)]
    fields += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 2), (279, 4, 1, 6)]
    entries = {number_: struct.pack("<HHII", number_, *rest) for number_, *rest in fields}
    inline = value if len(value) == 4 else struct.pack("<I", 14)
    entries[number] = struct.pack("<HHI", number, kind, count) + inline
    pixels = bytes(range(0, 60, 10)) + value.ljust(8, b"\0")
    ifd = struct.pack("<H", len(entries)) + b"".join(entries[key] for key in sorted(entries)) + bytes(4)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + ifd)
    assert images.size_of(tmp_path / "a.tif") == (2, 3)
    assert np.asarray(images.read(tmp_path / "a.tif"))[..., 0].tolist() == [[30, 0], [40, 10], [50, 20]]


@pytest.mark.parametrize("value", [(6, 6), 0, 9])
def test_an_orientation_that_is_none_is_upright(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    path = save(tmp_path / "a.png", toy.picture(24).crop((0, 0, 24, 16)), exif=exif)
    assert images.size_of(path) == images.read(path).size


def test_one_pixel_is_an_image(tmp_path):
    assert close(
        images.read(save(tmp_path / "a.png", Image.new("RGB", (1, 1), "red"))), Image.new("RGB", (1, 1), "red")
    )


def test_the_content_decides_not_the_name(tmp_path):
    toy.picture().save(tmp_path / "a.jpg", "PNG")
    assert close(images.read(tmp_path / "a.jpg"), toy.picture())


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read_whatever_its_name(tmp_path):
    toy.picture().save(tmp_path / "a.jpg", "AVIF", quality=100, subsampling="4:4:4")
    assert close(images.read(tmp_path / "a.jpg"), toy.picture(), 12)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "avif"])
def test_an_image_in_memory_is_read_as_its_file_is(tmp_path, suffix):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    path = save(tmp_path / f"a.{suffix}", toy.picture())
    assert close(images.decode(path.read_bytes()), images.read(path))


def test_an_image_in_memory_is_named_and_has_a_limit(tmp_path):
    data = save(tmp_path / "a.png", toy.picture(20)).read_bytes()
    assert images.decode(data, most=400).size == (20, 20)
    for wrong, most, says in (
        (data, 399, "20 x 20"),
        (data[:60], None, "decoded"),
        (b"", None, "empty"),
        (b"x", None, "not"),
    ):
        with pytest.raises(InputError, match=says) as error:
            images.decode(wrong, "your photo", most)
        assert error.value.message.startswith("your photo")


def test_avif_that_nothing_reads_is_named(tmp_path, monkeypatch):
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x1cftypavif" + b"\0" * 40)
    with pytest.raises(InputError, match="is AVIF") as caught:
        images.read(tmp_path / "a.jpg")
    assert "convert it" in caught.value.hint


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_the_first_of_several_pictures_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    more = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **more)
    assert close(images.read(path), frames[0])


def test_a_jpeg_of_several_pictures_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert close(images.read(tmp_path / "a.jpg"), frames[0], 4)


# what cannot


def encoded(kind: str = "PNG", size: int = 64, **options) -> bytes:
    out = io.BytesIO()
    toy.picture(size).save(out, kind, **options)
    return out.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that claims to be enormous."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\x00")
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 40
BAD = {
    "empty": (b"", "is empty"),
    "cut png": (encoded()[:-60], "cannot be decoded"),
    "cut jpeg": (encoded("JPEG")[:-60], "cannot be decoded"),
    "cut webp": (encoded("WEBP")[:-60], "cannot be decoded|not an image"),
    "cut gif": (encoded("GIF")[:300], "cannot be decoded|not an image"),
    "cut tiff": (encoded("TIFF")[:-3000], "cannot be decoded|not an image"),
    "header only": (encoded()[:8], "not an image|cannot be decoded"),
    "text": (b"hello, I am text", "not an image"),
    "svg": (SVG, "not an image"),
    "heic": (HEIC, "is HEIC"),
    "large": (bomb(20_000, 15_000), "more than 178,956,970 px, too many"),
    "enormous": (bomb(60_000, 60_000), "more than 178,956,970 px, too many"),
    "long": (bomb(150_000_000, 1), "150000000 x 1 px, too many"),
    "high": (bomb(1, 150_000_000), "1 x 150000000 px, too many"),
    "web page": (b"\n<!DOCTYPE html><html>", "not an image: it is a web page"),
    "video": (b"\0\0\0\x20ftypisom" + b"\0" * 40, "not an image: it is an MP4"),
    "zeros": (b"\x00" * 1000, "not an image"),
}


@pytest.mark.parametrize(("data", "says"), BAD.values(), ids=BAD.keys())
def test_a_file_that_is_not_a_complete_image_is_refused_by_name(tmp_path, data, says):
    path = tmp_path / "odd name.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=says) as caught:
        images.read(path)
    assert str(path) in caught.value.message and caught.value.hint and caught.value.code == 3


@pytest.mark.parametrize("edges", [(20_000, 15_000), (60_000, 60_000), (150_000_000, 1)])
def test_an_enormous_image_is_refused_before_it_takes_memory(tmp_path, monkeypatch, edges):
    monkeypatch.setattr(Image.core, "new", lambda *a: pytest.fail("allocated"))
    monkeypatch.setattr(Image.core, "fill", lambda *a: pytest.fail("allocated"))
    (tmp_path / "a.png").write_bytes(bomb(*edges))
    for reads in (images.read, images.size_of):
        with pytest.raises(InputError):
            reads(tmp_path / "a.png")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_what_is_not_a_file_is_refused_by_name(tmp_path, make):
    make(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png"):
        images.read(tmp_path / "a.png")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_damage_of_any_kind_is_an_image_or_an_input_error(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded(kind, 16, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
    path = tmp_path / "a.png"
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 200), rng.integers(1, 6)):
            data[at] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, 2 * len(data))])
        with contextlib.suppress(InputError):
            assert images.read(path).mode == "RGB"


def test_pillows_limit_for_others_is_left_alone():
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_the_size_is_that_of_the_header(tmp_path):
    toy.picture().crop((0, 0, 16, 9)).save(tmp_path / "a.png")
    assert images.size_of(tmp_path / "a.png") == (16, 9)


# geometry, encoding, tensors


@pytest.mark.parametrize("shape", [(16, 16), (1, 1), (3, 40), (40, 3)])
def test_resize_gives_a_square_and_square_the_middle(shape):
    assert images.resize(Image.new("RGB", shape), 8).size == (8, 8)
    assert images.square(Image.new("RGB", shape)).size == (min(shape),) * 2


def test_square_keeps_the_middle_and_resize_leaves_what_fits():
    wide = Image.new("RGB", (30, 10), "black")
    wide.paste("white", (10, 0, 20, 10))
    assert close(images.square(wide), Image.new("RGB", (10, 10), "white"))
    photo = toy.picture(16)
    assert images.resize(photo, 16) is photo and images.square(photo) is photo


def test_downsizing_is_antialiased():
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (64, 32))).convert("RGB")
    assert close(images.resize(stripes, 8), Image.new("RGB", (8, 8), (128, 128, 128)), 8)


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "PNG"), (".JPG", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP")])
def test_the_name_decides_how_an_image_is_encoded(tmp_path, suffix, kind):
    images.save(toy.picture(), tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.format == kind
    assert close(images.read(tmp_path / f"a{suffix}"), toy.picture(), 0 if kind == "PNG" else 40)


def test_an_image_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        images.save(toy.picture(), tmp_path / "file/a.png")


def test_image_to_tensor_and_back_is_exact():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    x = images.to_tensor(image)
    assert x.shape == (3, 16, 24) and x.dtype == torch.float32
    assert close(images.to_image(x), image)


def test_black_is_minus_one_and_white_is_one():
    pair = np.stack([np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)])
    x = images.from_bytes(pair)
    assert x.shape == (2, 3, 2, 2) and (x[0] == -1).all() and (x[1] == 1).all()


@pytest.mark.parametrize(
    ("value", "level"), [(-7, 0), (7, 255), (0, 128), (float("nan"), 0), (float("inf"), 255), (-float("inf"), 0)]
)
def test_values_outside_are_cut_and_nan_is_black(value, level):
    assert close(images.to_image(torch.full((3, 2, 2), float(value))), Image.new("RGB", (2, 2), (level,) * 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_precision_becomes_an_image(dtype):
    assert close(
        images.to_image(torch.ones(3, 2, 2, dtype=dtype, requires_grad=True)), Image.new("RGB", (2, 2), "white")
    )


@pytest.mark.parametrize(("module", "kind"), [("pillow_heif", "HEIF"), ("pillow_jxl", "JXL")])
def test_what_another_package_reads_is_read_under_any_name_and_turned_once(tmp_path, module, kind):
    package = pytest.importorskip(module)
    if hasattr(package, "register_heif_opener"):
        package.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = toy.picture(64).crop((0, 0, 64, 32))
    for name, more in (("plain.jpg", {}), ("turned.png", {"exif": exif.tobytes()})):
        with open(tmp_path / name, "wb") as file:
            picture.save(file, kind, quality=95, **more)
        with Image.open(tmp_path / name) as image:
            decoded = np.asarray(image.convert("RGB"))
        assert images.size_of(tmp_path / name) == decoded.shape[1::-1]
        assert np.array_equal(np.asarray(images.read(tmp_path / name)), decoded)


def test_a_photo_of_a_phone_is_read_and_turned_once():
    pytest.importorskip("pi_heif")
    file = Path(__file__).parents[1] / "fixtures/turned.heic"  # 64 x 32 px, red and blue, to be turned by 90 degrees
    made = np.asarray(images.read(file), int)
    assert images.size_of(file) == (32, 64) and made.shape == (64, 32, 3)
    assert np.abs(made[:24] - (255, 0, 0)).max() < 30 and np.abs(made[40:] - (0, 0, 255)).max() < 30


@pytest.mark.parametrize(("kind", "package"), [("AVIF", "pillow-avif-plugin"), ("JPEG XL", "'facekit-anime[jxl]'")])
def test_the_package_that_reads_a_file_is_named(tmp_path, monkeypatch, kind, package):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x20ftypavif" if kind == "AVIF" else b"\xff\x0a" + bytes(60))
    monkeypatch.setitem(images.PLUGINS, kind, ("NONE", ("no_such_module",), images.PLUGINS[kind][2]))
    with pytest.raises(InputError, match=f"is {kind}, which") as caught:
        images.read(tmp_path / "a.jpg")
    assert caught.value.hint.endswith(f"pip install {package}")
