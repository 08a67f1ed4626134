"""Ctrl-C and SIGTERM: the first stops the work in order, a second ends the process within seconds."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

GRACE = 5.0  # seconds that winding up may take after the second signal
CODE = 130


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at the first SIGINT or SIGTERM, and at no later one.

    After the second, the process and its workers are killed if they are still there GRACE seconds later.
    """
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt
        if len(received) == 2:
            _end_soon()

    old = {}
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if not received:  # else the process is about to end, and must not be disturbed
            for number, handler in old.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def collected() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that is given; the second raises KeyboardInterrupt, as above.

    Of the processes of a `torchrun` each gets a signal from the terminal and one from the launcher: the second is the
    same request.
    """
    received: list[int] = []
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1

    def note(number: int, frame: object) -> None:
        received.append(number)
        if len(received) == 2 and alone:
            _end_soon()
            raise KeyboardInterrupt

    old = {}
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        if len(received) < 2:
            for number, handler in old.items():
                signal.signal(number, handler)


def _end_soon() -> None:
    timer = threading.Timer(GRACE, _end_now)
    timer.daemon = True
    timer.start()


def _end_now() -> None:
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(CODE)
