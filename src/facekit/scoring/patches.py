"""Patch sliced Wasserstein distance: whether two sets have the same small structures, from fine lines to large shapes.

Karras, Aila, Laine, Lehtinen, "Progressive growing of GANs for improved quality, stability, and variation", 2018,
section 5: squares of 7 x 7 px at the levels of a Laplacian pyramid, their colours normalised over the set, compared
along random directions (Rabin et al. 2011).
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import convolve1d

from ..errors import InputError
from ..runtime import console
from ..storage import images
from .image_set import ImageSet, read

EDGE = 7  # px of a patch
PATCHES = 128  # of an image, at each level
MOST = 2**16  # patches of a set at a level: larger sets have fewer of each image
SMALLEST = 16  # px, of the coarsest level
DIRECTIONS = 512
FEW = 64  # directions, for the deviation
RESAMPLES = 50  # most, for the deviation
SCALE = 1000.0
TAPS = np.array([1, 4, 6, 4, 1], np.float32) / 16
Levels = dict[int, np.ndarray]  # shorter edge of a level in px -> patches [images, patches, 3 x 49]


def measure(
    out: ImageSet, reference: ImageSet, resize: int | None, resamples: int | None, seed: int
) -> dict[str, float]:
    """Return "SWD-256", "SWD-128" and so on, a distance per level named by its edge in px, and their mean, "SWD".

    Each is SCALE times the distance, as published; 0 for equal sets. `resize` takes the middle square at so many px
    first; `resamples` adds a "std", the deviation over resamples of the images. Raises InputError for images under
    SMALLEST px, and where none can be read.
    """
    x, y = (levels(one, resize, seed) for one in (out, reference))
    found: dict[str, float] = {}
    drawn: list[np.ndarray] = []
    for edge in x:
        directions = _directions(x[edge].shape[2], DIRECTIONS, seed)
        found[f"SWD-{edge}"] = distance(x[edge], y[edge], directions)
        if resamples:
            drawn.append(_resampled(x[edge], y[edge], directions[:, :FEW], min(resamples, RESAMPLES), seed))
            found[f"SWD-{edge} std"] = float(np.std(drawn[-1]))
    found["SWD"] = float(np.mean([value for name, value in found.items() if not name.endswith(" std")]))
    return {**found, "SWD std": float(np.std(np.mean(drawn, 0)))} if drawn else found


def levels(found: ImageSet, resize: int | None = None, seed: int = 0) -> Levels:
    """Return the patches of a folder's images at each level, finest first, normalised per colour over the set.

    Equal sets give equal patches: where they lie depends on an image's place in the folder alone.
    """
    each = max(4, min(PATCHES, MOST // max(1, len(found))))
    draw = np.random.default_rng(seed)
    parts: dict[int, list[np.ndarray]] = {}
    todo = found.good
    with console.progress(f"patches of {found.path.name}", len(todo)) as bar:
        for source in todo:
            picture = read(source.path, found.reading)
            pixels = np.asarray(images.resize(images.square(picture), resize) if resize else picture, np.float32)
            for level in pyramid(pixels):
                parts.setdefault(min(level.shape[:2]), []).append(_cut(level, each, draw))
            bar.advance(1)
    if not parts:
        raise InputError(f"{found.path} has no image of {SMALLEST} px or more", "--resize N enlarges")
    return {edge: _normalised(np.stack(patches)) for edge, patches in parts.items()}


def pyramid(pixels: np.ndarray) -> list[np.ndarray]:
    """Return the Laplacian pyramid (Burt and Adelson 1983) of pixels [H, W, 3]; the last level is at SMALLEST px."""
    found = []
    while min(pixels.shape[:2]) >= 2 * SMALLEST:
        smaller = _smooth(pixels)[::2, ::2]
        spread = np.zeros_like(pixels)
        spread[::2, ::2] = smaller
        found.append(pixels - 4 * _smooth(spread))
        pixels = smaller
    return [*found, pixels] if min(pixels.shape[:2]) >= SMALLEST else found


def distance(x: np.ndarray, y: np.ndarray, directions: np.ndarray) -> float:
    """Return SCALE times the mean distance of the projections of patches [..., d] on directions [d, k].

    The distance along a direction is the mean difference of the sorted projections (Wasserstein-1).
    """
    a, b = (np.sort((z.reshape(-1, z.shape[-1]) @ directions).T, 1) for z in (x, y))
    return SCALE * float(_between(a, b).mean())


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the mean difference of sorted rows [k, n] and [k, m]; the longer is read at as many even places."""
    count = min(a.shape[1], b.shape[1])
    a, b = (z[:, ((np.arange(count) + 0.5) * z.shape[1] / count).astype(int)] for z in (a, b))
    return np.abs(a - b).mean(1)


def _resampled(x: np.ndarray, y: np.ndarray, directions: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return `distance` of resamples of both sets' images, drawn with replacement."""
    draw = np.random.default_rng(seed)
    sides = []
    for z in (x, y):
        projected = (z.reshape(-1, z.shape[-1]) @ directions).T
        order = projected.argsort(1)
        sides.append((np.take_along_axis(projected, order, 1), order // z.shape[1], len(z)))

    def drawn(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
        times = draw.multinomial(count, np.full(count, 1 / count))
        return np.repeat(values.ravel(), times[owner].ravel()).reshape(len(values), -1)

    return np.array([SCALE * _between(drawn(*sides[0]), drawn(*sides[1])).mean() for _ in range(resamples)])


def _smooth(pixels: np.ndarray) -> np.ndarray:
    return convolve1d(convolve1d(pixels, TAPS, 0, mode="mirror"), TAPS, 1, mode="mirror")


def _cut(level: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """Return squares of EDGE px at random places of pixels [H, W, 3]: [count, 3 x 49]."""
    tops, lefts = (draw.integers(0, edge - EDGE + 1, count) for edge in level.shape[:2])
    rows, columns = (start[:, None] + np.arange(EDGE) for start in (tops, lefts))
    return level[rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2).reshape(count, -1)


def _normalised(patches: np.ndarray) -> np.ndarray:
    """Return patches [images, count, 3 x 49] with mean 0 and variance 1 of each colour over the set."""
    colours = patches.reshape(*patches.shape[:2], 3, -1)
    mean, deviation = (f(colours, axis=(0, 1, 3), keepdims=True) for f in (np.mean, np.std))
    return ((colours - mean) / np.maximum(deviation, 1e-6)).reshape(patches.shape)


def _directions(length: int, count: int, seed: int) -> np.ndarray:
    """Return random directions [length, count] of length 1."""
    found = np.random.default_rng(seed).standard_normal((length, count), np.float32)
    return found / np.linalg.norm(found, axis=0)
