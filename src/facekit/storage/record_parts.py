"""The record of a command, in parts: objects beside an output in a store, each with what is new since the one before.

A record that is one file would have to go up whole each time. Its parts are numbered, and each is written once: after
the files that it names are in the store. At the end the whole record goes up, and the parts are removed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import OutputError
from ..runtime.workers import in_order
from . import files, remote
from .uploader import Uploader

FOLDER = ".crawl"
NAME = re.compile(r"([0-9]{8})-([0-9a-f]+)\.jsonl")  # number, token of the record that it comes from
KNOWN = "parts.txt"  # in a working copy: the token of its record, and the last part that this included at first
OFTEN = 200  # files after which a part is due, if the clock has not sent it
THREADS = 8


@dataclass(frozen=True)
class News:
    """What a part holds, in lines, and the marks by which the record knows it again; `more` says that it is not all."""

    data: bytes
    marks: list[int] = field(default_factory=list)
    last: int = 0
    more: bool = False


class Record(Protocol):
    """What a command remembers beside its files, and which of it is not in the store yet; `token` names it."""

    token: str

    def is_behind(self) -> bool:
        """Whether the store has not yet heard of something that comes before the files that are put now."""

    def news(self, there: Callable[[str], bool]) -> News | None:
        """Return what to send next; of files only those that are `there`, in the store. None where nothing is new."""

    def sent(self, news: News, number: int) -> None:
        """Take note that a part is in the store."""


class RecordParts:
    """The parts of a record in the folder `url` of a store.

    `root` is the place of the working copy; `there` are the files in the store, with the folder's name before theirs,
    and `settle` is called before a part is written. `token` is that of the record on this machine: empty where it has
    none, or one that came from the store.
    """

    def __init__(self, url: Path, root: Path, there: set[str], settle: Callable[[str], None]):
        self.url, self.folder, self.there, self.settle = url, url / FOLDER, there, settle
        self.known = root / KNOWN
        self.token, _, number = self.known.read_text().partition(" ") if self.known.exists() else ("", "", "0")
        self.included = int(number)
        self.names: set[str] = set()  # in the store
        self.record: Record | None = None
        self.may_go = False  # whether a record here includes them all
        self._guard = threading.RLock()
        self._files = 0  # put since the last part

    def found(self, names: Iterable[str]) -> None:
        """Take note of the objects in the store, named relative to the output."""
        parts = (name[len(FOLDER) + 1 :] for name in names if name.startswith(f"{FOLDER}/"))
        self.names |= {name for name in parts if NAME.fullmatch(name)}

    @property
    def last(self) -> int:
        """The number of the last part in the store; 0 where there is none."""
        return max(map(_number, self.names), default=0)

    def others(self) -> bool:
        """Whether another machine has written parts that the files here do not include."""
        return any(_number(name) > self.included and not self._is_own(name) for name in self.names)

    def disown(self) -> None:
        """Take note that this machine has no record of its own any more."""
        self.known.unlink(missing_ok=True)
        self.token, self.included = "", 0

    def read(self, after: int) -> Iterator[bytes]:
        """Yield the parts after number `after`, in order."""
        chosen = sorted(name for name in self.names if _number(name) > after)
        with futures.ThreadPoolExecutor(THREADS) as pool:
            for _, data in in_order(pool, lambda name: remote.read(self.folder / name), chosen, 2 * THREADS):
                yield data

    def follow(self, record: Record) -> None:
        """Send a record, which includes all parts that are in the store, from now on."""
        if record.token != self.token:
            self.token, self.included = record.token, self.last
            files.write_text(self.known, f"{self.token} {self.included}")
        self.record, self.may_go = record, True

    def leave(self, uploader: Uploader) -> None:
        """Send what is new, and then no more; the uploader fails where that fails."""
        try:
            if uploader.failure is None:
                self.send()
        except OutputError as error:
            uploader.fail(error)
        finally:
            with self._guard:
                self.record = None

    def before_file(self) -> None:
        """Send what is new before a file is put, if the store has to hear of it before."""
        with self._guard:
            if self.record and self.record.is_behind():
                self.send()

    def after_file(self) -> None:
        """Take note of a file that was put; after some of them, send what is new."""
        with self._guard:
            self._files += 1
            if self._files >= OFTEN:
                self.send()

    def send(self) -> None:
        """Write what is new, in as many parts as it takes."""
        with self._guard:
            self._files = 0
            while self.record and (news := self.record.news(self._is_there)):
                self.settle(f"{self.url.name}/{FOLDER}")
                number = self.last + 1
                name = f"{number:08}-{self.token}.jsonl"
                remote.put(self.folder / name, news.data)
                self.names.add(name)
                self.record.sent(news, number)
                if not news.more:
                    return

    def remove(self, merged: bool = False) -> None:
        """Remove all parts from the store; with `merged`, only if a record here includes them."""
        if merged and not self.may_go:
            return
        with self._guard, futures.ThreadPoolExecutor(THREADS) as pool:
            for _, name in in_order(pool, self._remove, sorted(self.names), 2 * THREADS):
                self.names.discard(name)

    def _remove(self, name: str) -> str:
        remote.remove(self.folder / name)
        return name

    def _is_there(self, name: str) -> bool:
        return f"{self.url.name}/{name}" in self.there

    def _is_own(self, name: str) -> bool:
        return name.endswith(f"-{self.token}.jsonl")


def _number(name: str) -> int:
    return int(name[:8])
