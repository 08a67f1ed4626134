"""NaN never gets into JSON."""

import json
import math

import numpy as np
import pytest

from facekit.runtime import strict_json

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NAN, "null"),
        ({"a": [1.5, -INF, {"b": (NAN, 2)}]}, '{"a": [1.5, null, {"b": [null, 2]}]}'),
        ({"a": np.float64("nan"), "b": True}, '{"a": null, "b": true}'),
        ({"a": 1e308}, '{"a": 1e+308}'),
    ],
)
def test_what_json_does_not_have_is_null(value, text):
    assert strict_json.dumps(value) == text


def test_options_are_those_of_json():
    assert strict_json.dumps({"b": NAN, "a": "é"}, sort_keys=True, ensure_ascii=False) == '{"a": "é", "b": null}'
    with pytest.raises(TypeError):
        strict_json.dumps({"a": object()})
    assert json.loads(strict_json.dumps({"a": object(), "b": INF}, default=lambda found: "x")) == {"a": "x", "b": None}
