"""Files of JSON lines."""

import pytest

from facekit.storage import jsonl

ROWS = [{"file": "a.png", "n": 1.0}, {"file": "ü\x1b\udcff.png", "reasons": []}]


def test_a_file_holds_what_was_written(tmp_path):
    jsonl.write(tmp_path / "rows.jsonl", ROWS)
    assert jsonl.holds(tmp_path / "rows.jsonl", ROWS) and jsonl.holds(tmp_path / "rows.jsonl", iter(ROWS))
    jsonl.write(tmp_path / "rows.jsonl", [])
    assert jsonl.holds(tmp_path / "rows.jsonl", [])


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[::-1], [*ROWS, ROWS[0]], [ROWS[0], {**ROWS[1], "n": 2}], []])
def test_a_file_of_other_rows_does_not_hold_them(tmp_path, rows):
    jsonl.write(tmp_path / "rows.jsonl", ROWS)
    assert not jsonl.holds(tmp_path / "rows.jsonl", rows)


def test_a_file_that_is_cut_or_missing_holds_nothing(tmp_path):
    assert not jsonl.holds(tmp_path / "rows.jsonl", [])
    jsonl.write(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "rows.jsonl").write_bytes((tmp_path / "rows.jsonl").read_bytes()[:-1])
    assert not jsonl.holds(tmp_path / "rows.jsonl", ROWS)
