"""Upright face crops: the similarity transform of five landmarks, the warp, and pasting back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from ..errors import CardError, InputError
from .types import Face

MARGIN = 0.25  # the framing of selfie2anime's photos: eye distance 0.28 of the side, eyes 0.36 of the side from the top
FRAME = 2.4  # side of the square at margin 0, brow to chin, in eye distances
BELOW = 0.5  # the square's middle lies this far below the eyes, in eye distances
MEAN_FACE = np.array([[-0.5, 0], [0.5, 0], [0, 0.63], [-0.426, 1.013], [0.426, 1.013]])  # eye distances, from the eyes


@dataclass(frozen=True)
class Aligned:
    """An upright face crop and how it came about."""

    image: Image.Image  # RGB, size x size
    matrix: np.ndarray  # (2, 3), photo px -> crop px
    roll: float  # degrees the head was turned in the photo, clockwise positive; `photo.rotate(roll)` levels it
    landmarks: np.ndarray  # (5, 2), px of the crop


def template(size: int, margin: float = MARGIN) -> np.ndarray:
    """Where the five landmarks (5, 2) of a mean face land in a crop of `size` px.

    Margin 0 is a tight square, brow to chin; `margin` adds that fraction of its side on each of its four sides.
    Raises CardError for a size below 1 or a negative margin.
    """
    if size < 1 or not 0 <= margin < math.inf:
        raise CardError(f"no face crop has size {size} and margin {margin}", "size is 1 or more, margin 0 or more")
    distance = size / (FRAME * (1 + 2 * margin))
    return MEAN_FACE * distance + (size / 2, size / 2 - BELOW * distance)


def landmarks_of_eyes(eyes: np.ndarray) -> np.ndarray:
    """Five landmarks (5, 2) of a mean face that has its eyes at `eyes` (2, 2)."""
    matrix = similarity(MEAN_FACE[:2], eyes)
    return moved(matrix, MEAN_FACE)


def roll(landmarks: np.ndarray) -> float:
    """Degrees that the eye line of `landmarks` (5, 2) is turned from level, clockwise positive."""
    dx, dy = landmarks[1] - landmarks[0]
    return math.degrees(math.atan2(dy, dx))


def similarity(src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """The turn, scale and shift (2, 3) that takes `src` (n, 2) nearest to `dst` (n, 2), never mirrored.

    Least squares, Umeyama 1991, in the closed form of the plane. Raises InputError for points that do not fix it:
    fewer than two, not finite, or all in one place.
    """
    if len(src) < 2 or not (np.isfinite(src).all() and np.isfinite(dst).all()):
        raise InputError("cannot align: fewer than two landmarks are finite", "try another --detector")
    middle, target = src.mean(0), dst.mean(0)
    (x, y), (u, v) = (src - middle).T, (dst - target).T
    spread = float((x * x + y * y).sum())
    turn = np.array([(x * u + y * v).sum(), (x * v - y * u).sum()])
    if spread < 1e-9 or float(np.hypot(*turn)) < 1e-9 * spread:
        raise InputError("cannot align: the landmarks coincide", "try another --detector, or crop the face by hand")
    a, b = turn / spread
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, target - linear @ middle])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) that undoes the affine `matrix` (2, 3)."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` (n, 2) under the affine `matrix` (2, 3)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def cut_face(image: np.ndarray, face: Face, matrix: np.ndarray, size: int) -> Aligned:
    """Return `face` in `image` (uint8 HxWx3 RGB) as the square of `size` px that the warp `matrix` (2, 3) leads to.

    Beyond the photo the crop holds its mirror image, ever more blurred.
    """
    turned = -math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
    return Aligned(warp(image, matrix, size), matrix, turned, moved(matrix, face.landmarks))


def align_face(image: np.ndarray, face: Face, size: int, margin: float = MARGIN) -> Aligned:
    """Return `face` in `image` (uint8 HxWx3 RGB) as an upright portrait of `size` px, framed by `margin`.

    Raises as `template` and `similarity` do.
    """
    return cut_face(image, face, similarity(face.landmarks, template(size, margin)), size)


def footprint(matrix: np.ndarray, side: int) -> int:
    """Return the side in px of photo that a square of `side` px covers, where `matrix` maps photo px to its px."""
    return max(1, round(side * math.sqrt(abs(np.linalg.det(inverse(matrix)[:, :2])))))


def paste(
    photo: Image.Image,
    crop: Image.Image,
    matrix: np.ndarray,
    size: int | None = None,
    head: Image.Image | None = None,
    opacity: float = 1.0,
) -> Image.Image:
    """Return `photo` as RGB with the square `crop` pasted back where `matrix` (2, 3, photo px -> crop px) took it from.

    `size` is the side in px of the crop that `matrix` leads to, where `crop` has another size. `head` (mode L, 255:
    head) is the part of the crop to paste, `opacity` (0 to 1) how much of it shows. The crop fades into the photo over
    the outer fifth, along a rounded square.
    """
    photo, crop = photo.convert("RGB"), crop.convert("RGB")
    side = size or crop.width
    back = inverse(matrix)
    covered = footprint(matrix, side)
    if crop.width > covered:
        crop = crop.resize((covered, covered), Image.Resampling.LANCZOS)
    corners = moved(back, np.array([[0, 0], [side, 0], [side, side], [0, side]]))
    left, top = np.clip(np.floor(corners.min(0)).astype(int), 0, photo.size)
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int), 0, photo.size)
    if right <= left or bottom <= top:
        return photo
    to_crop = matrix * (crop.width / side)
    offset = to_crop[:, :2] @ (left, top) + to_crop[:, 2]
    coefficients = (*to_crop[0, :2], offset[0], *to_crop[1, :2], offset[1])
    where = (int(right - left), int(bottom - top)), Image.Transform.AFFINE, coefficients
    laid = crop.transform(*where, Image.Resampling.BICUBIC)
    soft = _rounded(crop.width)
    if head is not None:
        soft = ImageChops.multiply(soft, head.resize(crop.size, Image.Resampling.BICUBIC))
    if opacity < 1:
        soft = soft.point(lambda value: round(value * opacity))
    mask = soft.transform(*where, Image.Resampling.BILINEAR)
    result = photo.copy()
    result.paste(laid, (int(left), int(top)), mask)
    return result


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> Image.Image:
    """Return `image` (uint8 HxWx3 RGB) under `matrix` (2, 3, its px -> crop px) as RGB of `size` px.

    It is bicubic, supersampled where it shrinks; beyond the image see `align_face`.
    """
    back = inverse(matrix)
    shrink = math.sqrt(abs(np.linalg.det(back[:, :2])))  # photo px per crop px
    corners = moved(back, np.array([[0, 0], [size, 0], [size, size], [0, size]]))
    low, high = np.floor(corners.min(0)).astype(int) - 3, np.ceil(corners.max(0)).astype(int) + 3
    piece = _cut(image, low, high, blur=0.02 * size * shrink)
    coarser = max(1, int(shrink / 2))
    piece = piece.reduce(coarser)
    finer = max(1, math.ceil(shrink / coarser - 1e-6))
    linear = back[:, :2] / finer / coarser
    offset = (back[:, 2] - low) / coarser
    coefficients = (*linear[0], offset[0], *linear[1], offset[1])
    drawn = piece.transform((size * finer,) * 2, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return drawn.resize((size, size), Image.Resampling.LANCZOS) if finer > 1 else drawn


def _cut(image: np.ndarray, low: np.ndarray, high: np.ndarray, blur: float) -> Image.Image:
    """`image` from `low` to `high` (x, y), beyond its border mirrored and fading into a blur of `blur` px."""
    bounds = np.array([image.shape[1], image.shape[0]])
    start, stop = np.clip(low, 0, bounds - 1), np.clip(high, 1, bounds)
    before, after = np.maximum(start - low, 0), np.maximum(high - stop, 0)
    inside = image[start[1] : stop[1], start[0] : stop[0]]
    if not before.any() and not after.any():
        return Image.fromarray(inside)
    rows, columns = (before[1], after[1]), (before[0], after[0])
    mirrored = Image.fromarray(np.pad(inside, (rows, columns, (0, 0)), mode="symmetric"))
    beyond = [_beyond(len(inside), *rows)[:, None], _beyond(inside.shape[1], *columns)[None]]
    fade = np.clip(np.maximum(*beyond) / (6 * blur + 1), 0, 1)
    mask = Image.fromarray((fade * 255).astype(np.uint8))
    return Image.composite(mirrored.filter(ImageFilter.GaussianBlur(blur)), mirrored, mask)


def _beyond(length: int, before: int, after: int) -> np.ndarray:
    """How far each place of a padded line lies beyond the `length` places of the line itself."""
    places = np.arange(-before, length + after)
    return np.maximum(np.maximum(-places, places - length + 1), 0)


def _rounded(side: int) -> Image.Image:
    """Mask of `side` px: a rounded square, 255 inside, falling smoothly to 0 over the outer fifth."""
    across = np.abs((np.arange(side) + 0.5) / side * 2 - 1)
    radius = (across[:, None] ** 6 + across[None] ** 6) ** (1 / 6)
    ramp = np.clip((1 - radius) / 0.2, 0, 1)
    return Image.fromarray((ramp * ramp * (3 - 2 * ramp) * 255).astype(np.uint8))
