"""Processes of one machine get the same memory, or each its own where that cannot be."""

import os

import pytest

from facekit.runtime import distributed, shared_memory


@pytest.fixture
def two_here(monkeypatch):
    """Makes this process the one of `number` among two on its machine; the first one says `text`."""
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    monkeypatch.setattr(distributed, "local_size", lambda: 2)

    def become(number, text=None):
        said = []
        monkeypatch.setattr(distributed, "local_rank", lambda: number)
        monkeypatch.setattr(
            distributed, "from_first_here", lambda own: said.append(own) or (own if text is None else text)
        )
        return said

    return become


def test_one_process_has_all_of_it():
    shared = shared_memory.allocate(5000)
    assert len(shared.memory) == 5000 and (shared.part, shared.parts) == (0, 1)
    assert not any(shared.memory[:])


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="shared on Linux alone")
def test_the_second_process_sees_what_the_first_writes_and_takes_its_size(two_here):
    descriptor = os.memfd_create("facekit-test")
    os.ftruncate(descriptor, 5000)
    two_here(1, f"/proc/{os.getpid()}/fd/{descriptor} facekit-test")
    shared = shared_memory.allocate(9000)
    os.pwrite(descriptor, b"abc", 100)
    os.close(descriptor)
    assert len(shared.memory) == 5000 and shared.memory[100:103] == b"abc" and (shared.part, shared.parts) == (1, 2)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="shared on Linux alone")
def test_the_first_process_leaves_no_file_open(two_here):
    before = len(os.listdir("/proc/self/fd"))
    said = two_here(0)
    shared = shared_memory.allocate(5000)
    assert said[0].startswith("/proc/") and (shared.part, shared.parts) == (0, 2)
    shared.memory.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("text", ["", "/proc/0/fd/3 facekit-gone"], ids=["none", "gone"])
def test_where_nothing_can_be_shared_each_has_its_own_and_fills_half(two_here, text):
    two_here(1, text)
    shared = shared_memory.allocate(5000)
    assert len(shared.memory) == 5000 and (shared.part, shared.parts) == (0, 2)


def test_a_file_of_another_name_is_not_opened(two_here, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "precious").write_bytes(b"precious")
    two_here(1, f"{tmp_path / 'link'} facekit-0123")
    shared_memory.allocate(5000).memory[:8] = b"replaced"
    assert (tmp_path / "precious").read_bytes() == b"precious"
