"""Which images are worth keeping: the reasons to drop one, the best of a group of near duplicates, and the split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..storage.folder import Source
from . import near_duplicates
from .quality import BIT, Limits, faults, named
from .table import Table

SHARES = ("train", "val", "test")
NO_PICTURE = BIT["unreadable"] | BIT["one-colour"]  # no duplicates are sought of these


@dataclass(frozen=True)
class Judged:
    """An image with its figures (see `Table.figures`) and the decision about it.

    `reasons` are the reasons to drop it, `better` is the image that is kept instead, `bits` the distance to that one,
    `group` the best image of its group of near duplicates.
    """

    source: Source
    row: dict[str, Any]
    reasons: Sequence[str]
    better: str | None
    bits: int | None
    group: str | None
    share: str | None
    kept: bool


class Findings:
    """The decisions about the N images of a table: a column for each; `image` puts those about one image together.

    `reasons` are bits of `quality.BIT`, uint8 [N]; `kept` is bool [N]. `better` and `group` are places in the table and
    `share` is one in SHARES, -1 where there is none. `bits` is uint8 [N]. `ranks` are those of the table, `compared` is
    how many pairs were compared.
    """

    def __init__(self, table: Table, reasons: np.ndarray):
        count = len(table)
        self.table, self.reasons, self.ranks, self.compared = table, reasons, table.ranks(), 0
        self.better, self.group = np.full(count, -1, np.int32), np.full(count, -1, np.int32)
        self.bits, self.share = np.zeros(count, np.uint8), np.full(count, -1, np.int8)
        self.kept = np.ones(count, bool)

    def __iter__(self) -> Iterator[Judged]:
        return map(self.image, range(len(self.table)))

    def image(self, place: int) -> Judged:
        """Return the image at a place."""
        better, group, share = self.better.item(place), self.group.item(place), self.share.item(place)
        return Judged(
            self.table.sources[place],
            self.table.figures(place),
            named(self.reasons.item(place)),
            self._name(better),
            self.bits.item(place) if better >= 0 else None,
            self._name(group),
            SHARES[share] if share >= 0 else None,
            self.kept.item(place),
        )

    @property
    def group_count(self) -> int:
        """The number of groups of near duplicates."""
        return len(np.unique(self.group[self.group >= 0]))

    def largest_groups(self, most: int) -> list[np.ndarray]:
        """Return the places of the images of up to `most` groups, the largest first, then by their first image."""
        members = np.argsort(self.group, kind="stable")
        members = members[np.count_nonzero(self.group < 0) :]
        first = np.unique(self.group[members], return_index=True)[1]
        sizes = np.diff(first, append=len(members))
        order = np.lexsort((members[first], -sizes))[:most]
        return [members[first[group] : first[group] + sizes[group]] for group in order]

    def _name(self, place: int) -> str | None:
        return self.table.sources[place].name if place >= 0 else None


def judge(table: Table, limits: Limits, distance: int, colour: float, spared: Set[str] = frozenset()) -> Findings:
    """Find the reasons to drop each image, and group near duplicates.

    Reasons in `spared` are reported, but do not drop an image.
    """
    found = Findings(table, faults(table, limits))
    reasons, dropping = found.reasons, sum(bit for name, bit in BIT.items() if name not in spared)
    reasons[list(table.problems)] = BIT["unreadable"]
    pictures = np.flatnonzero(reasons & NO_PICTURE == 0)
    pictures = pictures[np.lexsort((found.ranks[pictures], reasons[pictures] & dropping != 0))]  # the best first
    place, hashes = np.arange(len(pictures)), table.phash[pictures]
    same_file, same_pixels = _first_like(table.content[pictures]), _first_like(table.pixels[pictures])
    heads = np.flatnonzero(same_pixels == place)  # the best one represents all with the same pixels
    head = np.searchsorted(heads, same_pixels)
    pairs, found.compared = near_duplicates.near_pairs(hashes[heads], distance, table.cells, colour, pictures[heads])
    centres = near_duplicates.stars(np.arange(len(heads)), pairs, len(heads))
    joined = near_duplicates.components(len(heads), pairs)
    copy = same_pixels != place
    reasons[pictures[copy & (same_file != place)]] |= BIT["same-file"]
    reasons[pictures[copy & (same_file == place)]] |= BIT["same-pixels"]
    reasons[pictures[(centres != np.arange(len(heads)))[head]]] |= BIT["near"]
    centre = heads[centres][head]
    found.better[pictures] = np.where(centre == place, -1, pictures[centre])
    found.bits[pictures] = near_duplicates.bits(hashes ^ hashes[centre])
    group = heads[joined][head]
    found.group[pictures] = np.where(np.bincount(group)[group] > 1, pictures[group], -1)
    found.kept[:] = reasons & dropping == 0
    return found


def _first_like(values: np.ndarray) -> np.ndarray:
    """Return for each value the place of the first one that is equal to it."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def share_out(found: Findings, weights: Sequence[int], seed: int) -> None:
    """Split the kept images into train, val and test; a group stays together."""
    kept = np.flatnonzero(found.kept)
    names = [found.table.sources[place].name for place in kept.tolist()]
    groups = np.where(found.group[kept] < 0, kept, found.group[kept])
    found.share[kept] = near_duplicates.deal(names, groups, weights, seed)
