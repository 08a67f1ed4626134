"""A Ray cluster as an executor: one actor per core or share of a GPU, whose work is done again where a machine dies."""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

from ..errors import MissingError, OutOfMemory
from . import console, ray_cluster
from .engine import Engine
from .ray_worker import Seen, Worker, seen, unfit, versions

QUEUED = 2  # pieces of work at a worker: the next one is there when one is done
AHEAD = 8  # pieces of work for each worker whose results may wait for an earlier one
TRIES = 3  # workers that may end over one piece of work
PATIENCE = 20.0  # seconds without a worker after which a note says so
CARRIED = ("FACEKIT_", "AWS_", "FSSPEC_", "OMP_NUM_THREADS")  # variables that workers get from the driver
MEMORY = "run the same command again with fewer --workers: it continues"


@dataclass(eq=False)
class Job:
    """A piece of work: a function that was sent, its one argument, and how many workers have ended over it."""

    sent: list[Any]
    item: Any
    future: futures.Future = field(default_factory=futures.Future)
    tries: float = 0


@dataclass(eq=False)
class Hand:
    """A worker of the cluster; `load` is how many pieces of work it has, `machine` is known once it has answered."""

    actor: Any
    load: int = 0
    machine: str | None = None


class RayPool(futures.Executor):
    """Submits work to actors of a Ray cluster; all calls to Ray are made by one thread.

    `ahead` is how many pieces of work may be under way. Results are what the function returns, its own exception,
    OutOfMemory where workers were killed, or MissingError where a worker has other versions or does not see a path.
    """

    def __init__(self, ray: Any, count: int, gpus: float, sees: tuple[Seen, ...]):
        self.count, self.ahead = count, AHEAD * count
        self._ray, self._sees = ray, sees
        self._events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._hands: list[Hand] = []
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._sent: tuple[Callable, list[Any]] | None = None
        self._broken: Exception | None = None
        self._stillborn = 0  # workers in a row that ended before they could say what they are
        kind = ray.remote(
            num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )(Worker)  # fmt: skip
        around = carried(gpus)
        self._make: Callable[[], Any] = lambda: kind.remote(os.getcwd(), around)
        here = contextvars.copy_context()  # notes go where those of this thread go
        self._thread = threading.Thread(target=here.run, args=(self._serve,), daemon=True)
        self._thread.start()

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> futures.Future:  # type: ignore[override]
        """Return the future result of `fn` of one argument; both must be picklable. `fn` is sent only once in a row."""
        (item,) = args
        if self._sent is None or self._sent[0] is not fn:
            self._sent = fn, [self._ray.put(self._ray.cloudpickle.dumps(fn))]
        job = Job(self._sent[1], item)
        self._events.put((self._take, job))
        return job.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers, whatever they are doing."""
        self._events.put((None,))
        self._thread.join()

    def _serve(self) -> None:
        """Handle one event after the other until the end."""
        try:
            for _ in range(self.count):
                self._hire()
            told = False
            while True:
                try:
                    handle, *given = self._events.get(timeout=None if told else PATIENCE)
                except queue.Empty:
                    told = True
                    if not any(hand.machine for hand in self._hands):
                        console.note("ray: waiting for the cluster to have a free core")
                    continue
                if handle is None:
                    break
                handle(*given)
                self._share_out()
        except BaseException as error:
            self._fail(error if isinstance(error, Exception) else RuntimeError(str(error)))
            while (event := self._events.get())[0] is not None:
                if event[0] == self._take:
                    self._take(event[1])
        finally:
            for hand in self._hands:
                self._dismiss(hand)

    def _hire(self) -> None:
        """Start a worker; it gets work once it has said what it is."""
        hand = Hand(self._make())
        self._hands.append(hand)
        self._call(hand, "hello", self._greeted, hand, list(self._sees))

    def _dismiss(self, hand: Hand) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(hand.actor)

    def _call(self, hand: Hand, method: str, handle: Callable, about: Any, *given: Any) -> None:
        """Call a method of a worker; its result becomes an event."""
        answer = getattr(hand.actor, method).remote(*given).future()
        answer.add_done_callback(lambda done: self._events.put((handle, about, done)))

    def _take(self, job: Job) -> None:
        if self._broken:
            job.future.set_exception(self._broken)
        else:
            self._waiting.append(job)

    def _share_out(self) -> None:
        """Give waiting work to the workers that have least; at the end none waits at one while another is free."""
        while self._waiting:
            most = QUEUED if len(self._waiting) > len(self._hands) else 1
            hand = min((one for one in self._hands if one.machine), key=lambda one: one.load, default=None)
            if hand is None or hand.load >= most:
                return
            job = self._waiting.popleft()
            hand.load += 1
            self._running.add(job)
            self._call(hand, "run", self._done, (hand, job), job.sent, job.item)

    def _greeted(self, hand: Hand, answer: futures.Future) -> None:
        """Take on a worker, or find out why it cannot work."""
        try:
            machine, its, missing = answer.result()
        except Exception as error:
            self._lost(hand, error)
            return
        reason = unfit(machine, its, versions(), missing)
        if reason:
            self._fail(reason)
        else:
            hand.machine = machine
            self._stillborn = 0

    def _done(self, about: tuple[Hand, Job], answer: futures.Future) -> None:
        """Pass a result on; work that ended with its worker is done again, before all other work."""
        hand, job = about
        hand.load -= 1
        self._running.discard(job)
        if self._broken:
            return
        try:
            good, value = answer.result()
        except self._ray.exceptions.RayError as error:
            if self._lost(hand, error):
                return self._give_up(job, error)
            # the workers of a machine that dies go one after the other, and this work may be given to each of them
            job.tries += 1 if "worker process has died" in str(error) else 1 / 20
            if job.tries >= TRIES:
                return self._give_up(job, error)
            self._waiting.appendleft(job)
            return
        if good:
            job.future.set_result(value)
        else:
            job.future.set_exception(value)

    def _give_up(self, job: Job, error: Exception) -> None:
        reason = self._broken or OutOfMemory(
            f"{TRIES} workers were killed one after the other, as happens when memory runs out: {_line(error)}", MEMORY
        )
        job.future.set_exception(reason)
        self._fail(reason)

    def _lost(self, hand: Hand, error: Exception) -> bool:
        """Replace a worker that is gone; returns whether the pool ends instead, because of why it is gone."""
        if isinstance(error, self._ray.exceptions.OutOfMemoryError):
            self._fail(OutOfMemory(f"ray has killed a worker, because memory ran out: {_line(error)}", MEMORY))
        elif not isinstance(error, self._ray.exceptions.RayError) or not _is_death(error, self._ray):
            self._fail(
                MissingError(
                    f"a worker of the cluster cannot start: {str(error).strip().splitlines()[-1]}",
                    "on every machine: pip install 'facekit-anime[ray]', the same version",
                )
            )
        elif hand in self._hands:
            self._stillborn += hand.machine is None
            if self._stillborn > TRIES * self.count:
                self._fail(OutOfMemory(f"workers of the cluster end as soon as they start: {_line(error)}", MEMORY))
                return True
            self._hands.remove(hand)
            self._dismiss(hand)
            console.note(f"ray: a worker on {hand.machine or 'a machine'} is gone; its work is done again")
            self._hire()
        return self._broken is not None

    def _fail(self, error: Exception) -> None:
        """End all work with an error."""
        if self._broken is None:
            self._broken = error
            for job in (*self._running, *self._waiting):
                job.future.set_exception(error)
            self._running.clear()
            self._waiting.clear()


def carried(gpus: float) -> dict[str, str]:
    """Return the variables that a worker gets from this process; one without a GPU sees none."""
    around = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    return {**around, "OPENCV_FOR_THREADS_NUM": "1", **({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})}


def _is_death(error: Exception, ray: Any) -> bool:
    """Whether a worker has ended, or its machine, rather than failed to start."""
    dead = (ray.exceptions.RayActorError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError)
    return isinstance(error, (*dead, ray.exceptions.ObjectLostError)) and "creation task" not in str(error)


def _line(error: Exception) -> str:
    """Return the first lines of what Ray says as one, without its colours."""
    return " ".join(str(error).replace("\x1b[36m", "").replace("\x1b[39m", "").split())[:400]


@contextlib.contextmanager
def ray_pool(engine: Engine, workers: int, pieces: int) -> Iterator[RayPool]:
    """Give a pool of a cluster's workers for the block: `workers`, 0 for all that it has, but no more than `pieces`.

    Raises MissingError where Ray is not installed or no cluster answers, CardError for GPUs that are not there.
    """
    sees = tuple(seen(path) for path in dict.fromkeys(engine.sees))
    with engine.connected() as ready:
        gpus = ready.gpus or 0
        has = ray_cluster.resources()
        count = workers or int(has.get("GPU", 0) / gpus if gpus else has.get("CPU", 1))
        pool = RayPool(ray_cluster.load(), max(1, min(count, pieces)), gpus, sees)
        try:
            yield pool
        finally:
            pool.shutdown()
