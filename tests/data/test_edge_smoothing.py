"""Edge smoothing: equal to the published per-pixel loop, and nothing but edges changes."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

import toy
from facekit.data import edge_smoothing

KERNEL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def reference(pixels: np.ndarray) -> np.ndarray:
    """Smooth pixel by pixel, as the scripts published with CartoonGAN and AnimeGAN do."""
    found = cv2.Canny(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), 100, 200)
    height, width = found.shape
    padded = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    out = pixels.copy()
    for y in range(height):
        for x in range(width):
            if found[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].any():
                for channel in range(3):
                    out[y, x, channel] = np.sum(np.multiply(padded[y : y + 5, x : x + 5, channel], KERNEL))
    return out


PICTURES = {
    "drawing": toy.drawing(),
    "upright": toy.drawing(50, 80, 1),
    "photo": astronaut()[:100, 180:280],
    "noise": np.random.default_rng(0).integers(0, 256, (40, 41, 3), dtype=np.uint8),
    "soft": np.asarray(toy.picture(48)),
    "narrow": toy.drawing(60, 3, 2),
}


@pytest.mark.parametrize("name", PICTURES)
def test_it_equals_the_per_pixel_loop_to_the_bit(name):
    smoothed, _ = edge_smoothing.smooth(PICTURES[name])
    np.testing.assert_array_equal(smoothed, reference(PICTURES[name]))


def test_the_kernel_is_opencvs_own_for_size_5_and_sigma_0():
    """OpenCV has a table for it; its formula for sigma, 1.1, would give another."""
    kernel = cv2.getGaussianKernel(5, 0)
    np.testing.assert_array_equal(kernel @ kernel.T, KERNEL)
    assert np.abs(cv2.getGaussianKernel(5, 1.1) - kernel).max() > 0.005


@pytest.mark.parametrize("backend", ["opencv", "skimage"])
def test_an_image_of_one_colour_stays_as_it_is(backend):
    flat = np.full((32, 40, 3), (255, 3, 77), np.uint8)
    smoothed, share = edge_smoothing.smooth(flat, backend)
    np.testing.assert_array_equal(smoothed, flat)
    assert share == 0


@pytest.mark.parametrize("backend", ["opencv", "skimage"])
def test_only_pixels_near_an_edge_change(backend):
    halves = np.zeros((40, 40, 3), np.uint8)
    halves[:, 20:] = 255
    smoothed, share = edge_smoothing.smooth(halves, backend)
    changed = np.flatnonzero((smoothed != halves).any(axis=(0, 2)))
    assert changed.tolist() == [18, 19, 20, 21]  # the Gaussian reaches two pixels over the edge
    row = smoothed[20, 16:24, 0].astype(int)
    assert (np.diff(row) >= 0).all() and np.diff(row).max() < 128
    assert 0.1 < share < 0.2


def test_values_are_floored():
    line = np.zeros((9, 9, 3), np.uint8)
    line[:, 4] = 255
    smoothed, _ = edge_smoothing.smooth(line)
    assert smoothed[4, 2:7, 0].tolist() == [15, 63, 95, 63, 15]  # 255 / 16 = 15.94, 63.75, 95.63


def test_the_input_is_left_alone():
    pixels = toy.drawing()
    before = pixels.copy()
    edge_smoothing.smooth(pixels)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("backend", ["opencv", "skimage"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (5, 1)])
def test_the_smallest_images_are_smoothed_too(backend, shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    smoothed, share = edge_smoothing.smooth(pixels, backend)
    assert smoothed.shape == pixels.shape and smoothed.dtype == np.uint8 and 0 <= share <= 1


def test_scikit_image_sees_fainter_lines():
    faint = np.full((40, 40, 3), 200, np.uint8)
    faint[:, 20:] = 160
    assert edge_smoothing.smooth(faint)[1] == 0
    assert edge_smoothing.smooth(faint, "skimage")[1] > 0.1


def test_scikit_image_blurs_with_sigma_1_1_over_5_px():
    line = np.zeros((15, 15, 3), np.uint8)
    line[:, 7] = 255
    weights = np.exp(-0.5 * (np.arange(-2, 3) / 1.1) ** 2)
    smoothed, _ = edge_smoothing.smooth(line, "skimage")
    assert smoothed[7, 5:10, 0].tolist() == (255 * weights / weights.sum()).round().astype(int).tolist()
