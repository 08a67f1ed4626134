"""Labels of many images take an index each, and a row of numbers only when it is asked for."""

from pathlib import Path

import numpy as np
import pytest

from facekit.data.label_table import LabelTable

HAS = {Path("a"): ("young", "smile"), Path("b"): (), Path("c"): ("smile", "unknown")}


def test_an_image_has_a_one_for_each_of_its_labels():
    table = LabelTable(("smile", "old", "young"), HAS)
    assert table[Path("a")].tolist() == [1, 0, 1] and table[Path("a")].dtype == np.float32
    assert table[Path("b")].tolist() == [0, 0, 0]
    assert table[Path("c")].tolist() == [1, 0, 0]
    assert list(table) == list(HAS) and len(table) == 3 and Path("d") not in table


def test_images_come_by_label_and_are_counted():
    table = LabelTable(("smile", "old", "young"), HAS)
    paths = [Path("c"), Path("a"), Path("b")]
    assert table.by_label(paths) == {"smile": [Path("c"), Path("a")], "old": [], "young": [Path("a")]}
    assert table.counts(paths) == {"smile": 2, "old": 0, "young": 1}


@pytest.mark.parametrize(("labels", "each"), [(2, 1), (256, 1), (257, 2), (70_000, 4)])
def test_an_index_takes_as_few_bytes_as_the_labels_need(labels, each):
    names = [str(k) for k in range(labels)]
    has = {Path(str(i)): (names[-1],) for i in range(100)}
    table = LabelTable(names, has)
    assert table.nbytes == 100 * each + 8 * 101
    assert table[Path("7")].argmax() == labels - 1
