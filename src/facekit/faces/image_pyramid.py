"""A grey working copy of a photo, sampled as square patches at any place, size and turn."""

from __future__ import annotations

import numpy as np
from PIL import Image

LONGEST = 1024  # px; a face in a larger photo is found on a reduced copy
PAD = 0.5  # of the longest side: room for patches around a face that fills the frame


class Canvas:
    """Grey copy of `image` (uint8 HxWx3 RGB), at most `LONGEST` px long, its edge pixels repeated outwards.

    `size` is the copy's (width, height) in px, `scale` copy px per photo px. Coordinates are px of the copy, (x, y), y
    down, (0, 0) the outer corner of the first pixel.
    """

    def __init__(self, image: np.ndarray):
        grey = Image.fromarray(image).convert("L")
        self.scale = min(1.0, LONGEST / max(grey.size))
        if self.scale < 1:
            width, height = (max(1, round(side * self.scale)) for side in grey.size)
            grey = grey.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
        self.size = np.array(grey.size)
        self._pad = round(PAD * max(grey.size)) + 1
        self._mean = int(np.asarray(grey).mean())
        self._levels = [Image.fromarray(np.pad(np.asarray(grey), self._pad, mode="edge"))]
        while min(self._levels[-1].size) >= 64:
            self._levels.append(self._levels[-1].reduce(2))

    def patch(self, centre: np.ndarray, side: float, turn: float, pixels: int) -> np.ndarray:
        """The square of `side` px around `centre` as uint8 (pixels, pixels).

        A head turned clockwise by `turn` degrees stands upright in it. Pixels beyond the padding are mean grey.
        """
        level = min(int(np.log2(max(1.0, side / pixels))), len(self._levels) - 1)
        matrix = clockwise(turn) * (side / pixels / 2**level)
        offset = (centre + self._pad) / 2**level - matrix @ np.full(2, pixels / 2)
        sampled = self._levels[level].transform(
            (pixels, pixels),
            Image.Transform.AFFINE,
            (*matrix[0], offset[0], *matrix[1], offset[1]),
            Image.Resampling.BILINEAR,
            fillcolor=self._mean,
        )
        return np.asarray(sampled)


def clockwise(degrees: float) -> np.ndarray:
    """The (2, 2) matrix that turns column vectors (x, y), y down, clockwise as seen."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])
