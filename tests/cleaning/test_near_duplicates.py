"""Duplicates: all near pairs are found without comparing all, chains drop nothing, groups stay together."""

import numpy as np
import pytest
from PIL import Image

import toy
from facekit.cleaning import near_duplicates


def random_hashes(count: int, seed: int = 0) -> np.ndarray:
    """Random hashes, a quarter of them near others: up to 20 bits flipped."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    for i in range(count // 4):
        flips = rng.choice(64, rng.integers(0, 21), replace=False)
        hashes[count - 1 - i] = hashes[i] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    return hashes


def differing(a: int, b: int) -> int:
    return bin(int(a) ^ int(b)).count("1")


def all_pairs(hashes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """Compare every hash with every other."""
    count = len(hashes)
    return [(i, j) for i in range(count) for j in range(i + 1, count) if differing(hashes[i], hashes[j]) <= distance]


def cells(*colours: int) -> np.ndarray:
    return np.array([[colour] * (3 * near_duplicates.GRID**2) for colour in colours], np.uint8)


@pytest.mark.parametrize("numpy_counts", [True, False])
def test_bits_are_counted(numpy_counts, monkeypatch):
    if not numpy_counts:  # as before NumPy 2
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    values = [0, 1, 2**63, 2**64 - 1, 0x0F0F_0000_FFFF_1234]
    assert near_duplicates.bits(np.array(values, np.uint64)).tolist() == [bin(v).count("1") for v in values]


@pytest.mark.parametrize("distance", [0, 1, 3, 4, 6, 8, 11, 16])
def test_no_near_pair_is_missed_and_none_invented(distance):
    hashes = random_hashes(300, distance)
    pairs, _ = near_duplicates.near_pairs(hashes, distance)
    expected = all_pairs(hashes, distance)
    assert expected and [tuple(pair) for pair in pairs.tolist()] == expected


def test_the_worst_spread_of_flipped_bits_is_found():
    """Two flips in each chunk of 16 bits: no chunk is nearer than a quarter of the distance."""
    near = 0x0003_0003_0003_0003
    assert near_duplicates.near_pairs(np.array([0, near], np.uint64), 8)[0].tolist() == [[0, 1]]
    assert near_duplicates.near_pairs(np.array([0, near], np.uint64), 7)[0].tolist() == []


def test_far_fewer_than_all_pairs_are_compared():
    hashes = np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64)
    _, compared = near_duplicates.near_pairs(hashes, 8)
    assert 0 < compared < 0.02 * 5000 * 4999 / 2


def test_blocks_do_not_change_what_is_found(monkeypatch):
    hashes = np.repeat(random_hashes(40), 5)
    whole, compared = near_duplicates.near_pairs(hashes, 8)
    monkeypatch.setattr(near_duplicates, "BLOCK", 7)
    parts, again = near_duplicates.near_pairs(hashes, 8)
    assert compared == again and whole.tolist() == parts.tolist()


@pytest.mark.parametrize("count", [0, 1])
def test_there_are_no_pairs_of_less_than_two(count):
    pairs, compared = near_duplicates.near_pairs(np.zeros(count, np.uint64), 8, cells(*[0] * count))
    assert pairs.shape == (0, 2) and compared == 0


def test_similar_hashes_of_other_colours_are_not_a_pair():
    hashes = np.zeros(3, np.uint64)
    pairs, _ = near_duplicates.near_pairs(hashes, 8, cells(10, 20, 200), colour=12)
    assert pairs.tolist() == [[0, 1]]


def test_a_picture_is_near_itself_smaller_and_compressed(tmp_path):
    picture = toy.picture(96, 3)
    picture.save(tmp_path / "a.jpg", quality=50)
    hashes, seen = zip(
        *map(
            near_duplicates.fingerprint,
            [picture, picture.resize((60, 60)), Image.open(tmp_path / "a.jpg"), toy.picture(96, 4)],
        ),
        strict=True,
    )
    colours = np.array([list(one) for one in seen], np.uint8)
    pairs, _ = near_duplicates.near_pairs(np.array(hashes, np.uint64), 8, colours)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]]


CHAIN = np.array([[0, 1], [1, 2], [2, 3]])  # 0 ~ 1 ~ 2 ~ 3


def test_the_best_of_a_group_stands_for_those_near_it():
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    assert near_duplicates.stars([2, 0, 1, 3], pairs, 4).tolist() == [2, 2, 2, 3]


def test_a_chain_drops_only_what_is_near_a_kept_image():
    assert near_duplicates.stars([0, 1, 2, 3], CHAIN, 4).tolist() == [0, 0, 2, 2]
    assert near_duplicates.stars([1, 3, 0, 2], CHAIN, 4).tolist() == [1, 1, 1, 3]


def test_what_is_kept_is_never_near_what_is_kept():
    hashes = random_hashes(300, 5)
    pairs, _ = near_duplicates.near_pairs(hashes, 16)
    order = np.random.default_rng(1).permutation(300).tolist()
    centres = near_duplicates.stars(order, pairs, 300).tolist()
    place = {image: rank for rank, image in enumerate(order)}
    for first, second in pairs.tolist():
        assert not (centres[first] == first and centres[second] == second)
    for image, centre in enumerate(centres):
        assert centres[centre] == centre and place[centre] <= place[image]
        assert differing(hashes[image], hashes[centre]) <= 16


def test_chains_are_one_group():
    pairs = np.array([[4, 5], [2, 3], [0, 1], [1, 2]])
    assert near_duplicates.components(6, pairs).tolist() == [0, 0, 0, 0, 4, 4]


def test_shares_are_exact_and_the_same_every_time():
    names = [f"{i}.png" for i in range(100)]
    shares = near_duplicates.deal(names, range(100), [8, 1, 1]).tolist()
    assert [shares.count(i) for i in range(3)] == [80, 10, 10]
    assert shares == near_duplicates.deal(names, [-i for i in range(100)], [8, 1, 1]).tolist()
    back = near_duplicates.deal(names[::-1], range(100), [8, 1, 1]).tolist()
    assert back[::-1] == shares
    assert shares != near_duplicates.deal(names, range(100), [8, 1, 1], seed=1).tolist()


def test_a_group_is_never_divided():
    groups = [i // 3 for i in range(90)]
    shares = near_duplicates.deal([f"{i:02d}" for i in range(90)], groups, [1, 1, 1]).tolist()
    assert all(len({shares[i] for i in range(90) if groups[i] == group}) == 1 for group in range(30))
    assert [shares.count(i) for i in range(3)] == [30, 30, 30]


def test_a_share_of_nothing_stays_empty():
    assert set(near_duplicates.deal([str(i) for i in range(20)], range(20), [9, 0, 1])) == {0, 2}
