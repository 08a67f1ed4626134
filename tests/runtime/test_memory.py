"""What is freed goes back to the system where more is held than was needed before, and only there."""

import pytest
import torch

from facekit.runtime import memory


@pytest.fixture
def gifts(monkeypatch):
    """Which amounts of memory were held, in MB, at calls, and a list of those that gave back."""
    held, given = [], []
    monkeypatch.setattr(memory, "resident", lambda: held[0] * 2**20)
    monkeypatch.setattr(memory, "trim", lambda: lambda pad: given.append(held.pop(0)))
    return held, given


def test_it_gives_back_only_what_is_more_than_ever_needed_at_a_place(gifts):
    held, given = gifts
    job = memory.Heap()
    for before, after, gives in [
        (900, 500, True),
        (560, 0, False),
        (900, 500, True),
        (700, 600, True),
        (660, 0, False),
    ]:
        held[:] = [before, after]
        job.give_back("here")
        assert bool(given) == gives
        given.clear()
    held[:] = [300, 200]
    job.give_back("there")
    assert given == [300]


@pytest.mark.skipif(not memory.trim(), reason="this C library cannot give memory back")
def test_memory_in_pieces_goes_back():
    large, small = [], []
    for _ in range(400):
        large.append(torch.ones(100_000))  # 0.4 MB
        small.append(torch.ones(1000))  # stays, so that what is free around it is in pieces
    full = memory.resident()
    large.clear()
    memory.Heap().give_back("")
    assert full - memory.resident() > 100e6


def test_without_such_a_library_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    memory.trim.cache_clear()
    try:
        memory.Heap().give_back("here")
        assert memory.trim() is None
    finally:
        memory.trim.cache_clear()


def test_a_job_may_take_no_more_than_its_control_group_lets_it(tmp_path, monkeypatch):
    limit, use = tmp_path / "memory.max", tmp_path / "memory.current"
    use.write_text("1000\n")
    stat = tmp_path / "memory.stat"
    monkeypatch.setattr(memory, "CGROUPS", ((str(limit), str(use), str(stat), "inactive_file"),))
    limit.write_text("3000\n")
    assert memory.available_memory() == 2000
    stat.write_text("anon 5\ninactive_file 300\n")  # pages of files that the system can drop
    assert memory.available_memory() == 2300
    limit.write_text("max\n")
    assert memory.available_memory() != 2000
