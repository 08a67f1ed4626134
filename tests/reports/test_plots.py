"""Plots of losses: which scale they take, and that they are drawn."""

import pytest
from PIL import Image

from facekit.reports import plots


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((0.001, 2.0), "log"),
        ((1.0, 1.2), "linear"),
        ((-1.0, 5.0), "linear"),
        ((0.0, 5.0), "linear"),
        ((None, 3.0), "linear"),
    ],
)
def test_the_scale_is_logarithmic_where_positive_values_are_ten_times_apart(tmp_path, monkeypatch, values, scale):
    drawn = []
    write = plots._write
    monkeypatch.setattr(plots, "_write", lambda figure, path: (drawn.append(figure), write(figure, path)))
    plots.losses(tmp_path / "losses.png", [{"step": i, "losses": {"judge": v}} for i, v in enumerate(values)])
    (axes,) = drawn[0].axes
    assert axes.get_yscale() == scale
    assert Image.open(tmp_path / "losses.png").width > 500
