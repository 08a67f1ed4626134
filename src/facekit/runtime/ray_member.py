"""What runs in each process that Ray Train starts: it works with the others, and keeps in touch with the command."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import Interrupted
from . import console, distributed
from .ray_mailbox import Line, Orders, packed
from .ray_worker import Worker, unfit

PAUSE = 0.5  # seconds between two signs of life of a worker


class Member:
    """A worker among the others: `device` is its own, `received` fills when it should stop.

    `again` is whether others were there before it, `begun` whether these had begun the work (see `begin`).
    """

    def __init__(self, ray: Any, mailbox: Any, rank: int, device: str, orders: Orders):
        self.device, self.again, self.begun = device, orders.again, orders.begun
        self.received: list[int] = []
        self._ray, self._mailbox, self._rank = ray, mailbox, rank
        self._lines: list[Line] = []
        self._lock, self._ended = threading.Lock(), threading.Event()

    def begin(self) -> None:
        """Say that the work has begun."""
        self._ray.get(self._mailbox.begin.remote())

    def say(self, line: Line) -> None:
        """Report something soon; what a bar counts is put together."""
        with self._lock:
            last = self._lines[-1] if self._lines else ()
            if line[0] == "advance" and last and last[:2] == line[:2]:
                self._lines[-1] = (*line[:2], last[2] + line[2], line[3] or last[3])
            else:
                self._lines.append(line)

    @contextlib.contextmanager
    def in_touch(self) -> Iterator[None]:
        """Keep in touch with the command while the block runs; the first of the workers reports what it does."""
        reporter = Told(self) if self._rank == 0 else console.Reporter()
        token = console.current.set(reporter)
        thread = threading.Thread(target=self._keep_in_touch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            console.current.reset(token)
            self._ended.set()
            thread.join()

    def _keep_in_touch(self) -> None:
        try:
            while not self._ended.wait(PAUSE):
                self._exchange()
            self._exchange()
        except self._ray.exceptions.RayError:  # the command is gone
            self.received.append(0)

    def _exchange(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if self._ray.get(self._mailbox.listen.remote(lines)) and not self.received:
            self.received.append(0)


class Told(console.Reporter):
    """Reports to the command, on whatever machine it runs."""

    def __init__(self, member: Member):
        self._member, self._numbers = member, itertools.count()

    def note(self, text: str) -> None:
        self._member.say(("note", text))

    def warn(self, text: str) -> None:
        self._member.say(("warn", text))

    def fact(self, kind: str, **fields: Any) -> None:
        self._member.say(("fact", kind, fields))

    def bar(self, title: str, total: int, done: int = 0) -> console.Bar:
        number = next(self._numbers)
        self._member.say(("bar", number, title, total, done))
        return ToldBar(self._member, number, title, total, done)


class ToldBar(console.Bar):
    """A bar that the command shows."""

    def __init__(self, member: Member, number: int, title: str, total: int, done: int):
        super().__init__(title, total, done)
        self._member, self._number = member, number

    def advance(self, count: int = 1, /, **figures: Any) -> None:
        super().advance(count, **figures)
        self._member.say(("advance", self._number, count, figures))

    def close(self) -> None:
        self._member.say(("close", self._number))


def work(config: dict[str, Any]) -> None:
    """Do the task of one worker: what Ray Train calls in each process, in a thread of its own.

    `config` has the `mailbox`, the `task` (a function of a Member), `folder` and `environment` of the command, the
    `versions` and paths (`sees`) that must be here too, and `gpus`, whether the worker has a GPU. An error ends the
    work everywhere. Only where another process is gone an exception leaves this function: Ray Train starts all again.
    """
    import ray
    from ray import train

    rank = train.get_context().get_world_rank()
    mailbox = config["mailbox"]
    orders = Orders(*ray.get(mailbox.enter.remote(rank)))
    if orders.over:
        return
    failure: Exception | None = None
    try:
        machine, its, missing = Worker(config["folder"], config["environment"]).hello(config["sees"])
        reason = unfit(machine, its, config["versions"], missing)
        if reason:
            raise reason
        member = Member(ray, mailbox, rank, _device(config["gpus"]), orders)
        task: Callable[[Member], None] = config["task"]
        with member.in_touch():
            task(member)
    except Exception as error:
        failure = error
    lost = isinstance(failure, distributed.PeerFailed)
    ray.get(mailbox.leave.remote(rank, packed(failure, ray) if failure and not lost else None))
    if failure and lost:
        raise failure
    if failure and not isinstance(failure, Interrupted) and distributed.size() > 1:
        os._exit(1)  # closes the connections of this process, for which the others would wait; after a stop none does


def _device(gpus: bool) -> str:
    if not gpus:
        return "cpu"
    from ray.train import torch

    return str(torch.get_device())
