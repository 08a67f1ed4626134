"""What a command reports: a progress bar on a terminal, plain lines when piped, JSON lines on request."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from . import strict_json
from .printable import printable
from .stand_ins import told


class Bar:
    """Progress of one job; `advance` counts up and may carry figures, which are shown until others come."""

    def __init__(self, title: str, total: int, done: int = 0):
        self.title, self.total, self.done = title, total, done
        self.began, self.first = time.monotonic(), done
        self.figures: dict[str, Any] = {}

    def advance(self, count: int = 1, /, **figures: Any) -> None:
        """Count `count` more items as done."""
        self.done += count
        self.figures = figures or self.figures

    def close(self) -> None:
        """End the job."""

    @property
    def rate(self) -> float:
        """Items per second so far."""
        return (self.done - self.first) / max(time.monotonic() - self.began, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds until the job is done at this rate; None before the first item."""
        return (self.total - self.done) / self.rate if self.done > self.first else None


class Reporter:
    """Prints nothing; the base of the other reporters."""

    def note(self, text: str) -> None:
        """Report an ordinary event."""

    def warn(self, text: str) -> None:
        """Report something that may be wrong."""

    def fact(self, kind: str, **fields: Any) -> None:
        """Report a machine-readable fact, which only JSON lines show."""

    def result(self, text: str, **fields: Any) -> None:
        """Print the result of the command on stdout: text for people, fields for machines."""

    def bar(self, title: str, total: int, done: int = 0) -> Bar:
        """Begin a job of `total` items, `done` of them in an earlier start."""
        return Bar(title, total, done)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Report nothing of what happens inside."""
    token = current.set(Reporter())
    try:
        yield
    finally:
        current.reset(token)


def figures_text(figures: dict[str, Any]) -> str:
    """Return figures as `name value` pairs; numbers have four digits, and zeros are left out."""
    parts = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items() if v not in (None, 0))
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Return a time for people: `45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


class LineBar(Bar):
    """Prints a line at most every `pause` seconds, and one at the end."""

    pause = 5.0

    def __init__(self, title: str, total: int, done: int = 0):
        super().__init__(title, total, done)
        self.last = self.began

    def advance(self, count: int = 1, /, **figures: Any) -> None:
        super().advance(count, **figures)
        if time.monotonic() - self.last > self.pause and self.done < self.total:
            self.last = time.monotonic()
            self.say()

    def say(self) -> None:
        """Print how far the job is."""


class PlainBar(LineBar):
    """Lines for people."""

    def say(self) -> None:
        left = f"{duration(self.left)} left  " if self.left and self.done < self.total else ""
        line = f"{self.title} {self.done}/{self.total}  {left}{self.rate:.3g}/s  {figures_text(self.figures)}"
        print(printable(line.rstrip(), one_line=True), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.done > self.first:
            self.say()


class Plain(Reporter):
    """Lines on stderr: for pipes and logs."""

    def note(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        print(f"warning: {printable(text, one_line=True)}", file=sys.stderr, flush=True)

    def result(self, text: str, **fields: Any) -> None:
        print(printable(text), flush=True)

    def bar(self, title: str, total: int, done: int = 0) -> Bar:
        return PlainBar(title, total, done)


class QuietReporter(Plain):
    """Only warnings and results."""

    def note(self, text: str) -> None:
        pass

    def bar(self, title: str, total: int, done: int = 0) -> Bar:
        return Bar(title, total, done)


class JsonBar(LineBar):
    """Lines of JSON."""

    pause = 1.0

    def say(self) -> None:
        fields = {"title": self.title, "done": self.done, "total": self.total, "rate": round(self.rate, 4)}
        json_line("progress", **fields, figures=self.figures)

    def close(self) -> None:
        self.say()


def json_line(event: str, **fields: Any) -> None:
    """Print one event as a JSON line on stdout."""
    print(strict_json.dumps({"event": event, **fields}, default=str), flush=True)


class Json(Reporter):
    """JSON lines on stdout: note, warning, progress, the command's own events, and a result."""

    def __init__(self) -> None:
        self.answered = False

    def finish(self, returned: Any) -> None:
        """Print what the command's function returned as the result, unless the command printed one itself."""
        if not self.answered:
            json_line("result", **(returned if isinstance(returned, dict) else {"path": returned}))

    def note(self, text: str) -> None:
        json_line("note", text=text)

    def warn(self, text: str) -> None:
        json_line("warning", text=text)

    def fact(self, kind: str, **fields: Any) -> None:
        json_line(kind, **fields)

    def result(self, text: str, **fields: Any) -> None:
        self.answered = True
        json_line("result", **(fields or {"text": text}))

    def bar(self, title: str, total: int, done: int = 0) -> Bar:
        return JsonBar(title, total, done)


