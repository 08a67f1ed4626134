"""What a command and the workers of a cluster that train for it say to each other. Free of torch: it starts quickly."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import FacekitError
from . import console

Line = tuple[Any, ...]
"""Something to report: the name of a method of `console.Reporter`, or of a bar's, and what it gets."""


class Orders(NamedTuple):
    """What a worker is told at its start: the work is over already; it is one of a second start; the work has begun."""

    over: bool
    again: bool
    begun: bool


@dataclass
class News:
    """What the command learns: lines to report, the first error, which workers are in, and seconds without a sign."""

    lines: list[Line]
    error: bytes | None
    inside: int
    quiet: float
    starts: int


class Mailbox:
    """An actor between a command and its workers; it outlives the workers, and holds what both sides say."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._error: bytes | None = None
        self._inside: set[int] = set()
        self._sign = time.monotonic()
        self._starts = 0
        self._stop = self._begun = False

    def enter(self, rank: int) -> Orders:
        """Take note of a worker that starts."""
        if rank == 0:
            self._starts += 1
        self._inside.add(rank)
        self._sign = time.monotonic()
        return Orders(self._error is not None, self._starts > 1, self._begun)

    def listen(self, lines: Sequence[Line]) -> bool:
        """Take lines of a worker, and tell it whether to stop."""
        self._lines += lines
        self._sign = time.monotonic()
        return self._stop

    def begin(self) -> None:
        """Take note that the work has begun: another start goes on with it."""
        self._begun = True

    def leave(self, rank: int, error: bytes | None) -> None:
        """Take note of a worker that ends, and of why if it failed; only the first error counts."""
        self._inside.discard(rank)
        self._error = self._error or error

    def stop(self) -> None:
        """Ask all workers to stop."""
        self._stop = True

    def news(self) -> News:
        """Return what there is to tell, each line once."""
        lines, self._lines = self._lines, []
        return News(lines, self._error, len(self._inside), time.monotonic() - self._sign, self._starts)


@dataclass
class Relay:
    """Reports what a worker has said as this process does; `close` ends the bars of a worker that is gone."""

    bars: dict[int, console.Bar] = field(default_factory=dict)

    def report(self, lines: Sequence[Line]) -> None:
        """Report lines in their order."""
        for kind, *given in lines:
            if kind == "bar":
                self.close()
                self.bars[given[0]] = console.current.get().bar(*given[1:])
            elif kind == "advance" and given[0] in self.bars:
                self.bars[given[0]].advance(given[1], **given[2])
            elif kind == "close" and given[0] in self.bars:
                self.bars.pop(given[0]).close()
            elif kind == "fact":
                console.fact(given[0], **given[1])
            elif kind in ("note", "warn"):
                getattr(console, kind)(*given)

    def close(self) -> None:
        """End all bars."""
        while self.bars:
            self.bars.popitem()[1].close()


class WorkerTraceback(Exception):
    """Where an error was raised in a worker, as text: `--debug` shows it as the cause of the error."""


def packed(error: Exception, ray: Any) -> bytes:
    """Return an error and its traceback as bytes; one that cannot be pickled becomes its text."""
    text = "".join(traceback.format_exception(error))
    try:
        data = ray.cloudpickle.dumps((error, text))
        ray.cloudpickle.loads(data)
    except Exception:
        data = ray.cloudpickle.dumps((FacekitError(f"{type(error).__name__}: {error}"), text))
    return data


def unpacked(data: bytes, ray: Any) -> Exception:
    """Return the error of a worker, with its traceback as the cause."""
    try:
        error, text = ray.cloudpickle.loads(data)
    except Exception as problem:  # its class is of a recipe that is not imported here
        error, text = FacekitError(f"a worker failed: {problem}"), ""
    error.__cause__ = WorkerTraceback(text)
    return error
