"""An output folder has one holder: a second is refused with the first one's name, a dead one is taken over."""

import errno
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time

import filelock
import pytest

import toy
from facekit.errors import OutputError
from facekit.storage import lock

HOLD = """
import sys, time
from pathlib import Path
from facekit.storage import lock
with lock.held(Path(sys.argv[1]), "align"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `out`."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_command_is_refused_and_names_who_holds_the_folder(facekit, tmp_path, holder):
    toy.fill(tmp_path / "in", 1)
    done = facekit("smooth-edges", tmp_path / "in", tmp_path / "out")
    assert done.code == 3 and "in use: align" in done.err
    assert f"process {holder.pid} on {platform.node()}, since 20" in done.err and "next: wait" in done.err
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_killed_holder_is_taken_over(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / lock.NAME).exists()
    with lock.held(tmp_path / "out", "clean"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_the_same_process_may_hold_twice_and_holds_until_the_outer_end(tmp_path):
    with lock.held(tmp_path, "clean"):
        with lock.held(tmp_path, "clean"):
            pass
        assert (tmp_path / lock.NAME).exists()
    assert not (tmp_path / lock.NAME).exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    with lock.held(tmp_path, "align"):
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
    with lock.held(tmp_path, "align"):
        pass
    worker.kill()
    worker.join()


def test_waiting_takes_the_lock_when_it_is_free(tmp_path, holder):
    with pytest.raises(OutputError, match="in use"), lock.held(tmp_path / "out", "align", wait=0.2):
        pass
    holder.kill()
    with lock.held(tmp_path / "out", "align", wait=10):
        pass


def test_a_file_system_that_cannot_lock_is_named_and_the_work_is_done(facekit, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.ENOLCK, "No locks available")

    toy.fill(tmp_path / "in", 1)
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    done = facekit("smooth-edges", tmp_path / "in", tmp_path / "out")
    assert done.code == 0 and "cannot lock files" in done.err and (tmp_path / "out/000.png").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(OutputError, match="read-only"), lock.held(tmp_path, "align"):
        pass
