"""A job takes the cores that it may use and that others leave free."""

import os

import pytest

from facekit.errors import CardError
from facekit.runtime import control_groups, cores, device


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes a machine: cores of it, cores that this process may use, its load, its control group's quota."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def make(count=8, own=8, load=0.0, quota="max 100000"):
        (tmp_path / "cpu.max").write_text(quota + "\n")
        monkeypatch.setattr(control_groups, "folders", lambda controller: [tmp_path / "no such group", tmp_path])
        monkeypatch.setattr(os, "cpu_count", lambda: count)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(own)), raising=False)
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)

    return make


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({}, 8),
        ({"own": 2}, 2),
        ({"quota": "150000 100000"}, 2),
        ({"quota": "50000 100000"}, 1),
        ({"load": 5.2}, 3),
        ({"load": 30.0}, 1),
        ({"own": 4, "load": 3.0}, 4),
    ],
)
def test_threads_are_the_cores_that_are_usable_and_free(machine, given, threads):
    machine(**given)
    assert cores.choose_threads()[0] == threads


def test_what_is_asked_for_counts_more(machine, monkeypatch):
    machine(load=30.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert cores.choose_threads()[0] == 4
    assert cores.choose_threads(3)[0] == 3


def test_a_system_without_affinity_and_load_has_all_its_cores(machine, monkeypatch):
    machine(count=5)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "getloadavg")
    assert cores.choose_threads()[0] == 5


def test_a_missing_device_is_refused():
    with pytest.raises(CardError, match="no device 'cuda:77' here"):
        device.find_device("cuda:77")
