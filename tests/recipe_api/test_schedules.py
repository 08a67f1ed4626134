"""Learning-rate schedules that recipes share."""

import pytest

from facekit.recipe_api.base import Progress
from facekit.recipe_api.schedules import flat_then_linear, warmup_cosine


def test_flat_for_half_of_the_run_then_linear_to_nothing():
    assert [flat_then_linear(share) for share in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]


def test_warmup_rises_in_a_line_and_the_cosine_ends_at_nothing():
    factors = [warmup_cosine(Progress(step, 1000)) for step in range(1001)]
    assert factors[:50] == sorted(factors[:50]) and factors[50:] == sorted(factors[50:], reverse=True)
    assert factors[0] == pytest.approx(1 / 51) and factors[50] == 1
    assert factors[525] == pytest.approx(0.5) and factors[1000] == pytest.approx(0)
