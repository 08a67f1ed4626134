"""A queue of files that threads put into a store; whoever adds to it waits while too much is waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable

MOST = 256 * 2**20  # bytes that wait; one file may be larger


class Uploader:
    """Calls `send` with each name that is added, in `threads` threads; one thread keeps the order.

    After the first failure nothing more is sent, and `add` and `drain` raise it.
    """

    def __init__(self, send: Callable[[str], None], threads: int):
        self.send = send
        self.failure: BaseException | None = None
        self._waiting: dict[str, int] = {}
        self._sending: dict[str, int] = {}
        self._ended = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def add(self, name: str, size: int) -> None:
        """Let a file of `size` bytes be sent; waits while MOST bytes wait. Raises what has failed before."""
        with self._changed:
            while not self.failure and self._full(size):
                self._changed.wait()
            self._check()
            self._waiting[name] = size
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until all is sent; raises what has failed."""
        with self._changed:
            while not self.failure and not self.idle:
                self._changed.wait()
            self._check()

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being sent."""
        return not self._waiting and not self._sending

    def fail(self, error: BaseException) -> None:
        """Stop at an error, which `add` and `drain` raise from now on."""
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads; what they are sending is finished first."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _full(self, size: int) -> bool:
        there = sum(self._waiting.values()) + sum(self._sending.values())
        return bool(there) and there + size > MOST

    def _check(self) -> None:
        if self.failure:
            raise self.failure

    def _work(self) -> None:
        while (name := self._next()) is not None:
            try:
                self.send(name)
            except BaseException as error:
                self.fail(error)
            with self._changed:
                self._sending.pop(name)
                self._changed.notify_all()

    def _next(self) -> str | None:
        """Return the next name that no other thread is sending; None at the end."""
        with self._changed:
            while not self._ended:
                ready = (name for name in self._waiting if name not in self._sending)
                name = None if self.failure else next(ready, None)
                if name is not None:
                    self._sending[name] = self._waiting.pop(name)
                    return name
                self._changed.wait()
        return None
