"""Worker threads and processes that never outlive the command that started them."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any, TypeVar

from ..errors import Interrupted, OutOfMemory
from .engine import LOCAL, Engine

Item = TypeVar("Item")
PIECE = 16  # items at most that a worker of a cluster gets at a time
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def pool_of(
    workers: int, processes: bool, engine: Engine = LOCAL, pieces: int = 2**31
) -> Iterator[futures.Executor | None]:
    """Give a pool of threads or processes for the block, or None where one process is enough.

    With an engine that is a cluster the pool is the cluster's workers, no more than there are `pieces` of work; then
    what is submitted must be picklable, as with processes. Where the block ends in an exception, what waits is dropped;
    processes are killed, threads finish their item.
    """
    if engine.remote:
        from .ray_pool import ray_pool

        with ray_pool(engine, workers, pieces) as cluster:
            yield cluster
        return
    if workers < 2 and processes:
        yield None
        return
    if not processes:
        threads = futures.ThreadPoolExecutor(max(workers, 1))
        try:
            yield threads
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
        return
    others = set(multiprocessing.active_children())
    pool = futures.ProcessPoolExecutor(workers, initializer=_serve)
    try:
        with _blocked():  # a signal that reaches a worker before `_serve` does would count as its crash
            pool.submit(os.getpid)
        yield pool
        pool.shutdown(wait=True)
    except BaseException:
        with _blocked():
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
            pool.shutdown(wait=True, cancel_futures=True)
        raise


def _serve() -> None:
    """Prepare a worker process: signals are for the parent, and the worker ends when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the block has ended, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def stoppable(title: str, progress: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into Interrupted, which says what `progress` returns, and a killed worker into OutOfMemory."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"{title}: stopped after {progress()}", "run the same command again to continue") from None
    except futures.BrokenExecutor as error:
        raise OutOfMemory(
            f"{title}: a worker process was killed, as happens when memory runs out",
            "run the same command again with fewer --workers: it continues",
        ) from error


def in_order(
    pool: futures.Executor | None, work: Callable[[Item], Any], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Any]]:
    """Yield each item with `work` of it, in order; a pool has up to `ahead` items at a time, or more if it says so."""
    if pool is None:
        yield from ((item, work(item)) for item in items)
        return
    ahead = max(ahead, getattr(pool, "ahead", 0))
    waiting: deque[tuple[Item, futures.Future]] = deque()
    rest = iter(items)
    while True:
        for item in itertools.islice(rest, ahead - len(waiting)):
            waiting.append((item, pool.submit(work, item)))
        if not waiting:
            return
        item, future = waiting.popleft()
        yield item, future.result()


def piece_size(pool: futures.Executor | None, items: int, least: int = 1) -> int:
    """Return how many of `items` a worker gets at a time: `least`, or more in a cluster, where messages cost time."""
    workers = getattr(pool, "count", 0)
    return max(least, min(PIECE, items // (4 * workers))) if workers else least
