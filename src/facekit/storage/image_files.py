"""Image files that are written: their type and quality, what is transparent, and what EXIF they keep."""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import CardError, MissingError
from . import images

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
FORMATS |= {".avif": "AVIF", ".jxl": "JXL", ".heic": "HEIF"}
PLUGINS = {
    "AVIF": ("pillow_avif", "pillow-avif-plugin"),
    "JXL": ("pillow_jxl", "'facekit-anime[jxl]'"),
    "HEIF": ("pillow_heif.HeifImagePlugin", "pillow-heif"),
}  # what is written -> the module that adds it where Pillow has it not, and its package
QUALITY = {"JPEG": 95, "WEBP": 95, "AVIF": 85, "JXL": 92, "HEIF": 90}
OPAQUE = ("JPEG",)
REVEALING = ("JXL", "HEIF")  # their encoders write the EXIF that Pillow keeps beside the pixels of a photo
GPS, ORIENTATION, THUMBNAIL = 0x8825, 0x0112, 1  # EXIF tags, and the directory of a picture's thumbnail
SIZES = (0xA002, 0xA003)  # tags of the old width and height


@dataclass(frozen=True)
class Kept:
    """What an output keeps of its input beside the colours: transparency, EXIF, and in that the place."""

    alpha: bool = False
    exif: bool = False
    gps: bool = False


def check(suffix: str, quality: int | None = None, kept: Kept | None = None) -> None:
    """Raise CardError where a file of type `suffix` cannot have that quality or transparency, and for a type that
    facekit does not write; MissingError where the type needs a package that is not here."""
    kind = FORMATS.get(suffix.lower())
    if kind is None:
        raise CardError(f"{suffix!r} is no image type that can be written", f"one of {' '.join(FORMATS)}")
    if quality is not None and kind == "PNG":
        raise CardError("PNG is lossless and has no quality", "--format jpg, webp or avif")
    if kept and kept.alpha and kind in OPAQUE:
        raise CardError(f"{kind} has no transparency", "--format png, webp or avif")
    if kept and kept.gps and not kept.exif:
        raise CardError("--keep-gps keeps a part of what --keep-exif keeps", "give both")
    Image.init()
    if kind not in Image.SAVE and kind in PLUGINS:
        with contextlib.suppress(ImportError):
            importlib.import_module(PLUGINS[kind][0])
    if kind not in Image.SAVE:
        raise MissingError(f"this Pillow does not write {kind}", f"pip install {PLUGINS[kind][1]}")


def encode(image: Image.Image, suffix: str, quality: int | None = None, exif: bytes = b"") -> bytes:
    """Return the file of an image: lossless for PNG, else of a `quality` from 0 to 100. Raises as `check` does."""
    if suffix.lower() not in FORMATS and not exif and quality is None:
        return images.encode(image, suffix)
    check(suffix, quality)
    kind = FORMATS[suffix.lower()]
    more: dict[str, object] = {"exif": exif} if exif else {}
    if kind == "PNG":
        more["compress_level"] = 4
    else:
        more["quality"] = QUALITY[kind] if quality is None else quality
    if kind == "JXL" and more["quality"] == 100:
        more["lossless"] = True  # what 100 means to JPEG XL; its encoder refuses it without
    if kind in REVEALING:
        image = image.copy()
        image.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def read_exif(path: Path, gps: bool = False) -> bytes:
    """Return what the EXIF of an image file says of date, camera and the like, without the place unless `gps`.

    The orientation, the old size and the thumbnail, which shows the old picture, are left out. Returns nothing where
    there is no EXIF, or a damaged one. Raises InputError as `images.read` does.
    """

    def take(image: Image.Image) -> bytes:
        try:
            exif = image.getexif()
            if not exif:
                return b""
            for tag in (ORIENTATION, *(() if gps else (GPS,))):
                exif.pop(tag, None)
            inner = exif.get_ifd(0x8769)
            for tag in SIZES:
                inner.pop(tag, None)
            return exif.tobytes()
        except Exception:  # Pillow raises many kinds of errors on a damaged EXIF
            return b""

    return images.take_from(path, take)


def read_alpha(path: Path) -> Image.Image | None:
    """Return how opaque an image file is (mode L, upright); None for one without transparency.

    Raises InputError as `images.read` does.
    """
    image = images.read_raw(path)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        return image.convert("LA" if image.mode in ("LA", "La") else "RGBA").getchannel("A")
    return None


def with_alpha(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return an RGB image that was laid over white as RGBA, which gives `image` again when it is laid over white."""
    if alpha.size != image.size:
        alpha = alpha.resize(image.size, Image.Resampling.BICUBIC)
    share = np.asarray(alpha, np.float32)[..., None] / 255
    colours = 255 - (255 - np.asarray(image, np.float32)) / np.maximum(share, 1 / 255)
    out = Image.fromarray(colours.round().clip(0, 255).astype(np.uint8))
    out.putalpha(alpha)
    return out
