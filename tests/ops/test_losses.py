"""Losses against their closed forms."""

import math

import pytest
import torch

from facekit.ops import losses

X = torch.tensor([[0.5, -1.0], [2.0, 0.0]])


def test_lsgan_is_the_mean_square_without_a_half():
    assert losses.lsgan(X, True).item() == pytest.approx((0.25 + 4 + 1 + 1) / 4)
    assert losses.lsgan(X, False).item() == pytest.approx((0.25 + 1 + 4 + 0) / 4)


def test_binary_is_cross_entropy_of_the_sigmoid():
    expected = -sum(math.log(1 / (1 + math.exp(-v))) for v in X.flatten().tolist()) / 4
    assert losses.binary(X, True).item() == pytest.approx(expected)
    assert losses.binary(X, False).item() == pytest.approx(losses.binary(-X, True).item())
    assert losses.binary(torch.tensor([1000.0]), False).item() == pytest.approx(1000)


def test_l1_is_the_mean_difference():
    assert losses.l1(X, torch.zeros(2, 2)).item() == pytest.approx(3.5 / 4)
    assert losses.l1(X, X).item() == 0


def test_hinge_stops_at_the_margin():
    assert losses.hinge_d(X, X).item() == pytest.approx((0.5 + 2 + 0 + 1) / 4 + (1.5 + 0 + 3 + 1) / 4)
    assert losses.hinge_d(torch.full((3,), 1.0), torch.full((3,), -1.0)).item() == 0
    assert losses.hinge_g(X).item() == pytest.approx(-1.5 / 4)


def test_patch_nce_of_unrelated_places_is_the_logarithm_of_their_number():
    query = torch.zeros(2, 7, 4)
    query[..., 0] = 1
    assert losses.patch_nce(query, query).item() == pytest.approx(math.log(7))


def test_patch_nce_is_near_zero_for_matching_places_and_large_for_swapped_ones():
    query = torch.eye(5)[None]
    expected = -math.log(math.exp(1 / 0.07) / (math.exp(1 / 0.07) + 4))
    assert losses.patch_nce(query, query, 0.07).item() == pytest.approx(expected, abs=1e-6)
    assert losses.patch_nce(query, query.flip(1), 0.07).item() > 5


def test_patch_nce_gives_the_key_no_gradient():
    query, key = torch.rand(1, 4, 3, requires_grad=True), torch.rand(1, 4, 3, requires_grad=True)
    losses.patch_nce(query, key).backward()
    assert query.grad is not None
    assert key.grad is None


@pytest.mark.parametrize("loss", [lambda x: losses.lsgan(x, True), lambda x: losses.binary(x, True), losses.hinge_g])
def test_sums_of_16_bit_numbers_are_made_in_32(loss):
    x = torch.full((4096,), 0.1, dtype=torch.bfloat16)
    assert loss(x).dtype == torch.float32
    assert loss(x).item() == pytest.approx(loss(x.double()).item(), rel=1e-5)
    assert loss(x.double()).dtype == torch.float64
