"""A padded grey working copy of a photo, sampled as square patches at any place, size and turn."""

from __future__ import annotations

import numpy as np
from PIL import Image

LONGEST = 1024  # px; a face in a larger photo is found on a reduced copy
PAD = 0.5  # of the longest side: room around faces that fill the frame


class Canvas:
    """Grey copy of `image` (uint8 HxWx3 RGB), at most `LONGEST` px long, its edge pixels repeated outwards.

    `width`, `height` are the copy's, in px; `scale` turns photo px into copy px. All coordinates below are of the copy,
    continuous: pixel (i, j) covers the square from (i, j) to (i + 1, j + 1).
    """

    def __init__(self, image: np.ndarray):
        grey = Image.fromarray(image).convert("L")
        self.scale = min(1.0, LONGEST / max(grey.size))
        if self.scale < 1:
            size = (max(1, round(grey.width * self.scale)), max(1, round(grey.height * self.scale)))
            grey = grey.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
        self.width, self.height = grey.size
        self.pad = round(PAD * max(grey.size)) + 1
        padded = Image.fromarray(np.pad(np.asarray(grey), self.pad, mode="edge"))
        self.fill = int(np.asarray(grey).mean())
        self.levels = [padded]  # each half the size of the one before it
        while min(self.levels[-1].size) >= 64:
            self.levels.append(self.levels[-1].reduce(2))

    def patch(self, centre: np.ndarray, side: float, turn: float, pixels: int) -> np.ndarray:
        """The square of `side` px around `centre` (x, y) as uint8 (pixels, pixels).

        `turn` in degrees, clockwise as seen: a face whose head is turned clockwise by `turn` stands upright in the patch.
        """
        level = min(int(np.log2(max(1.0, side / pixels))), len(self.levels) - 1)
        centre = (centre + self.pad) / 2**level
        matrix = turned(turn) * (side / pixels / 2**level)
        offset = centre - matrix @ np.full(2, pixels / 2)
        coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
        sampled = self.levels[level].transform(
            (pixels, pixels), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=self.fill
        )
        return np.asarray(sampled)


def turned(degrees: float) -> np.ndarray:
    """The (2, 2) rotation that turns (x, y), y down, clockwise as seen by `degrees`."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])
