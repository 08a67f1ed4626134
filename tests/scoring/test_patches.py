"""Patch sliced Wasserstein distance: known values, and which level sees what."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.stats import wasserstein_distance

import toy
from facekit.errors import InputError
from facekit.scoring import patches
from facekit.scoring.image_set import ImageSet


def noisy(folder, change=lambda image: image, count=12, size=64, seed=0):
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).resize((size, size))
        pixels = np.asarray(coarse, float) + draw.normal(0, 20, (size, size, 3))
        change(Image.fromarray(pixels.clip(0, 255).astype(np.uint8))).save(folder / f"{number:02}.png")
    return ImageSet(folder)


def measure(x, y, **options):
    return patches.measure(x, y, **({"resize": None, "resamples": None, "seed": 0} | options))


def test_equal_sets_are_at_distance_0_at_every_level(tmp_path):
    x = noisy(tmp_path / "x")
    assert measure(x, noisy(tmp_path / "y")) == {"SWD-64": 0, "SWD-32": 0, "SWD-16": 0, "SWD": 0}


@pytest.mark.slow
def test_blur_is_seen_at_the_finest_level_and_more_the_stronger_it_is(tmp_path):
    x = noisy(tmp_path / "x")
    found = [
        measure(x, noisy(tmp_path / f"{radius}", lambda image, r=radius: image.filter(ImageFilter.GaussianBlur(r))))
        for radius in (0.4, 0.8, 1.6)
    ]
    finest = [one["SWD-64"] for one in found]
    assert finest == sorted(finest) and finest[0] > 10
    assert all(one["SWD-64"] > 3 * one["SWD-16"] for one in found)


def test_along_one_direction_it_is_the_wasserstein_distance():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(4, 10, 3)), draw.normal(1, 2, size=(4, 10, 3))
    direction = np.array([[0.6], [0.0], [0.8]])
    expected = wasserstein_distance((x @ direction).ravel(), (y @ direction).ravel())
    assert patches.distance(x, y, direction) == pytest.approx(1000 * expected)
    assert patches.distance(x, np.concatenate([x, x]), direction) == pytest.approx(0, abs=1e-9)  # sets of two sizes


def test_the_pyramid_splits_an_image_into_details_and_a_rest():
    flat = patches.pyramid(np.full((64, 64, 3), 9, np.float32))
    assert [level.shape[0] for level in flat] == [64, 32, 16]
    assert [float(np.abs(level).max()) for level in flat] == pytest.approx([0, 0, 9], abs=1e-4)
    stripes = np.zeros((64, 64, 3), np.float32)
    stripes[:, ::2] = 100
    energy = [float(level.std()) for level in patches.pyramid(stripes)]
    assert energy[0] > 20 * max(energy[1:])


@pytest.mark.slow
def test_the_deviation_shrinks_with_more_images(tmp_path):
    found = [
        measure(noisy(tmp_path / f"x{n}", count=n), noisy(tmp_path / f"y{n}", count=n, seed=9), resamples=20)[
            "SWD-16 std"
        ]
        for n in (6, 48)
    ]
    assert 0 < found[1] < 0.7 * found[0]


def test_tiny_images_are_refused(tmp_path):
    toy.fill(tmp_path / "x", 3, size=12)
    with pytest.raises(InputError, match="16 px"):
        measure(ImageSet(tmp_path / "x"), ImageSet(tmp_path / "x"))
