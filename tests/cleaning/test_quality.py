"""What images are worth: measures that mean the same for every size, faults, and which of like images is the best."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage.data import astronaut

import toy
from facekit.cleaning import findings
from facekit.cleaning.findings import Judged, judge
from facekit.cleaning.quality import Limits, Measures, faults, measure, measure_file, named
from facekit.cleaning.table import Table
from facekit.storage.folder import Source

FACE = Image.fromarray(astronaut()[:256, 100:356])
GOOD = Measures(256, 256, 0.3, 100, 200)


def named_faults(found: Measures) -> list[str]:
    return list(named(int(faults(found, Limits()))))


@pytest.mark.parametrize("size", [64, 128, 256])
def test_blurred_images_are_distinguished_from_sharp_ones_at_every_size(size):
    sharp = FACE.resize((size, size), Image.Resampling.LANCZOS)
    assert measure(sharp).blur < 0.6
    assert measure(sharp.filter(ImageFilter.GaussianBlur(4))).blur > 0.7


def test_blur_grows_with_the_radius_and_not_with_contrast():
    blurs = [measure(FACE.filter(ImageFilter.GaussianBlur(radius))).blur for radius in (0, 1, 2, 4)]
    assert blurs == sorted(blurs)
    faint = FACE.point(lambda v: 100 + v // 4)
    assert measure(faint).blur == pytest.approx(measure(FACE).blur, abs=0.06)


def test_blur_is_measured_at_256_px():
    large = FACE.resize((1024, 1024), Image.Resampling.BICUBIC)
    assert measure(large).blur == pytest.approx(measure(FACE).blur, abs=0.05)
    assert measure(large).width == 1024


def test_grey_is_grey_even_as_a_jpeg(tmp_path):
    FACE.convert("L").convert("RGB").save(tmp_path / "a.jpg", quality=60)
    with Image.open(tmp_path / "a.jpg") as image:
        assert named_faults(measure(image.convert("RGB"))) == ["grey"]
    assert named_faults(measure(FACE)) == []


def test_a_spot_of_colour_is_colour():
    image = FACE.convert("L").convert("RGB")
    image.paste((200, 30, 30), (0, 0, 60, 60))
    assert "grey" not in named_faults(measure(image))


def test_noise_on_one_colour_is_one_colour():
    noise = np.random.default_rng(0).integers(-5, 6, (128, 128, 3)) + 120
    assert named_faults(measure(Image.fromarray(noise.astype(np.uint8)))) == ["one-colour"]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 2), (300, 1)])
def test_the_smallest_images_have_measures(size):
    found = measure(Image.new("RGB", size, "red"))
    assert (found.width, found.height) == size and named_faults(found) == ["small", "one-colour"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"width": 63}, ["small"]),
        ({"height": 64}, []),
        ({"blur": 0.66}, ["blurred"]),
        ({"chroma": 12}, ["grey"]),
        ({"chroma": 0, "blur": 1, "height": 9}, ["small", "grey", "blurred"]),
        ({"spread": 3, "chroma": 0, "blur": 1}, ["one-colour"]),
    ],
)
def test_faults_are_beyond_the_limits(changed, expected):
    assert named_faults(Measures(**{**vars(GOOD), **changed})) == expected


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path):
    toy.picture(64).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    row = measure_file(Source(tmp_path, "a.png"))
    assert "truncated" in row["problem"] and "blur" not in row
    (one,) = judge(filled(row), Limits(), 8, 12)
    assert one.reasons == ("unreadable",) and not one.kept


def row(name: str, pixels: str | None = None, content: str | None = None, **changed: object) -> dict:
    """The measures of a file; all look the same unless told otherwise."""
    digests = {"pixels": digest(pixels or name), "content": digest(content or name)}
    usual = {**vars(GOOD), "bytes": 1000, "phash": "00" * 8, "cells": "00" * 192}
    return {"file": name, **usual, **digests, **changed}


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def filled(*rows: dict) -> Table:
    rows = sorted(rows, key=lambda row: row["file"])
    table = Table([Source(Path(), row["file"]) for row in rows])
    for place, one in enumerate(rows):
        table.put(place, one)
    return table


def judged(*rows: dict, **options: object) -> dict[str, Judged]:
    found = judge(filled(*rows), **{"limits": Limits(), "distance": 8, "colour": 12, **options})
    return {one.source.name: one for one in found}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"width": 300}, {"blur": 0.1, "bytes": 9999}),
        ({"blur": 0.2}, {"blur": 0.25, "bytes": 9999}),
        ({"bytes": 1001}, {}),
        ({"width": 100}, {"blur": 0.9}),  # at fault
    ],
)
def test_the_best_is_without_fault_then_large_then_sharp_then_least_compressed(better, worse):
    found = judged(row("worse", **worse), row("the-better", **better))
    assert found["the-better"].kept and found["the-better"].reasons == ()
    assert not found["worse"].kept and "near" in found["worse"].reasons and found["worse"].better == "the-better"


def test_copies_are_distinguished_from_near_duplicates():
    found = judged(
        row("a", bytes=2000),
        row("b", bytes=2000, pixels="a", content="a"),
        row("c", pixels="a"),
        row("d", phash="00" * 7 + "0f"),
        row("e", phash="ff" * 8),
    )
    assert {name: list(one.reasons) for name, one in found.items()} == {
        "a": [],
        "b": ["same-file"],
        "c": ["same-pixels"],
        "d": ["near"],
        "e": [],
    }
    assert (found["d"].better, found["d"].bits, found["d"].group) == ("a", 4, "a") and found["e"].group is None


def test_what_is_spared_is_named_and_kept():
    found = judged(row("a", chroma=0), row("b", blur=0.9, phash="ff" * 8), spared={"grey"})
    assert found["a"].reasons == ("grey",) and found["a"].kept
    assert found["b"].reasons == ("blurred",) and not found["b"].kept


def test_images_of_one_colour_are_not_duplicates():
    found = judged(row("a", spread=0), row("b", spread=0))
    assert all(one.reasons == ("one-colour",) and one.group is None for one in found.values())


def test_a_group_keeps_to_one_share():
    rows = [row(f"{i:02d}", phash=f"{(i // 2) * 0x1111_1111_1111_1111:016x}") for i in range(20)]
    table = judge(filled(*rows), Limits(), 2, 12, {"near"})
    findings.share_out(table, [1, 1, 1], seed=0)
    found = list(table)
    assert {one.share for one in found} == {"train", "val", "test"}
    assert all(first.share == second.share for first, second in zip(found[::2], found[1::2], strict=True))
