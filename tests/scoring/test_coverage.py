"""Precision, recall, density and coverage: equal to their definitions, right where the answer is known."""

import numpy as np
import pytest

from facekit.errors import InputError
from facekit.scoring import coverage

NAMES = ("precision", "recall", "density", "coverage")


def draw(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, 6)) + shift).astype(np.float32)


def by_definition(out, reference, k):
    """The four measures, written out as the papers define them."""

    def apart(x, y):
        return np.linalg.norm(np.float64(x)[:, None] - np.float64(y)[None], axis=2)

    radius = {name: np.sort(apart(x, x), 1)[:, k] for name, x in (("out", out), ("reference", reference))}
    held = apart(out, reference) <= radius["reference"][None]
    return {
        "precision": held.any(1).mean(),
        "recall": (apart(out, reference) <= radius["out"][:, None]).any(0).mean(),
        "density": held.sum() / k / len(out),
        "coverage": held.any(0).mean(),
    }


@pytest.mark.parametrize(("n", "m", "k", "shift"), [(60, 50, 5, 0.5), (40, 90, 3, 1.5), (30, 30, 1, 0.0)])
def test_the_measures_are_those_of_the_papers(n, m, k, shift, monkeypatch):
    monkeypatch.setattr(coverage, "BLOCK", 16)
    out, reference = draw(n, 1, shift), draw(m, 2)
    found, expected = coverage.compare(out, reference, "6", k), by_definition(out, reference, k)
    assert {name: found[f"{name}-6"] for name in NAMES} == pytest.approx(expected)


def test_a_set_against_itself_is_precise_and_covered():
    x = draw(80, 1)
    found = coverage.compare(x, x, "6")
    assert found["precision-6"] == found["recall-6"] == found["coverage-6"] == 1
    assert found["precision-6 std"] == 0 and found["density-6"] == pytest.approx(6 / 5)


def test_a_set_elsewhere_has_none_of_it():
    found = coverage.compare(draw(50, 1, shift=100), draw(60, 2), "6")
    assert [found[f"{name}-6"] for name in NAMES] == [0, 0, 0, 0]


def test_copies_of_one_real_image_are_precise_and_cover_little():
    reference = draw(100, 2)
    out = reference[:1] + 1e-3 * draw(50, 3)
    found = coverage.compare(out, reference, "6")
    assert found["precision-6"] == 1 and found["recall-6"] < 0.1 and found["coverage-6"] < 0.5


def test_the_error_is_that_of_a_mean_over_images():
    found = coverage.compare(draw(60, 1, 0.8), draw(50, 2), "6")
    share = found["coverage-6"]
    assert found["coverage-6 std"] == pytest.approx(np.sqrt(share * (1 - share) / 50)) and 0 < share < 1


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="no 5 neighbours"):
        coverage.compare(draw(5, 1), draw(50, 2), "6")
