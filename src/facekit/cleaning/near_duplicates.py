"""Near duplicates: perceptual hashes, a fast search for all near pairs, groups, and splits that keep groups together.

Two images are near if their 64-bit perceptual hashes (pHash, by imagehash) differ in few bits and their colours agree.
The hash alone confuses different faces in the same pose; docs/commands/clean.md has measurements.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from PIL import Image

DISTANCE = 8  # bits of 64
COLOUR = 12.0  # mean difference over GRID x GRID cells and three channels, 0..255
GRID = 8
CHUNKS, CHUNK = 4, 16  # a hash is four chunks of 16 bits
BLOCK = 1 << 16  # pairs compared at a time: so few fit into the processor's cache
PART = 1 << 14  # near pairs handled at a time: some 20 MB


def fingerprint(image: Image.Image) -> tuple[int, bytes]:
    """Return an RGB image's perceptual hash, 64 bits, and the mean colours of its GRID x GRID cells, RGB bytes."""
    import imagehash

    cells = np.asarray(image.resize((GRID, GRID), Image.Resampling.BOX), dtype=np.uint8)
    return int(str(imagehash.phash(image)), 16), cells.tobytes()


def bits(x: np.ndarray) -> np.ndarray:
    """Count the bits that are set in each uint64."""
    if hasattr(np, "bitwise_count"):  # since NumPy 2
        return np.bitwise_count(x)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)


def near_pairs(
    hashes: np.ndarray,
    distance: int = DISTANCE,
    cells: np.ndarray | None = None,
    colour: float = COLOUR,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, int]:
    """Find all pairs of hashes (uint64 [N]) that differ in at most `distance` bits, and with `cells` agree in colour.

    `cells` is uint8 [N, 3 GRID^2], or has those of hash i in row `rows[i]`. Returns the pairs, int64 [M, 2] in order
    with the smaller index first, and how many pairs were compared. Multi-index hashing (Norouzi, Punjani and Fleet,
    CVPR 2012) misses none: of the four chunks of two such hashes at least one differs in no more than a quarter of
    `distance` bits, so only hashes that come so close in a chunk are compared.
    """
    hashes = np.asarray(hashes, dtype=np.uint64)
    count = max(len(hashes), 1)
    found, compared = [np.empty(0, np.int64)], 0
    for first, second, many in _near_hashes(hashes, distance):
        compared += many
        if cells is not None:
            one, other = (first, second) if rows is None else (rows[first], rows[second])
            near = _alike(cells, one, other, colour)
            first, second = first[near], second[near]
        found.append(np.minimum(first, second) * count + np.maximum(first, second))  # a pair as one number
    return np.stack(np.divmod(np.unique(np.concatenate(found)), count), axis=1), compared


def _alike(cells: np.ndarray, first: np.ndarray, second: np.ndarray, colour: float) -> np.ndarray:
    """Return for each pair of rows of `cells` whether they agree in colour."""
    alike = np.zeros(len(first), bool)
    for low in range(0, len(first), PART):
        part = slice(low, low + PART)
        apart = np.abs(cells[first[part]].astype(np.int16) - cells[second[part]])
        alike[part] = apart.mean(axis=1) <= colour
    return alike


def _near_hashes(hashes: np.ndarray, distance: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield blocks of near pairs, each once for every chunk in which it is near, and how many pairs were compared."""
    radius = distance // CHUNKS
    flips = [sum(1 << b for b in set_) for r in range(radius + 1) for set_ in combinations(range(CHUNK), r)]
    for chunk in range(CHUNKS):
        key = ((hashes >> np.uint64(CHUNK * chunk)) & np.uint64(2**CHUNK - 1)).astype(np.int64)
        order = np.argsort(key, kind="stable")
        key, ordered = key[order], hashes[order]
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
                end = np.cumsum(size)
                right = np.arange(end[-1]) + np.repeat(start[low:high] - end + size, size)
                apart = bits(np.repeat(ordered[left[low:high]], size) ^ ordered[right])
                near = np.flatnonzero(apart <= distance)
                yield order[left[low + np.searchsorted(end, near, side="right")]], order[right[near]], len(right)
                low = high


def stars(ranked: Sequence[int] | np.ndarray, pairs: np.ndarray, count: int) -> np.ndarray:
    """Return for each of `count` images the one that is kept instead: itself, or a better one that is near it.

    The best image (first in `ranked`) replaces all images near it, then the best of the rest does, and so on. Chains
    are not collapsed: if a is near b and b near c, but a not near c, then c is dropped only if b is kept.
    """
    both = np.concatenate([pairs, pairs[:, ::-1]])
    near = both[np.argsort(both[:, 0], kind="stable"), 1]
    many = np.bincount(both[:, 0], minlength=count)
    end = np.cumsum(many)
    ranked = np.asarray(ranked)
    centre = np.where(many > 0, -1, np.arange(count))
    for image in ranked[many[ranked] > 0].tolist():
        if centre[image] < 0:
            others = near[end[image] - many[image] : end[image]]
            centre[others[centre[others] < 0]] = image
            centre[image] = image
    return centre


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return for each of `count` images the smallest index in its connected component of pairs (union-find)."""
    parent = array("q", range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for low in range(0, len(pairs), PART):
        for first, second in pairs[low : low + PART].tolist():
            a, b = sorted((root(first), root(second)))
            parent[b] = a
    out = np.arange(count)
    joined = np.unique(pairs)
    out[joined] = [root(i) for i in joined.tolist()]
    return out


def deal(names: Sequence[str], groups: Sequence[int] | np.ndarray, weights: Sequence[int], seed: int = 0) -> np.ndarray:
    """Split images into parts of these weights and return each image's part; a group, a number, is never divided.

    Large groups are assigned first, in an order given by a digest of the seed and the groups' first names, so the same
    images are split the same way on every machine. Each group goes to the part that lacks most.
    """
    _, group, size = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    members = np.argsort(group, kind="stable")
    end = np.cumsum(size)
    digests = np.empty(len(size), "S32")
    for place, (first, last) in enumerate(zip((end - size).tolist(), end.tolist(), strict=True)):
        name = min(names[i] for i in members[first:last])
        digests[place] = hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()
    missing = [len(names) * weight / sum(weights) for weight in weights]
    share = np.empty(len(size), np.int64)
    for place in np.lexsort((digests, -size)).tolist():
        best = max(range(len(weights)), key=lambda i: missing[i])
        missing[best] -= size.item(place)
        share[place] = best
    return share[group]