class RichBar(Bar):
    """A rich progress bar; figures are cut where the terminal is too narrow, the time left never is."""

    def __init__(self, title: str, total: int, done: int = 0):
        super().__init__(title, total, done)
        from rich import progress
        from rich.console import Console
        from rich.table import Column

        def whole() -> Column:
            return Column(no_wrap=True)

        cut = Column(no_wrap=True, overflow="ellipsis", ratio=1)

        self.progress = progress.Progress(
            progress.TextColumn("{task.description}", table_column=whole(), markup=False),
            progress.BarColumn(bar_width=12),
            progress.MofNCompleteColumn(table_column=whole()),
            progress.TextColumn("{task.fields[left]}", table_column=whole()),
            progress.TextColumn("{task.fields[figures]}", table_column=cut, markup=False),
            console=Console(stderr=True),
            expand=True,
        )
        self.task = self.progress.add_task(
            printable(title, one_line=True), total=total, completed=done, figures="", left=""
        )
        self.progress.start()

    def advance(self, count: int = 1, /, **figures: Any) -> None:
        super().advance(count, **figures)
        text = f"{self.rate:.3g}/s  {figures_text(self.figures)}"
        left = "" if self.left is None else f"{duration(self.left)} left"
        self.progress.update(self.task, advance=count, figures=text, left=left)

    def close(self) -> None:
        self.progress.stop()


class Rich(Plain):
    """For a terminal."""

    def bar(self, title: str, total: int, done: int = 0) -> Bar:
        return RichBar(title, total, done)


class Library(Reporter):
    """What Python functions report: nothing, but in a notebook, where people look on."""

    def _reporter(self) -> Reporter:
        from . import notebook

        return notebook.Notebook() if notebook.is_here() else Reporter()

    def note(self, text: str) -> None:
        self._reporter().note(text)

    def warn(self, text: str) -> None:
        self._reporter().warn(text)

    def bar(self, title: str, total: int, done: int = 0) -> Bar:
        return self._reporter().bar(title, total, done)


current: ContextVar[Reporter] = ContextVar("reporter", default=Library())  # noqa: B039


def choose(as_json: bool = False, quiet: bool = False) -> Reporter:
    """Return the reporter for the flags and for what stderr is; of a `torchrun` only rank 0 reports."""
    if os.environ.get("RANK", "0") != "0":
        return Reporter()
    if as_json:
        return Json()
    if quiet:
        return QuietReporter()
    return Rich() if sys.stderr.isatty() else Plain()


def note(text: str) -> None:
    """Report an ordinary event."""
    current.get().note(told(text))


def warn(text: str) -> None:
    """Report something that may be wrong."""
    current.get().warn(told(text))


def fact(kind: str, **fields: Any) -> None:
    """Report a machine-readable fact, for `--json`."""
    current.get().fact(kind, **told(fields))


def result(text: str, **fields: Any) -> None:
    """Print the result of the command on stdout."""
    current.get().result(told(text), **told(fields))


@contextlib.contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Bar]:
    """Show the progress of a job while the block lasts."""
    bar = current.get().bar(title, total, done)
    try:
        yield bar
    finally:
        bar.close()
