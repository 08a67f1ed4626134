"""Differentiable augmentation: shapes stay, seeds repeat, gradients flow, and what belongs together moves alike."""

import pytest
import torch

from facekit.ops import augment

ALL = [augment.shift, augment.colour, augment.cutout, augment.lighting, lambda x: augment.crop(x, 8)]
ALL.append(lambda x: augment.coarse(x, 0.9, 4))


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.rand(4, 3, 16, 16) * 2 - 1


@pytest.mark.parametrize("change", ALL)
def test_the_seed_decides(x, change):
    torch.manual_seed(5)
    first = change(x)
    torch.manual_seed(5)
    assert torch.equal(change(x), first)
    assert not torch.equal(change(x), first)


@pytest.mark.parametrize("change", ALL)
def test_gradients_flow_through(x, change):
    torch.manual_seed(1)
    change(x.requires_grad_()).square().sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("change", ALL[:4])
def test_sizes_stay(x, change):
    assert change(x).shape == x.shape


@pytest.mark.parametrize("change", ALL[:3])
def test_what_belongs_together_changes_alike(x, change):
    torch.manual_seed(3)
    first, second = change(torch.cat([x, x]), together=2).chunk(2)
    torch.testing.assert_close(first, second)


def test_a_shift_moves_and_fills_with_zeros():
    torch.manual_seed(0)
    out = augment.shift(torch.ones(8, 1, 16, 16))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert all(len(image.any(0).nonzero()) >= 14 for image in out[:, 0])


def test_a_cutout_blanks_one_square_of_some_images():
    torch.manual_seed(0)
    out = augment.cutout(torch.ones(200, 3, 20, 20))
    blank = (out == 0).all(1)
    cut = blank.flatten(1).any(1)
    assert 70 < cut.sum() < 130
    for image in blank[cut]:
        rows, columns = image.any(1), image.any(0)
        assert image.sum() == rows.sum() * columns.sum() and 4 <= rows.sum() <= 8 and 4 <= columns.sum() <= 8


def test_a_crop_is_a_part_of_its_image(x):
    torch.manual_seed(0)
    parts = x.unfold(2, 8, 1).unfold(3, 8, 1)  # [4, 3, 9, 9, 8, 8]
    for image, found in zip(parts, augment.crop(x, 8), strict=True):
        assert (image.permute(1, 2, 0, 3, 4) == found).flatten(2).all(2).any()


def test_no_strength_changes_nothing(x):
    torch.testing.assert_close(augment.colour(x, 0.0), x)
    assert torch.equal(augment.shift(x, 0.0), x) and augment.coarse(x, 0.0) is x
    assert torch.equal(augment.cutout(x, 0.0, 1.0), x) and torch.equal(augment.cutout(x, chance=0.0), x)
    torch.testing.assert_close(augment.lighting(x, 0.0), x.clamp(-0.998, 1), atol=1e-5, rtol=0)


def test_light_stays_in_range_and_some_images_turn_grey(x):
    torch.manual_seed(0)
    out = augment.lighting(x.repeat(25, 1, 1, 1))
    assert out.min() >= -1 and out.max() <= 1
    grey = ((out.amax(1) - out.amin(1)).amax((1, 2)) < 1e-5).sum()
    assert 2 <= grey <= 25


def test_some_images_are_shown_from_few_pixels():
    torch.manual_seed(0)
    x = torch.rand(60, 3, 64, 64) * 2 - 1
    out = augment.coarse(x, 0.5)
    changed = (out != x).flatten(1).any(1)
    assert 18 <= changed.sum() <= 42 and out.abs().max() <= 1 and out.shape == x.shape
    step = (out[..., 1:] - out[..., :-1]).square().mean((1, 2, 3))  # what is enlarged from at most half has soft edges
    assert step[changed].max() < 0.5 * step[~changed].min()
    assert step[changed].max() > 2 * step[changed].min()  # from some more than from others
