"""FID and KID as numbers: equal to clean-fid's and torch-fidelity's, right where the answer is known, and refusals."""

import tracemalloc

import numpy as np
import pytest
import torch

from facekit.errors import CardError, InputError
from facekit.scoring import fid_kid


def draw(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Features that are correlated, positive and of uneven scale, as those of nets are."""
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(d, d)) / np.sqrt(d)
    return np.abs(random.normal(size=(n, d)) @ mix * np.linspace(0.1, 1, d) + shift)


def theirs_fid(x: np.ndarray, y: np.ndarray) -> float:
    """torch-fidelity's FID of features."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    stats = (fid_features_to_statistics(torch.from_numpy(p)) for p in (x, y))
    return fid_statistics_to_metric(*stats, verbose=False)[KEY_METRIC_FID]


def theirs_kid(x: np.ndarray, y: np.ndarray, **options) -> tuple[float, float]:
    """torch-fidelity's KID of features."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    found = kid_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), verbose=False, **options)
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


@pytest.mark.parametrize(("n", "m", "d"), [(400, 300, 32), (40, 60, 96), (300, 50, 96)])
def test_fid_is_that_of_clean_fid_and_of_torch_fidelity(n, m, d):
    from cleanfid import fid

    x, y = draw(n, d, 1), draw(m, d, 2, shift=0.3)
    ours = fid_kid.fid(x, y)
    assert ours == pytest.approx(theirs_fid(x, y), rel=1e-3)
    assert ours == pytest.approx(fid.fid_from_feats(x, y), rel=1e-3)


def test_fid_of_200_images_with_768_dimensions_is_theirs():
    x, y = draw(200, 768, 1), draw(200, 768, 2, shift=0.3)
    assert fid_kid.fid(x, y) == pytest.approx(theirs_fid(x, y), rel=1e-3)


def test_kid_draws_the_subsets_of_torch_fidelity():
    x, y = draw(150, 24, 1), draw(90, 24, 2, shift=0.3)
    expected = theirs_kid(x, y, kid_subsets=20, kid_subset_size=40, rng_seed=7)
    assert fid_kid.kid(x, y, 20, 40, 7) == pytest.approx(expected, rel=1e-6)


def test_default_seed_and_subsets_are_those_of_torch_fidelity():
    from torch_fidelity.defaults import DEFAULTS

    ours = (fid_kid.SEED, fid_kid.SUBSETS, fid_kid.SUBSET_SIZE)
    assert ours == (DEFAULTS["rng_seed"], DEFAULTS["kid_subsets"], DEFAULTS["kid_subset_size"])


@pytest.mark.parametrize("n", [20, 300])
def test_fid_of_a_set_with_itself_is_zero_and_never_below(n):
    for seed in range(10):
        x = draw(n, 64, seed).astype(np.float32) * 10**seed
        assert 0 <= fid_kid.fid(x, x) < 1e-9 * 100**seed


def test_fid_of_many_images_reads_them_in_blocks():
    x, y = draw(3000, 8, 1), draw(2500, 8, 2, shift=0.3)
    assert fid_kid.fid(x, y) == pytest.approx(theirs_fid(x, y), rel=1e-6)


def test_kid_is_that_of_clean_fid_on_the_same_subsets():
    from cleanfid import fid

    x, y = draw(150, 24, 1), draw(90, 24, 2, shift=0.3)
    np.random.seed(7)  # noqa: NPY002 - clean-fid draws from the global generator
    assert fid_kid.kid(x, y, 20, 40, 7)[0] == pytest.approx(fid.kernel_distance(y, x, 20, 40), rel=1e-6)


def test_kid_of_whole_sets_is_that_of_clean_fid():
    from cleanfid import fid

    x, y = draw(80, 24, 1), draw(80, 24, 2, shift=0.3)
    assert fid_kid.kid_full(x, y) == pytest.approx(fid.kernel_distance(x, y, 3), rel=1e-6)
    assert fid_kid.compare(x, y, "24")["KID-24"] == pytest.approx(fid.kernel_distance(x, y, 3), rel=1e-6)


def test_kid_of_whole_sets_does_not_depend_on_the_block(monkeypatch):
    x, y = draw(50, 8, 1), draw(31, 8, 2)
    whole = fid_kid.kid_full(x, y)
    monkeypatch.setattr(fid_kid, "BLOCK", 7)
    assert fid_kid.kid_full(x, y) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "size"), [(150, 90, 40), (40, 40, 20), (300, 20, 4)])
def test_kid_of_one_kernel_is_that_of_each_subset_by_itself(n, m, size, monkeypatch):
    """Both for sets whose whole kernel is cheaper than that of all subsets, and for those where it is not."""
    monkeypatch.setattr(fid_kid, "BLOCK", 32)
    x, y = draw(n, 24, 1), draw(m, 24, 2, shift=0.3)
    draws = np.random.RandomState(7)
    values = []
    for _ in range(20):
        a, b = x[draws.choice(n, size, replace=False)], y[draws.choice(m, size, replace=False)]
        aa, bb, ab = ((p @ q.T / 24 + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
        within = sum(k.sum() - np.trace(k) for k in (aa, bb)) / (size * (size - 1))
        values.append(within - 2 * ab.mean())
    assert fid_kid.kid(x, y, 20, size, 7) == pytest.approx((np.mean(values), np.std(values)), rel=1e-9)


def test_fid_of_a_shifted_set_is_the_squared_shift():
    x = draw(300, 16, 1)
    assert fid_kid.fid(x, x + 0.5) == pytest.approx(16 * 0.25)


def test_fid_of_scaled_gaussians_is_known():
    x = draw(300, 16, 1)
    x = x - x.mean(0)
    assert fid_kid.fid(x, 3 * x) == pytest.approx(4 * np.trace(np.cov(x, rowvar=False)))  # (3 - 1)^2 Tr A


def test_kid_of_one_distribution_is_about_zero_and_of_two_is_not():
    same = fid_kid.kid_full(draw(400, 16, 1), draw(400, 16, 2))
    other = fid_kid.kid_full(draw(400, 16, 1), draw(400, 16, 2, shift=0.5))
    assert abs(same) < 0.02 * other


def test_a_seed_makes_kid_repeatable():
    x, y = draw(60, 8, 1), draw(60, 8, 2)
    first = fid_kid.compare(x, y, "8", seed=1, subset_size=20)
    assert first == fid_kid.compare(x, y, "8", seed=1, subset_size=20)
    assert first["KID-8"] != fid_kid.compare(x, y, "8", seed=2, subset_size=20)["KID-8"]


def test_names_end_in_the_unit():
    assert list(fid_kid.compare(draw(9, 4, 1), draw(9, 4, 2), "clean")) == ["FID-clean", "KID-clean", "KID-clean std"]


def test_small_sets_are_taken_whole_with_the_spread_of_halves():
    x, y = draw(40, 8, 1), draw(40, 8, 2)
    found = fid_kid.compare(x, y, "8")
    assert fid_kid.subset_sizes(40, 40) == (40, 20)
    assert found["KID-8"] == fid_kid.kid_full(x, y)
    assert found["KID-8 std"] == fid_kid.kid(x, y, subset_size=20)[1] > 0


@pytest.mark.parametrize(
    ("n", "m", "size", "expected"),
    [(2000, 1500, 1000, (1000, 1000)), (200, 3000, 1000, (200, 200)), (3, 3, 1000, (3, 0)), (50, 50, 10, (10, 10))],
)
def test_subset_sizes(n, m, size, expected):
    assert fid_kid.subset_sizes(n, m, size) == expected


def test_three_images_have_no_spread():
    assert list(fid_kid.compare(draw(3, 4, 1), draw(3, 4, 2), "4")) == ["FID-4", "KID-4"]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.ones((1, 4)), np.ones((9, 4)), "1 images against 9"),
        (np.ones((9, 4)), np.ones((9, 5)), "cannot be compared"),
        (np.ones(9), np.ones(9), "cannot be compared"),
        (np.full((9, 4), np.nan), np.ones((9, 4)), "not finite"),
        (np.ones((9, 4)), np.full((9, 4), np.inf), "not finite"),
    ],
)
def test_features_that_cannot_be_scored_are_refused(x, y, words):
    with pytest.raises(InputError, match=words):
        fid_kid.compare(x, y, "4")


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_statistics_that_are_not_finite_are_refused():
    huge = draw(9, 4, 1) * 1e200
    with pytest.raises(InputError, match="not finite"):
        fid_kid.compare(huge, huge, "4")


def test_a_subset_larger_than_a_set_is_refused():
    with pytest.raises(InputError, match="subset of 10"):
        fid_kid.kid(draw(9, 4, 1), draw(20, 4, 2), subset_size=10)
    with pytest.raises(CardError, match="no pairs"):
        fid_kid.compare(draw(9, 4, 1), draw(20, 4, 2), "4", subset_size=1)


def test_kid_of_many_images_keeps_no_more_than_its_subsets():
    x = np.random.default_rng(0).normal(size=(20_000, 2))
    tracemalloc.start()
    try:
        fid_kid.kid(x, x, subsets=100, subset_size=10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**22  # 100 permutations of both sets would be eight times as much
