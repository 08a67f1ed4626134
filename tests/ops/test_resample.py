"""Resampling by FIR filters, against zero insertion and a dense filter written out."""

import pytest
import torch
import torch.nn.functional as F

from facekit.ops.resample import blur, upsample


def filtered(x, up, pad, down, gain):
    """Insert zeros, pad, filter with the outer product of 1 3 3 1, keep every `down`-th sample."""
    n, c, h, w = x.shape
    wide = x.new_zeros(n, c, h * up, w * up)
    wide[:, :, ::up, ::up] = x
    wide = F.pad(wide, (pad[0], pad[1], pad[0], pad[1]))
    taps = torch.tensor([1.0, 3, 3, 1], dtype=x.dtype)
    kernel = (torch.outer(taps, taps) / 64 * gain).expand(c, 1, 4, 4)
    return F.conv2d(wide, kernel, groups=c)[:, :, ::down, ::down]


def test_upsampling_inserts_zeros_and_filters():
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    assert torch.allclose(upsample(x), filtered(x, 2, (2, 1), 1, 4.0))


@pytest.mark.parametrize(("pad", "down", "gain"), [(1, 1, 4.0), (2, 1, 1.0), (1, 2, 1.0)])
def test_blurring_filters_padded_images(pad, down, gain):
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    assert torch.allclose(blur(x, pad, gain, down), filtered(x, 1, (pad, pad), down, gain))


def test_a_constant_stays_inside():
    assert torch.allclose(upsample(torch.ones(1, 1, 8, 8))[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 12))
