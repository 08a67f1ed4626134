"""A queue of limited length in front of a few worker threads."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any


class QueueFull(Exception):
    """No seat is free."""


class WorkQueue:
    """Runs jobs on `workers` threads while up to `waiting` more wait; whoever comes then finds it full.

    A job needs a seat. It is taken before the job's data is read, so that the memory of all jobs is bounded, and it is
    free again when the work has ended, also work that nobody waits for any more.
    """

    def __init__(self, workers: int, waiting: int):
        self.workers, self.seats = workers, workers + waiting
        self.taken = self.working = 0
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Future, Callable[[], Any], Callable[[], None]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs wait or are still being received."""
        return max(0, self.taken - self.working)

    @contextlib.contextmanager
    def seat(self) -> Iterator[Callable[[Callable[[], Any]], Future]]:
        """Hold a seat; gives a function that hands a job to the workers. Raises QueueFull where no seat is free.

        With a job handed over, the seat stays taken until the job has ended.
        """
        with self._lock:
            if self.taken >= self.seats:
                raise QueueFull
            self.taken += 1
        handed = False

        def submit(work: Callable[[], Any]) -> Future:
            nonlocal handed
            handed = True
            future: Future = Future()
            self._jobs.put((future, work, self._leave))
            return future

        try:
            yield submit
        finally:
            if not handed:
                self._leave()

    def _leave(self) -> None:
        with self._lock:
            self.taken -= 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work, leave = job
            try:
                if future.set_running_or_notify_cancel():
                    self._run(future, work)
            finally:
                leave()
                del job, future, work  # else the last job's image stays in memory

    def _run(self, future: Future, work: Callable[[], Any]) -> None:
        with self._lock:
            self.working += 1
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            with self._lock:
                self.working -= 1

    def close(self) -> None:
        """Let the workers end after the jobs that they have."""
        for _ in self._threads:
            self._jobs.put(None)
