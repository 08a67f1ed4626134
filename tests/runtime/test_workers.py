"""Workers end with the command that started them, however it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from facekit.errors import Interrupted, OutOfMemory
from facekit.runtime.workers import in_order, pool_of, stoppable

PARENT = """
import os, sys, time
from facekit.runtime.workers import pool_of
def work(seconds):
    os.write(1, b"%d\\n" % os.getpid())  # at once: the other worker writes, too
    time.sleep(seconds)
if __name__ == "__main__":
    with pool_of(2, processes=True) as pool:
        waiting = [pool.submit(work, 60) for _ in range(2)]
        waiting[0].result()
"""


def double(number: int) -> int:
    return 2 * number


def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_their_parent_does(tmp_path, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    signal.signal(signal.SIGINT, before)
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.send_signal(number)
    parent.wait(20)
    end = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def test_results_come_in_order_and_only_so_many_are_taken_ahead():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    with pool_of(3, processes=False) as pool:
        for number, result in in_order(pool, double, items(), ahead=4):
            assert result == 2 * number and len(taken) <= number + 5
    assert len(taken) == 20


def test_a_killed_worker_is_out_of_memory():
    with (
        pytest.raises(OutOfMemory, match="test: a worker process was killed"),
        stoppable("test", lambda: "0 images"),
        pool_of(2, processes=True) as pool,
    ):
        list(in_order(pool, die, [1], 2))


def test_ctrl_c_says_how_far_the_work_is():
    with pytest.raises(Interrupted, match="test: stopped after 3 images"), stoppable("test", lambda: "3 images"):
        raise KeyboardInterrupt
