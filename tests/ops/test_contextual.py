"""The contextual loss: its equations written out, what it does not look at, its numbers at the edges, sub-sampling."""

import math

import numpy as np
import pytest
import torch

from facekit.ops.contextual import contextual, points, similarities


def sets(number=2, count=9, channels=4, seed=0, like=0.3):
    """Points y, and x that are near them."""
    torch.manual_seed(seed)
    y = torch.randn(number, count, channels, dtype=torch.float64)
    return y + like * torch.randn_like(y), y


def written_out(x, y, h):
    """Mechrez et al., equations 1 to 6, one number after another."""
    x, y = x.numpy(), y.numpy()
    centre = y.reshape(-1, y.shape[2]).mean(0)
    losses = []
    for points_x, points_y in zip(x - centre, y - centre, strict=True):
        cx = np.zeros((len(points_x), len(points_y)))
        for i, u in enumerate(points_x):
            d = [(1 - u @ v / (np.linalg.norm(u) * np.linalg.norm(v))) / 2 for v in points_y]
            w = [math.exp((1 - distance / (min(d) + 1e-5)) / h) for distance in d]
            cx[i] = [value / sum(w) for value in w]
        losses.append(-math.log(np.mean([cx[:, j].max() for j in range(len(points_y))])))
    return np.mean(losses)


@pytest.mark.parametrize("h", [0.1, 0.5, 1.0])
def test_it_is_the_papers_equations(h):
    for like in (0.1, 1.0):
        x, y = sets(like=like)
        assert contextual(x, y, h).item() == pytest.approx(written_out(x, y, h), rel=1e-9)


def test_points_may_be_fewer_on_one_side():
    x, y = sets()
    assert contextual(x[:, :5], y).item() == pytest.approx(written_out(x[:, :5], y, 0.5), rel=1e-9)


def test_the_nearer_the_smaller():
    values = [contextual(*sets(count=30, channels=16, like=like)).item() for like in (0.0, 0.4, 0.8, 3.0)]
    assert values[0] < 1e-6
    assert values == sorted(values) and values[3] > 10 * values[1] > 0


def test_places_do_not_matter_but_content_does():
    x, y = sets()
    value, order = contextual(x, y), torch.randperm(x.shape[1])
    assert torch.allclose(contextual(x, y[:, order]), value)
    assert torch.allclose(contextual(x[:, order], y), value)
    assert not torch.allclose(contextual(x, y.flip(0)), value)


def test_features_are_compared_by_direction_from_the_mean_of_the_wanted():
    x, y = sets()
    shift = torch.randn(x.shape[2], dtype=x.dtype)
    assert torch.allclose(contextual(x + shift, y + shift), contextual(x, y))
    assert torch.allclose(contextual(5 * x, 5 * y), contextual(x, y))
    centre = y.mean((0, 1))
    assert torch.allclose(contextual(centre + 3 * (x - centre), y), contextual(x, y))
    assert not torch.allclose(contextual(x + shift, y), contextual(x, y))


def test_one_point_for_all_is_as_bad_as_it_gets():
    x, y = sets(count=30)
    same = x[:, :1].expand_as(x)
    assert contextual(x, y) < contextual(same, y) <= math.log(30) + 1e-9


def test_similarities_of_a_point_sum_to_one():
    assert torch.allclose(similarities(*sets()).sum(2), torch.ones(2, 9, dtype=torch.float64))


@pytest.mark.parametrize("case", ["found exactly", "flat image", "flat drawing", "huge", "tiny"])
def test_loss_and_gradient_stay_finite(case):
    x, y = (z.float() for z in sets())
    x = {"found exactly": y.clone(), "flat drawing": y.mean((0, 1)).expand_as(x).clone()}.get(case, x)
    y = {"flat image": torch.ones_like(y)}.get(case, y)
    x, y = (z * {"huge": 1e6, "tiny": 1e-8}.get(case, 1) for z in (x, y))
    x.requires_grad_()
    value = contextual(x, y)
    value.backward()
    assert 0 <= value.item() <= math.log(9) + 1e-5
    assert torch.isfinite(x.grad).all()


def test_a_step_down_its_gradient_lowers_it():
    x, y = sets(like=0.7)
    x.requires_grad_()
    value = contextual(x, y)
    (gradient,) = torch.autograd.grad(value, x)
    assert contextual(x - 0.01 * gradient / gradient.norm(), y) < value


def test_autocast_does_not_coarsen_it():
    x, y = (z.float() for z in sets(count=64, channels=8, like=0.2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = contextual(x, y)
    assert inside.item() == contextual(x, y).item() > 0
    assert inside.item() == pytest.approx(written_out(x.double(), y.double(), 0.5), rel=1e-3)


def test_maps_become_points_and_too_many_are_drawn_from_at_the_same_places():
    x = torch.arange(2 * 3 * 16.0).view(2, 3, 4, 4)
    (whole,) = points(x, most=16)
    assert torch.equal(whole, x.flatten(2).mT)
    torch.manual_seed(0)
    some, negative = points(x, -x, most=5)
    assert some.shape == (2, 5, 3)
    assert torch.equal(some, -negative)
    assert len(set(some[0, :, 0].tolist())) == 5 and set(some[0, :, 0].tolist()) <= set(range(16))
    assert torch.equal(some[1], some[0] + 48)
    torch.manual_seed(1)
    assert not torch.equal(points(x, most=5)[0], some)
