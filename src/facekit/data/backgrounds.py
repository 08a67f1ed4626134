"""What stands behind and between composed faces: colours, textures, pictures without faces, and shuffled pieces."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import skimage.data
from PIL import Image

from ..storage import images

FACELESS = (
    *("brick", "chelsea", "clock_motion", "coffee", "grass", "gravel", "horse", "ihc", "motorcycle_left"),
    *("page", "retina", "rocket", "text", "hubble_deep_field"),
)
"""Pictures without a face that come with scikit-image."""

Picture = np.ndarray
"""uint8 [H, W, 3], RGB."""


def stored(picture: Image.Image) -> Picture:
    """Return a picture as it is kept in memory, at most 512 px."""
    picture = picture.copy()
    picture.thumbnail((512, 512))
    return np.asarray(picture)


def bundled() -> list[Picture]:
    """Return the faceless pictures that come with scikit-image."""
    folder = Path(skimage.data.__file__).parent
    return [stored(images.read(file)) for name in FACELESS for file in sorted(folder.glob(f"{name}.*"))]


def flat(rng: np.random.Generator, size: int) -> Picture:
    """Return one colour or a gradient between two, with a little noise."""
    one, other = rng.integers(0, 256, (2, 3)).astype(np.float32)
    if rng.random() < 0.4:
        other = one
    angle = rng.uniform(0, 2 * np.pi)
    line = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    share = np.clip(0.5 + line[None] * np.cos(angle) + line[:, None] * np.sin(angle), 0, 1)[..., None]
    return (one + (other - one) * share).astype(np.uint8)


def noise(rng: np.random.Generator, size: int) -> Picture:
    """Return smooth random colours: a small random picture, enlarged, plain or with a finer one added."""
    cells = int(rng.integers(2, 24))
    coarse = cv2.resize(rng.integers(0, 256, (cells, cells, 3), np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        fine = rng.integers(0, 256, (size // 2, size // 2, 3), np.uint8)
        return cv2.addWeighted(coarse, 0.8, cv2.resize(fine, (size, size)), 0.2, 0)
    return coarse


def shapes(rng: np.random.Generator, size: int) -> Picture:
    """Return ellipses, bars and lines on a plain ground: what drawings have that is not a face."""
    picture = flat(rng, size)
    for _ in range(int(rng.integers(4, 24))):
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        x, y = (int(v) for v in rng.integers(0, size, 2))
        a, b = (int(v) for v in rng.integers(2, size // 3, 2))
        thick = -1 if rng.random() < 0.6 else int(rng.integers(1, 6))
        if rng.random() < 0.5:
            cv2.ellipse(picture, (x, y), (a, b), float(rng.uniform(0, 180)), 0, 360, colour, thick, cv2.LINE_AA)
        else:
            cv2.rectangle(picture, (x, y), (x + a, y + b), colour, thick)
    return picture


def crop(rng: np.random.Generator, picture: Picture, size: int) -> Picture:
    """Return a random square of a picture as `size` px, turned by quarters and mirrored at random."""
    height, width = picture.shape[:2]
    side = int(rng.uniform(0.3, 1.0) * min(height, width))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    piece = picture[top : top + side, left : left + side]
    piece = np.rot90(piece, int(rng.integers(4)))
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(piece), (size, size), interpolation=how)


def shuffled(rng: np.random.Generator, picture: Picture, size: int) -> Picture:
    """Return the tiles of a picture in random order: skin, hair and eyes where there is no face."""
    count = int(rng.integers(5, 9))
    tile = -(-size // count)
    whole = cv2.resize(picture, (tile * count, tile * count), interpolation=cv2.INTER_AREA)
    tiles = whole.reshape(count, tile, count, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    tiles = np.rot90(tiles[rng.permutation(len(tiles))], int(rng.integers(4)), (1, 2))
    mixed = tiles.reshape(count, count, tile, tile, 3).swapaxes(1, 2).reshape(tile * count, tile * count, 3)
    return np.ascontiguousarray(mixed[:size, :size])


def beside(rng: np.random.Generator, picture: Picture, rows: np.ndarray, size: int) -> Picture:
    """Return a square of a picture that touches none of its faces (rows that begin with a box), as `size` px.

    Where no such square is found, smooth random colours.
    """
    height, width = picture.shape[:2]
    for _ in range(8):
        side = int(rng.uniform(0.15, 0.5) * min(height, width))
        top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
        apart = (x1 < left or x0 > left + side or y1 < top or y0 > top + side for x0, y0, x1, y1 in rows[:, :4])
        if side > 8 and all(apart):
            piece = picture[top : top + side, left : left + side]
            return cv2.resize(np.ascontiguousarray(piece), (size, size), interpolation=cv2.INTER_LINEAR)
    return noise(rng, size)
