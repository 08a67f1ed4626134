"""What is freed goes back to the system where more is held than was needed before, and only there."""

import sys

import numpy as np
import pytest
import torch

from facekit.runtime import control_groups, memory


@pytest.fixture
def gifts(monkeypatch):
    """Which amounts of memory were held, in MB, at calls, and a list of those that gave back."""
    held, given = [], []
    monkeypatch.setattr(memory, "resident", lambda: held[0] * 2**20)
    monkeypatch.setattr(memory, "trim", lambda: lambda pad: given.append(held.pop(0)))
    return held, given


def test_it_gives_back_only_what_is_more_than_ever_needed_at_a_place(gifts):
    held, given = gifts
    job = memory.Heap(always=True)
    for before, after, gives in [
        (900, 500, True),
        (530, 0, False),
        (900, 500, True),
        (700, 600, True),
        (630, 0, False),
    ]:
        held[:] = [before, after]
        job.give_back("here")
        assert bool(given) == gives
        given.clear()
    held[:] = [300, 200]
    job.give_back("there")
    assert given == [300]


@pytest.mark.parametrize(("left", "gives"), [(901, False), (899, True), (None, True)])
def test_it_gives_back_only_where_memory_is_short(gifts, monkeypatch, left, gives):
    held, given = gifts
    monkeypatch.setattr(memory, "available_memory", lambda: left and left * 2**20)
    held[:] = [900, 500]
    memory.Heap().give_back("here")
    assert bool(given) == gives


@pytest.mark.skipif(not memory.trim(), reason="this C library cannot give memory back")
def test_memory_in_pieces_goes_back():
    large, small = [], []
    for _ in range(400):
        large.append(torch.ones(100_000))  # 0.4 MB
        small.append(torch.ones(1000))  # stays, so that what is free around it is in pieces
    full = memory.resident()
    large.clear()
    memory.Heap(always=True).give_back("")
    assert full - memory.resident() > 100e6


def test_without_such_a_library_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    memory.trim.cache_clear()
    try:
        memory.Heap().give_back("here")
        assert memory.trim() is None
    finally:
        memory.trim.cache_clear()


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Makes the control groups of this process: `own` is what the system says of this process's groups."""

    def make(own: str, files: dict[str, str]):
        (tmp_path / "own").write_text(own)
        monkeypatch.setattr(control_groups, "OWN", tmp_path / "own")
        monkeypatch.setattr(control_groups, "MOUNT", tmp_path / "mount")
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    return make


V2 = {"job/step/memory.max": "3000", "job/step/memory.current": "1000"}
V1 = {"memory/job/memory.limit_in_bytes": "3000", "memory/job/memory.usage_in_bytes": "1000"}


@pytest.mark.parametrize(
    ("own", "files", "free"),
    [
        ("0::/job/step", V2, 2000),
        ("0::/job/step", {**V2, "job/step/memory.stat": "anon 5\ninactive_file 300"}, 2300),  # files can be dropped
        ("0::/job/step", {**V2, "job/memory.max": "1500", "job/memory.current": "1100"}, 400),  # of the group above
        ("0::/job/step", {**V2, "job/memory.max": "max", "job/memory.current": "1100"}, 2000),
        ("0::/job/step", {**V2, "job/step/memory.high": "1800"}, 800),  # from there on the job is slowed down
        ("0::/job/step", {**V2, "job/step/memory.current": "4000"}, 0),
        ("0::/", {"memory.max": "3000", "memory.current": "2900"}, 100),  # a container sees its group as the root
        ("4:cpu,memory:/job\n0::/", V1, 2000),
        ("4:memory:/docker/abc", {f"memory/{name[11:]}": text for name, text in V1.items()}, 2000),  # the host's path
        ("4:memory:/job", {**V1, "memory/job/memory.stat": "total_inactive_file 7"}, 2007),
        ("4:cpu:/job", V1, None),
    ],
)
def test_a_job_may_take_no_more_than_its_control_groups_let_it(groups, own, files, free):
    groups(own, files)
    found = memory.available_memory()
    assert found == free if free is not None else found is None or found > 10_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mapped_array_that_is_let_go_takes_no_memory_and_keeps_its_content(tmp_path):
    array = np.memmap(tmp_path / "file", np.uint8, "w+", shape=2**26)
    array[:] = 7
    held = memory.resident()
    memory.let_go(np.asarray(array)[5:])
    assert held - memory.resident() > 2**25
    assert (array == 7).all() and (np.fromfile(tmp_path / "file", np.uint8) == 7).all()


def test_of_an_array_in_memory_nothing_is_let_go():
    array = np.arange(1000)
    memory.let_go(array[3:])
    assert array.sum() == 499500
