"""A time limit for one HTTP exchange that holds whatever the server does: the connection is cut when it is over.

Socket timeouts alone do not bound an exchange: they start again with every byte that arrives.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

POLLED = 0.1  # s, between two looks at whether the time is over
_running = threading.local()


class Deadline:
    """Cuts the connections that the current thread uses after `seconds`, or when `cut` is called by any thread."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.over = False
        self.lock = threading.Lock()
        self.wires: list[socket.socket] = []
        self.timer = threading.Timer(seconds, self.cut)
        self.timer.daemon = True

    def watch(self, wire: socket.socket) -> None:
        """Cut this connection too when the time is over."""
        with self.lock:
            self.wires.append(wire)
        if self.over:
            self.cut()

    def cut(self) -> None:
        """End the exchange now: whoever waits for the server goes on with an error or the end of the data."""
        with self.lock:
            self.over = True
            for wire in self.wires:
                with contextlib.suppress(OSError):  # it is closed
                    wire.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Apply to the connections that this thread opens or uses while the block runs."""
        _running.deadline = self
        self.timer.start()
        try:
            yield
        finally:
            _running.deadline = None
            self.timer.cancel()


def watch(wire: socket.socket) -> None:
    """Put a connection under the deadline of the current thread, if there is one."""
    deadline = getattr(_running, "deadline", None)
    if deadline is not None:
        deadline.watch(wire)


def connected(connect: Callable[[], socket.socket]) -> socket.socket:
    """Return the connection that `connect` opens; raises what it raises, TimeoutError when the time is over.

    A name server may take minutes and cannot be interrupted: `connect` has a thread of its own, which is left behind.
    """
    deadline = getattr(_running, "deadline", None)
    if deadline is None:
        return connect()
    found: futures.Future[socket.socket] = futures.Future()

    def run() -> None:
        try:
            found.set_result(connect())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, daemon=True, name="connect").start()
    while not deadline.over:
        if futures.wait([found], POLLED).done:
            return found.result()
    found.add_done_callback(_close)
    raise TimeoutError("connecting took too long")


def _close(found: futures.Future[socket.socket]) -> None:
    """Close a connection that came too late."""
    if found.exception() is None:
        found.result().close()
