"""Quality of images as training data: measures, faults, and the choice of the best image of a group."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..storage import images
from ..storage.folder import Source
from . import near_duplicates

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
SHARES = ("train", "val", "test")
FORMAT = 1  # of the measures of a file
FIGURES = {"width", "height", "blur", "chroma", "spread", "phash", "cells", "pixels", "content"}  # of a good image


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


def faults(found: Measures, limits: Limits) -> list[str]:
    """Return the faults of an image; one of a single colour is not also reported as grey or blurred."""
    named = ["small"] if min(found.width, found.height) < limits.size else []
    if found.spread <= limits.spread:
        return [*named, "one-colour"]
    if found.chroma <= limits.chroma:
        named.append("grey")
    if found.blur > limits.blur:
        named.append("blurred")
    return named


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


@dataclass
class Judged:
    """An image with its measures and the decision about it.

    `reasons` are the reasons to drop it, `better` is the image that is kept instead, `bits` the distance to that one,
    `group` the best image of its group of near duplicates.
    """

    source: Source
    row: dict[str, Any]
    reasons: list[str] = field(default_factory=list)
    better: str | None = None
    bits: int | None = None
    group: str | None = None
    share: str | None = None
    kept: bool = True


def rank(one: Judged, spared: Set[str] = frozenset()) -> tuple[Any, ...]:
    """Return a sort key that puts better images first: no faults, larger, sharper, less compressed, then by name."""
    area = one.row["width"] * one.row["height"]
    return bool(set(one.reasons) - spared), -area, round(one.row["blur"], 2), -one.row["bytes"] / area, one.source.name


def judge(
    found: Sequence[Source],
    rows: Sequence[dict[str, Any]],
    limits: Limits,
    distance: int,
    colour: float,
    spared: Set[str] = frozenset(),
) -> tuple[list[Judged], int]:
    """Find the reasons to drop each image and group near duplicates; also return the number of compared pairs.

    Reasons in `spared` are reported, but do not drop an image.
    """
    judged = [Judged(source, row) for source, row in zip(found, rows, strict=True)]
    for one in judged:
        if "problem" in one.row:
            one.reasons.append("unreadable")
        else:
            figures = Measures(*(one.row[k] for k in ("width", "height", "blur", "chroma", "spread")))
            one.reasons += faults(figures, limits)
    pictures = [one for one in judged if not {"unreadable", "one-colour"} & set(one.reasons)]
    ranks = {one.source.name: rank(one, spared) for one in pictures}
    pictures.sort(key=lambda one: ranks[one.source.name])
    first: dict[str, Judged] = {}
    for one in pictures:  # the best one represents all with the same pixels
        first.setdefault(one.row["pixels"], one)
    heads = list(first.values())
    hashes = np.array([int(one.row["phash"], 16) for one in heads], dtype=np.uint64)
    cells = np.frombuffer(bytes.fromhex("".join(one.row["cells"] for one in heads)), np.uint8)
    cells = cells.reshape(-1, 3 * near_duplicates.GRID**2)
    pairs, compared = near_duplicates.near_pairs(hashes, distance, cells, colour)
    centres = near_duplicates.stars(range(len(heads)), pairs, len(heads))
    joined = near_duplicates.components(len(heads), pairs)
    place = {one.row["pixels"]: index for index, one in enumerate(heads)}
    contents: dict[str, Judged] = {}
    for one in pictures:
        index = place[one.row["pixels"]]
        one.group = heads[joined[index]].source.name
        twin = contents.setdefault(one.row["content"], one)
        centre = heads[centres[index]]
        if one is not heads[index]:
            one.reasons.append("same-file" if twin is not one else "same-pixels")
        if centre is not heads[index]:
            one.reasons.append("near")
        if one is not centre:
            one.better = centre.source.name
            one.bits = int(near_duplicates.bits(hashes[[index]] ^ hashes[[centres[index]]])[0])
    crowds = Counter(one.group for one in pictures)
    for one in judged:
        one.group = one.group if crowds[one.group] > 1 else None
        one.kept = not set(one.reasons) - spared
    return judged, compared


def share_out(judged: Sequence[Judged], weights: Sequence[int], seed: int) -> None:
    """Split the kept images into train, val and test; a group stays together."""
    kept = [one for one in judged if one.kept]
    names = [one.source.name for one in kept]
    shares = near_duplicates.deal(names, [one.group or one.source.name for one in kept], weights, seed)
    for one, share in zip(kept, shares, strict=True):
        one.share = SHARES[share]
