"""Near duplicates: perceptual hashes, a fast search for all near pairs, groups, and splits that keep groups together.

Two images are near if their 64-bit perceptual hashes (pHash, by imagehash) differ in few bits and their colours agree.
The hash alone confuses different faces in the same pose; docs/commands/clean.md has measurements.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations

import numpy as np
from PIL import Image

DISTANCE = 8  # bits of 64
COLOUR = 12.0  # mean difference over GRID x GRID cells and three channels, 0..255
GRID = 8
CHUNKS, CHUNK = 4, 16  # a hash is four chunks of 16 bits
BLOCK = 1 << 21  # pairs compared at a time: some 100 MB


def fingerprint(image: Image.Image) -> tuple[int, bytes]:
    """Return an RGB image's perceptual hash, 64 bits, and the mean colours of its GRID x GRID cells, RGB bytes."""
    import imagehash

    cells = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX), dtype=np.uint8)
    return int(str(imagehash.phash(image)), 16), cells.tobytes()


def bits(x: np.ndarray) -> np.ndarray:
    """Count the bits that are set in each uint64."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)


def near_pairs(
    hashes: np.ndarray, distance: int = DISTANCE, cells: np.ndarray | None = None, colour: float = COLOUR
) -> tuple[np.ndarray, int]:
    """Find all pairs of hashes (uint64 [N]) that differ in at most `distance` bits, and with `cells` agree in colour.

    `cells` is uint8 [N, 3 GRID^2]. Returns the pairs, int64 [M, 2] in order with the smaller index first, and how many
    pairs were compared. Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012) misses none: of the four chunks of
    two such hashes at least one differs in no more than a quarter of `distance` bits, so only hashes that come so close
    in a chunk are compared.
    """
    hashes = np.asarray(hashes, dtype=np.uint64)
    found, compared = [np.empty((0, 2), np.int64)], 0
    for first, second in _candidates(hashes, distance // CHUNKS):
        compared += len(first)
        near = bits(hashes[first] ^ hashes[second]) <= distance
        first, second = first[near], second[near]
        if cells is not None and len(first):
            near = np.abs(cells[first].astype(np.int16) - cells[second]).mean(axis=1) <= colour
            first, second = first[near], second[near]
        found.append(np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1))
    return np.unique(np.concatenate(found), axis=0), compared


def _candidates(hashes: np.ndarray, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of pairs that differ in at most `radius` bits of a chunk, once for each such chunk."""
    flips = [sum(1 << b for b in set_) for r in range(radius + 1) for set_ in combinations(range(CHUNK), r)]
    for chunk in range(CHUNKS):
        key = ((hashes >> np.uint64(CHUNK * chunk)) & np.uint64(2**CHUNK - 1)).astype(np.int64)
        order = np.argsort(key, kind="stable")
        key = key[order]
        count = np.bincount(key, minlength=2**CHUNK)
        begin = np.cumsum(count) - count
        for flip in flips:
            if flip:  # each bucket with the one that differs from it in these bits
                left = np.flatnonzero((key < key ^ flip) & (count[key ^ flip] > 0))
                start, many = begin[key[left] ^ flip], count[key[left] ^ flip]
            else:  # each bucket with itself
                left = np.arange(len(key))
                start, many = left + 1, begin[key] + count[key] - left - 1
            total = np.cumsum(many)
            low = 0
            while low < len(left):
                done = total[low - 1] if low else 0
                high = max(low + 1, int(np.searchsorted(total, done + BLOCK, side="right")))
                size = many[low:high]
                within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
                yield order[np.repeat(left[low:high], size)], order[np.repeat(start[low:high], size) + within]
                low = high


def stars(ranked: Sequence[int], pairs: np.ndarray, count: int) -> list[int]:
    """Return for each of `count` images the one that is kept instead: itself, or a better one that is near it.

    The best image (first in `ranked`) replaces all images near it, then the best of the rest does, and so on. Chains
    are not collapsed: if a is near b and b near c, but a not near c, then c is dropped only if b is kept.
    """
    near: list[list[int]] = [[] for _ in range(count)]
    for first, second in pairs.tolist():
        near[first].append(second)
        near[second].append(first)
    centre = [-1] * count
    for image in ranked:
        if centre[image] < 0:
            centre[image] = image
            for other in near[image]:
                if centre[other] < 0:
                    centre[other] = image
    return centre


def components(count: int, pairs: np.ndarray) -> list[int]:
    """Return for each of `count` images the smallest index in its connected component of pairs (union-find)."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for first, second in pairs.tolist():
        a, b = sorted((root(first), root(second)))
        parent[b] = a
    return [root(i) for i in range(count)]


def deal(names: Sequence[str], groups: Sequence[Hashable], weights: Sequence[int], seed: int = 0) -> list[int]:
    """Split images into parts of these weights and return each image's part; a group is never divided.

    Large groups are assigned first, in an order given by a digest of the seed and the groups' first names, so the same
    images are split the same way on every machine. Each group goes to the part that lacks most.
    """
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)

    def order(group: Hashable) -> tuple[int, bytes]:
        first = min(names[i] for i in members[group])
        return -len(members[group]), hashlib.sha256(f"{seed} {first}".encode("utf-8", "surrogateescape")).digest()

    missing = [len(names) * weight / sum(weights) for weight in weights]
    share = [0] * len(names)
    for group in sorted(members, key=order):
        best = max(range(len(weights)), key=lambda i: missing[i])
        missing[best] -= len(members[group])
        for index in members[group]:
            share[index] = best
    return share
