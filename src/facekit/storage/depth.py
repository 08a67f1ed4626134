"""Images of more than 8 bits per channel, scaled to 8 bits by the maximum that the file declares."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, TiffImagePlugin

BITS, SAMPLE_FORMAT, MAXIMUM, SIGNED_MAXIMUM = 258, 339, 281, 341  # TIFF tags: BitsPerSample, ..., SMaxSampleValue
UNSIGNED = 1  # TIFF's SampleFormat
DEEPER = (10, 14)  # bits of a grey TIFF that Pillow does not read


def is_deep(image: Image.Image) -> bool:
    """Whether an image holds integers of more than 8 bits, or floats."""
    return image.mode.startswith("I") or image.mode == "F"


def to_8_bits(image: Image.Image) -> Image.Image:
    """Return a deep grey image as 8-bit grey; its declared maximum becomes white.

    A value that is declared transparent becomes transparent (mode LA). Floats of at most 1 are read as 0 to 1; NaN
    becomes black.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
    if image.mode == "I" and _tiff_tag(image, SAMPLE_FORMAT) == UNSIGNED:
        values %= 2**32  # Pillow reads unsigned integers of 32 bits as signed ones
    grey = Image.fromarray((values * (255 / _maximum(image, values))).clip(0, 255).round().astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _maximum(image: Image.Image, values: np.ndarray) -> float:
    """Return the value that stands for white."""
    declared = _tiff_tag(image, MAXIMUM) or _tiff_tag(image, SIGNED_MAXIMUM)
    if declared and declared > 0:
        return declared
    top = float(values.max())
    if image.mode == "F":
        return 1 if top <= 1 else 255 if top <= 255 else 65535
    if image.format != "TIFF" and image.format is not None:
        return 65535  # Pillow brings PNG and PGM to 16 bits by the maximum in their header
    bits = _tiff_tag(image, BITS) or (16 if image.mode.startswith("I;16") else 32)
    if bits <= 16:
        return 2**bits - 1
    # Many programs store 8 or 16 bits in 32; scaled by the maximum of 32 bits, such images would be black.
    return 255 if top <= 255 else 65535 if top <= 65535 else 2**32 - 1 if top >= 2**31 else _top_of_32(image)


def _top_of_32(image: Image.Image) -> int:
    return 2**32 - 1 if _tiff_tag(image, SAMPLE_FORMAT) == UNSIGNED else 2**31 - 1


def _tiff_tag(image: Image.Image, tag: int) -> float | None:
    """Return the first value of a numeric TIFF tag."""
    value = getattr(image, "tag_v2", {}).get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, (int, float)) else None


def read_packed_tiff(data: bytes) -> Image.Image | None:
    """Decode a grey TIFF of 10 or 14 bits, which Pillow does not read, to 8 bits; None for any other file."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bits = tags.get(BITS, (0,))[0]
    except Exception:  # Pillow raises many kinds of errors on broken data
        return None
    if bits not in DEEPER or len(tags[BITS]) != 1:
        return None
    pixels = _opencv(data)
    if pixels is None or pixels.dtype != np.uint16:
        return None
    shifted = pixels >> (16 - bits)  # OpenCV gives the bits from the top of 16
    return Image.fromarray((shifted * (255 / (2**bits - 1))).round().astype(np.uint8))


def read_transparent_png(data: bytes, image: Image.Image) -> Image.Image:
    """Return a 16-bit RGB PNG with a transparent colour as RGBA, any other as `image`, which Pillow decoded.

    Pillow compares that colour with the upper 8 bits only, and so makes the wrong pixels transparent.
    """
    pixels = _opencv(data) if data[24] == 16 else None  # IHDR's bit depth
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 4:
        return image
    layer = Image.fromarray((pixels[..., [2, 1, 0, 3]] >> 8).astype(np.uint8))
    layer.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return layer


def _opencv(data: bytes) -> np.ndarray | None:
    """Decode all bits of an image with OpenCV: BGR(A) or grey."""
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
