"""What is decided about a folder, by columns: the same as image by image, in a tenth of the memory."""

import hashlib
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from facekit.cleaning import near_duplicates
from facekit.cleaning.findings import Findings, judge
from facekit.cleaning.quality import Limits
from facekit.cleaning.report import best_first
from facekit.cleaning.run import summarise
from facekit.cleaning.table import Table
from facekit.storage.folder import Source

LIMITS = Limits()


def measures(count: int, seed: int) -> list[dict]:
    """Measures as files have them: copies, near duplicates, faults and equal figures are frequent."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, max(count // 6, 1), dtype=np.uint64)
    rows = []
    for number in range(count):
        one, colour, copy = int(rng.integers(len(hashes))), int(rng.integers(2)) * 100, int(rng.integers(3))
        row = {"file": f"{number:05d}.png", "bytes": int(rng.choice([900, 1000, 1100]))}
        if rng.random() < 0.1:
            rows.append(row | {"problem": "truncated"})
            continue
        flips = sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 5), replace=False)) if copy == 2 else 0
        look = f"{one} {colour} {flips}"
        row |= {"width": int(rng.choice([50, 100])), "height": 100, "blur": round(float(rng.uniform(0.28, 0.7)), 3)}
        row |= {"chroma": float(rng.choice([5, 50.5])), "spread": float(rng.choice([5, 90, 200.1]))}
        row |= {"phash": f"{int(hashes[one]) ^ flips:016x}", "cells": bytes([colour] * 192).hex()}
        rows.append(row | {"pixels": digest(look), "content": digest(look + str(rng.integers(2)))})
    return rows


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def filled(rows: list[dict]) -> Table:
    table = Table([Source(Path(), row["file"]) for row in rows])
    for place, row in enumerate(rows):
        table.put(place, row)
    return table


def rank(row: dict, at_fault: bool) -> tuple:
    area = row["width"] * row["height"]
    return at_fault, -area, round(row["blur"], 2), -row["bytes"] / area, row["file"]


def faults(row: dict) -> list[str]:
    if "problem" in row:
        return ["unreadable"]
    named = ["small"] if min(row["width"], row["height"]) < LIMITS.size else []
    if row["spread"] <= LIMITS.spread:
        return [*named, "one-colour"]
    named += ["grey"] if row["chroma"] <= LIMITS.chroma else []
    return named + (["blurred"] if row["blur"] > LIMITS.blur else [])


def judged_one_by_one(rows: list[dict], distance: int, spared: set[str]) -> list[tuple]:
    """Return reasons, better image, distance to it, group, and whether it is kept: by comparing all with all."""
    reasons = {row["file"]: faults(row) for row in rows}
    pictures = [row for row in rows if not {"unreadable", "one-colour"} & set(reasons[row["file"]])]
    pictures.sort(key=lambda row: rank(row, bool(set(reasons[row["file"]]) - spared)))
    heads = list({row["pixels"]: row for row in reversed(pictures)}.values())
    heads.sort(key=pictures.index)

    def near(one: dict, other: dict) -> bool:
        apart = bin(int(one["phash"], 16) ^ int(other["phash"], 16)).count("1")
        return apart <= distance and one["cells"] == other["cells"]

    kept_for: dict[str, dict] = {}
    for one in heads:
        if one["pixels"] not in kept_for:
            for other in heads:
                if near(one, other):
                    kept_for.setdefault(other["pixels"], one)
    group = {one["pixels"]: one["pixels"] for one in heads}
    for one in heads:
        for other in heads:
            if near(one, other) and group[one["pixels"]] != group[other["pixels"]]:
                first, second = sorted(
                    (group[one["pixels"]], group[other["pixels"]]),
                    key=lambda pixels: next(place for place, head in enumerate(heads) if head["pixels"] == pixels),
                )
                group = {key: first if value == second else value for key, value in group.items()}
    name = {one["pixels"]: one["file"] for one in heads}
    crowd = Counter(group[row["pixels"]] for row in pictures)
    contents: dict[str, str] = {}
    out = {row["file"]: (None, None, None) for row in rows}
    for row in pictures:
        file, better = row["file"], kept_for[row["pixels"]]
        twin = contents.setdefault(row["content"], file)
        if file != name[row["pixels"]]:
            reasons[file].append("same-pixels" if twin == file else "same-file")
        if better["pixels"] != row["pixels"]:
            reasons[file].append("near")
        bits = bin(int(better["phash"], 16) ^ int(row["phash"], 16)).count("1")
        own = group[row["pixels"]]
        out[file] = (
            *((better["file"], bits) if better["file"] != file else (None, None)),
            name[own] if crowd[own] > 1 else None,
        )
    return [(reasons[file], *out[file], not set(reasons[file]) - spared) for file in out]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spared", [set(), {"near", "grey"}, {"small", "same-file"}])
def test_columns_hold_what_is_decided_image_by_image(seed, spared):
    rows = measures(150, seed)
    found = judge(filled(rows), LIMITS, 8, 12, spared)
    expected = judged_one_by_one(rows, 8, spared)
    assert [(list(o.reasons), o.better, o.bits, o.group, o.kept) for o in found] == expected
    assert len({reason for reasons, *_ in expected for reason in reasons}) == 8 and found.group_count > 2
    figures = summarise(found)
    counted = Counter(reason for reasons, *_ in expected for reason in reasons)
    assert list(figures["reasons"].items()) == counted.most_common()


@pytest.mark.parametrize("count", [0, 1])
def test_folders_of_one_image_and_none(count):
    found = judge(filled(measures(count, 3)), LIMITS, 8, 12)
    assert len(list(found)) == count and found.group_count == 0 and found.largest_groups(5) == []


def test_groups_come_largest_first_and_with_the_kept_image_first():
    rows = measures(150, 1)
    found = judge(filled(rows), LIMITS, 8, 12)
    members: dict[str, list[int]] = {}
    for place, one in enumerate(found):
        if one.group:
            members.setdefault(one.group, []).append(place)
    expected = sorted(members.values(), key=lambda group: (-len(group), group[0]))
    assert [group.tolist() for group in found.largest_groups(1000)] == expected
    assert [group.tolist() for group in found.largest_groups(2)] == expected[:2]
    for group in expected:
        images = [(place, found.image(place)) for place in group]
        images.sort(key=lambda item: (not item[1].kept, item[1].bits or 0, rank(rows[item[0]], bool(item[1].reasons))))
        assert best_first(found, np.array(group)).tolist() == [place for place, _ in images]


def test_figures_are_the_measured_ones_to_the_last_digit():
    rows = measures(60, 2)
    shown = ("file", "width", "height", "bytes", "blur", "chroma", "spread", "problem")
    table = filled(rows)
    for place, row in enumerate(rows):
        figures = table.figures(place)
        assert figures == {key: row[key] for key in shown if key in row}
        assert all(type(figures[key]) is type(row[key]) for key in figures)


def test_what_is_no_measure_leaves_its_place_unmeasured():
    (row,) = [row for row in measures(5, 2) if "problem" not in row][:1]
    table = Table([Source(Path(), row["file"])])
    for changed in ({"cells": "00"}, {"phash": "x"}, {"width": None}, {"bytes": "many"}, {"width": 2**80}):
        with pytest.raises((KeyError, TypeError, ValueError, OverflowError)):
            table.put(0, row | changed)
    with pytest.raises(KeyError):
        table.put(0, {key: row[key] for key in row if key != "pixels"})
    assert not table.measured[0]


def memory(count: int) -> int:
    """Return the peak memory of judging `count` images that all differ, their table included."""
    rows, rng = measures(200, 0), np.random.default_rng(0)
    good = next(row for row in rows if "problem" not in row and row["spread"] > 16)
    sources = [Source(Path(), f"{number:06d}.png") for number in range(count)]
    tracemalloc.start()
    table = Table(sources)
    for place in range(count):
        digits = f"{place:024x}"
        table.put(place, good | {"pixels": digits, "content": digits})
    table.phash[:] = rng.integers(0, 2**64, count, dtype=np.uint64)
    found = judge(table, LIMITS, near_duplicates.DISTANCE, near_duplicates.COLOUR)
    assert isinstance(found, Findings) and found.group_count < count / 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.slow
def test_an_image_takes_some_hundred_bytes():
    each = (memory(40_000) - memory(20_000)) / 20_000
    assert each < 600
