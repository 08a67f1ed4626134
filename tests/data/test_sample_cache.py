"""Decoded samples come back as they were, to every process, or not at all."""

import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from facekit.data.sample_cache import ALIGNED, SampleCache
from facekit.runtime import shared_memory

KINDS = {
    "an image": {"a": np.arange(300, dtype=np.uint8).reshape(10, 10, 3)},
    "an image and what it is": {"a": np.ones((2, 2, 3), np.uint8), "a_roll": np.array(0.25, np.float32)},
    "no faces": {"a": np.zeros((3, 5, 3), np.uint8), "a_faces": np.zeros((0, 15), np.float32)},
    "a view of another array": {"a": np.arange(48, dtype=np.uint8).reshape(4, 4, 3)[:, ::-1], "n": np.arange(9)[::2]},
}


def same(one, two) -> bool:
    return list(one) == list(two) and all(
        one[name].dtype == two[name].dtype and np.array_equal(one[name], two[name]) for name in one
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_comes_back_as_it_was(kind):
    cache = SampleCache(3, 10_000)
    assert cache.get(1) is None and len(cache) == 0
    cache.keep(1, KINDS[kind])
    assert same(cache.get(1), KINDS[kind]) and cache.get(0) is cache.get(2) is None and len(cache) == 1


def test_samples_of_different_kinds_lie_beside_each_other():
    cache = SampleCache(len(KINDS), 10_000)
    for number, sample in enumerate(KINDS.values()):
        cache.keep(number, sample)
    assert all(same(cache.get(number), sample) for number, sample in enumerate(KINDS.values()))


def test_what_comes_back_cannot_be_written_to():
    cache = SampleCache(1, 10_000)
    cache.keep(0, KINDS["an image"])
    with pytest.raises(ValueError, match="read-only"):
        cache.get(0)["a"][0] = 0


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (6 * ALIGNED - 1, 0), (6 * ALIGNED, 1), (13 * ALIGNED, 2)])
def test_it_keeps_as_many_as_there_is_room_for(room, kept):
    cache = SampleCache(5, room)
    for number in range(5):
        cache.keep(number, KINDS["an image"])
    assert len(cache) == kept and all(same(cache.get(number), KINDS["an image"]) for number in range(kept))


def test_without_memory_nothing_is_kept(monkeypatch):
    def fail(size):
        raise OSError("no memory")

    monkeypatch.setattr(shared_memory, "allocate", fail)
    cache = SampleCache(5, 10_000)
    cache.keep(3, KINDS["an image"])
    assert len(cache) == 0 and cache.get(3) is None


def test_a_sample_that_was_not_written_whole_is_not_there(monkeypatch):
    cache = SampleCache(2, 10_000)

    class Stops:
        def __setitem__(self, where, piece):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cache, "_bytes", Stops())
        with pytest.raises(KeyboardInterrupt):
            cache.keep(0, KINDS["an image"])
    assert cache.get(0) is None
    cache.keep(0, KINDS["no faces"])
    assert same(cache.get(0), KINDS["no faces"])


def test_threads_that_keep_at_once_do_not_disturb_each_other():
    cache = SampleCache(64, 1e6)
    samples = [{"a": np.full((20, 20, 3), number, np.uint8)} for number in range(64)]

    def work(first):
        for number in (*range(first, 64), *range(first)):
            cache.keep(number, samples[number])
            assert same(cache.get(number), samples[number])

    threads = [threading.Thread(target=work, args=(16 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 64 and all(same(cache.get(number), sample) for number, sample in enumerate(samples))


def fill(cache, started):
    """Keep samples of one value each, without end."""
    for number in range(len(cache._places)):
        cache.keep(number, {"a": np.full((256, 256, 3), number % 256, np.uint8)})
        started.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="two processes with the same memory, by fork")
def test_a_process_that_is_killed_leaves_whole_samples():
    cache = SampleCache(2000, 500e6)
    forked = multiprocessing.get_context("fork")
    started = forked.Event()
    process = forked.Process(target=fill, args=(cache, started))
    process.start()
    assert started.wait(60)
    time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = [(number, cache.get(number)) for number in range(2000)]
    assert sum(sample is not None for _, sample in kept) == len(cache) >= 1
    assert all((sample["a"] == number % 256).all() for number, sample in kept if sample)
