"""Conversion to sRGB: by ICC profile or by a PNG's gamma; transparent pixels become white."""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from ..runtime import console
from . import depth

BACKGROUND = "white"  # what shows through transparent pixels, everywhere in facekit
SRGB_GAMMA, SRGB_CHROMATICITY = 1 / 2.2, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # white, red, green, blue
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's colour space -> the mode of its pixels
D50 = (0.9642, 1.0, 0.8249)  # XYZ of the white of profiles
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def to_srgb(image: Image.Image, name: str = "the image") -> Image.Image:
    """Return an image of any mode as 8-bit RGB in sRGB; warnings call the image `name`.

    The ICC profile is applied with littleCMS (perceptual intent); a PNG without one is converted by its gamma and
    primaries. A profile that is broken or is for another kind of image is ignored with a warning, and the values
    count as sRGB. Transparent pixels become white.
    """
    profile = image.info.get("icc_profile") or _png_profile(image.info)
    image = depth.to_8_bits(image) if depth.is_deep(image) else image
    if image.mode == "LAB":  # it is absolute, and its band "a" is no transparency
        return image.convert("RGB")
    if "transparency" not in image.info and "A" not in image.getbands() and "a" not in image.getbands():
        return _converted(image, profile, name)
    layer = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
    colours = _converted(layer.convert("L" if layer.mode == "LA" else "RGB"), profile, name)
    colours.putalpha(layer.getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), colours).convert("RGB")


def _converted(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Convert an opaque image to sRGB by a profile."""
    if not profile:
        return image.convert("RGB")
    try:
        mode, transform = _transform(profile)
        if image.mode in ("1", "L", "P") and mode == "RGB":
            image = image.convert("RGB")
        if (image.mode, mode) in (("1", "L"), ("YCbCr", "RGB")):
            image = image.convert(mode)
        if image.mode != mode:
            raise ValueError(f"it is for {mode}, the image is {image.mode}")
        out = ImageCms.applyTransform(image, transform) if transform else image
        assert out is not None
        return out.convert("RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, ImportError) as error:
        console.warn(f"{name}: its colour profile cannot be used ({error}); its colours are read as sRGB")
        return image.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode of a profile's pixels and the transform to sRGB, which is None if it would change nothing."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space not in SPACES:
        raise ValueError(f"its colour space is {space}")
    mode = SPACES[space]
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return mode, transform
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * len(mode)), -1).reshape(1, -1, len(mode))
    probe = Image.fromarray(grid if mode == "RGB" else grid[..., 0])
    seen = ImageCms.applyTransform(probe, transform)
    assert seen is not None
    change = np.asarray(seen, int) - np.asarray(probe.convert("RGB"), int)
    return mode, transform if np.abs(change).max() > 1 else None


def _png_profile(info: dict[Any, Any]) -> bytes | None:
    """Return an ICC profile of a PNG's gAMA and cHRM chunks; None if they are absent or within 5 % of sRGB."""
    gamma, primaries = info.get("gamma"), info.get("chromaticity") or SRGB_CHROMATICITY
    if "srgb" in info or not (gamma or info.get("chromaticity")):
        return None
    gamma = gamma or SRGB_GAMMA
    same = abs(gamma / SRGB_GAMMA - 1) < 0.05
    if same and np.allclose(primaries, SRGB_CHROMATICITY, atol=0.005):
        return None
    try:
        return _profile(None if same else 1 / gamma, tuple(primaries))
    except (np.linalg.LinAlgError, ZeroDivisionError, ValueError, struct.error):  # impossible primaries
        return None


@lru_cache(maxsize=16)
def _profile(exponent: float | None, chromaticity: tuple[float, ...]) -> bytes:
    """Return an ICC profile of RGB primaries and a power curve; without `exponent` the curve is sRGB's.

    `chromaticity` holds x and y of white, red, green and blue. The layout follows ICC.1:2022; white is adapted by the
    Bradford transform (annex E).
    """
    white, *primaries = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(*[iter(chromaticity)] * 2, strict=True))
    matrix = np.stack(primaries, 1)
    matrix = matrix * np.linalg.solve(matrix, white)
    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
    red, green, blue = (adapt @ matrix).T
    curve = struct.pack(">4sIHH", b"para", 0, 0 if exponent else 3, 0)
    curve += b"".join(map(_fixed, [exponent] if exponent else [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045]))
    text = b"PNG\0"
    tags = {
        b"desc": struct.pack(">4sII", b"desc", 0, len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + text,
        b"wtpt": _xyz(D50),
        b"rXYZ": _xyz(red),
        b"gXYZ": _xyz(green),
        b"bXYZ": _xyz(blue),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI12s", start + len(body), b"lcms", 0x02400000, b"mntrRGB XYZ ")
    head += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _xyz(D50)[8:]
    return head.ljust(128, b"\0") + table + body


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: Any) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, values))
