"""Intervals by resampling: of means, of KID and of CMMD."""

import numpy as np
import pytest

from facekit.scoring import bootstrap, coverage, fid_kid, mmd


def sets(shift=0.0, n=60, m=50, d=6):
    draw = np.random.default_rng(0)
    return draw.normal(size=(n, d)) + shift, draw.normal(size=(m, d))


def test_the_interval_of_a_mean_is_that_of_the_normal_theory():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap.interval(values, 2000, 0)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert bootstrap.interval(np.full(9, 4.0), 70, 0) == (4, 4)
    assert bootstrap.interval(values, 100, 5) == bootstrap.interval(values, 100, 5)


def test_resampled_kid_leaves_out_pairs_of_copies():
    x, y = sets(0.5)
    twice = np.zeros((1, len(x)))
    twice[0, :10] = 2  # ten images, each drawn twice
    copied = mmd.unbiased(x, y, twice)[0]
    pairs = mmd.cubic(x[:10], x[:10])
    within = (4 * (pairs.sum() - np.trace(pairs))) / (20**2 - 10 * 4)
    kyy = mmd.cubic(y, y)
    expected = within + (kyy.sum() - np.trace(kyy)) / (50 * 49) - 2 * mmd.cubic(x[:10], y).mean()
    assert copied == pytest.approx(expected)
    assert mmd.unbiased(x, y)[0] == pytest.approx(fid_kid.kid_full(x, y))


def test_the_interval_of_kid_holds_kid_and_is_wider_for_fewer_images():
    x, y = sets(0.5)
    low, high = mmd.interval(x, y, 300, 0)
    assert low < fid_kid.kid_full(x, y) < high
    narrow = mmd.interval(*sets(0.5, 600, 500), 300, 0)
    assert narrow[1] - narrow[0] < 0.6 * (high - low)


def test_cmmd_is_the_published_formula():
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in sets(1.0))

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * 10**2))

    expected = 1000 * (kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean())
    found = mmd.cmmd(x, y, 200)
    assert found["CMMD"] == pytest.approx(expected, rel=1e-9)
    assert found["CMMD low"] < found["CMMD"] < found["CMMD high"]
    assert mmd.cmmd(x, x)["CMMD"] == pytest.approx(0, abs=1e-9)


def test_cmmd_in_blocks_is_cmmd(monkeypatch):
    x, y = sets(1.0)
    whole = mmd.cmmd(x, y)
    monkeypatch.setattr(mmd, "BLOCK", 7)
    assert mmd.cmmd(x, y) == pytest.approx(whole)


def test_precision_has_an_interval_around_it():
    found = coverage.compare(*sets(), "6", 3, resamples=200)
    for name in ("precision", "recall", "density", "coverage"):
        assert found[f"{name}-6 low"] <= found[f"{name}-6"] <= found[f"{name}-6 high"]
        assert found[f"{name}-6 high"] > found[f"{name}-6 low"]
