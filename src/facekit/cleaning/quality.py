"""Quality of images as training data: measures and faults."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..storage import images
from ..storage.folder import Source
from . import near_duplicates
from .table import Table

EDGE = 256  # px: blur is measured on images no larger than this, the size at which most methods learn
COARSE = 64  # px: colours are measured on images no larger than this, so that noise counts for little
FAULTS = {
    "unreadable": "truncated, empty, enormous or no image at all",
    "small": "the shorter edge has fewer pixels than --min-size",
    "one-colour": "almost all of one colour",
    "grey": "without colour",
    "blurred": "blurrier than --max-blur",
}
COPIES = {
    "same-file": "byte for byte another file",
    "same-pixels": "pixel for pixel another image",
    "near": "a near-duplicate of a better image",
}
BIT = {name: 1 << place for place, name in enumerate((*FAULTS, *COPIES))}  # reasons as bits of one number
FORMAT = 1  # of the measures of a file


@dataclass(frozen=True)
class Measures:
    """Figures of one image.

    `blur` is from 0, sharp, to 1 (Crete et al. 2007: how little a further blur changes); `chroma` is how far apart the
    channels are in the most colourful 1 % of the image, 0 to 255; `spread` is the range of the channel that varies
    most, without its extreme 1 % at either end, 0 to 255.
    """

    width: int
    height: int
    blur: float
    chroma: float
    spread: float


@dataclass(frozen=True)
class Limits:
    """Limits beyond which an image counts as faulty; no sharp image that we inspected has `blur` above 0.65."""

    size: int = 64
    blur: float = 0.65
    chroma: float = 12
    spread: float = 16


def measure(image: Image.Image) -> Measures:
    """Measure an RGB image."""
    from skimage.measure import blur_effect

    colours = np.asarray(_within(image, COARSE), dtype=np.int16)
    chroma = np.percentile(colours.max(axis=2) - colours.min(axis=2), 99)
    low, high = np.percentile(colours, [1, 99], axis=(0, 1))
    grey = np.asarray(_within(image, EDGE).convert("L"), dtype=np.float32) / 255
    blur = float(blur_effect(grey)) if min(grey.shape) > 2 and np.ptp(grey) > 0 else 1.0
    return Measures(*image.size, round(blur, 3), round(float(chroma), 1), round(float((high - low).max()), 1))


def _within(image: Image.Image, edge: int) -> Image.Image:
    """Shrink an image so that its shorter edge has at most `edge` px."""
    scale = edge / min(image.size)
    if scale >= 1:
        return image
    shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(shape, Image.Resampling.BOX)


def faults(found: Measures | Table, limits: Limits) -> np.ndarray:
    """Return the faults of an image, or of each in a table, as bits; one of a single colour is not grey or blurred."""
    plain = np.less_equal(found.spread, limits.spread)
    faulty = {
        "small": np.minimum(found.width, found.height) < limits.size,
        "one-colour": plain,
        "grey": ~plain & np.less_equal(found.chroma, limits.chroma),
        "blurred": ~plain & np.greater(found.blur, limits.blur),
    }
    bits = [BIT[name] * where.astype(np.uint8) for name, where in faulty.items()]
    return np.asarray(np.sum(bits, axis=0, dtype=np.uint8))


@cache
def named(bits: int) -> tuple[str, ...]:
    """Return the reasons that are set in `bits`, in the order of FAULTS and COPIES."""
    return tuple(name for name, bit in BIT.items() if bits & bit)


def stamp(source: Source) -> dict[str, int]:
    """Return size and times of a file, which show whether it has changed since it was measured."""
    found = source.stamp()
    if not found:
        return {"format": FORMAT, "bytes": -1, "mtime": 0, "ctime": 0}
    sizes = {"bytes": found["source_bytes"], "mtime": found["source_mtime"], "ctime": found["source_ctime"]}
    return {"format": FORMAT, **sizes}


def measure_file(source: Source) -> dict[str, Any]:
    """Measure an image file: Measures, fingerprint and digests, or `problem` if it cannot be read."""
    row: dict[str, Any] = {"file": source.name, **stamp(source)}
    try:
        image = images.read(source.path)
        row |= asdict(measure(image))
        phash, cells = near_duplicates.fingerprint(image)
        pixels = hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=12).hexdigest()
        content = hashlib.blake2b(source.read_bytes(), digest_size=12).hexdigest()
        row |= {"phash": f"{phash:016x}", "cells": cells.hex(), "pixels": pixels, "content": content}
    except (InputError, OSError) as error:
        row["problem"] = error.message if isinstance(error, InputError) else str(error)
    return row
