"""The measures of all images of a folder as columns of numbers: some 300 bytes an image, a tenth of a dict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..storage.folder import Source
from .near_duplicates import GRID

SHAPE = 3 * GRID**2  # bytes of an image's cells
DIGEST = "S12"  # 12 bytes; numpy compares them as a whole
FIGURES = ("width", "height", "blur", "chroma", "spread")


class Table:
    """The measures of N images, `sources`, which are in the order of their names: a column for each measure.

    `measured` says which places are filled. `bytes` is the length of the file; `width` to `spread` are those of
    `quality.Measures`, width 0 where there are none; `phash` is uint64 [N], `cells` uint8 [N, SHAPE]; `pixels` and
    `content` are digests. `problems` says by place why a file could not be read.
    """

    def __init__(self, sources: Sequence[Source]):
        count = len(sources)
        self.sources = sources
        self.measured = np.zeros(count, bool)
        self.bytes = np.zeros(count, np.int64)
        self.width, self.height = np.zeros(count, np.int32), np.zeros(count, np.int32)
        self.blur, self.chroma, self.spread = np.zeros(count), np.zeros(count), np.zeros(count)
        self.phash = np.zeros(count, np.uint64)
        self.cells = np.zeros((count, SHAPE), np.uint8)
        self.pixels, self.content = np.zeros(count, DIGEST), np.zeros(count, DIGEST)
        self.problems: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.sources)

    def put(self, place: int, row: dict[str, Any]) -> None:
        """Fill a place with what `quality.measure_file` returns for its image.

        Raises KeyError, TypeError, ValueError or OverflowError for a row that is not whole, and counts it as missing.
        """
        problem = row.get("problem")
        self.bytes[place] = row["bytes"]
        if "width" in row or problem is None:
            self.width[place], self.height[place] = row["width"], row["height"]
            self.blur[place], self.chroma[place], self.spread[place] = row["blur"], row["chroma"], row["spread"]
        if problem is None:
            self.phash[place] = int(row["phash"], 16)
            self.cells[place] = np.frombuffer(bytes.fromhex(row["cells"]), np.uint8).reshape(SHAPE)
            self.pixels[place], self.content[place] = bytes.fromhex(row["pixels"]), bytes.fromhex(row["content"])
        else:
            self.problems[place] = str(problem)
        self.measured[place] = True

    def figures(self, place: int) -> dict[str, Any]:
        """Return what people are shown of an image: name, size, figures and problem, as far as it has them."""
        row: dict[str, Any] = {"file": self.sources[place].name, "bytes": self.bytes.item(place)}
        if self.width.item(place):
            row |= {key: getattr(self, key).item(place) for key in FIGURES}
        if place in self.problems:
            row["problem"] = self.problems[place]
        return row

    def ranks(self) -> np.ndarray:
        """Return each image's rank by its figures, int64 [N], 0 for the best: the larger, sharper, less compressed one.

        Blur counts to 0.01. Of equal images the first by name is better.
        """
        area = self.width.astype(np.int64) * self.height
        blurs, where = np.unique(self.blur, return_inverse=True)
        blur = np.array([round(value, 2) for value in blurs.tolist()])[where]
        ranks = np.empty(len(self), np.int64)
        ranks[np.lexsort((-self.bytes / np.maximum(area, 1), blur, -area))] = np.arange(len(self))
        return ranks
