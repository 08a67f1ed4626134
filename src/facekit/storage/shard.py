"""Shards: parts of a folder that several processes or machines work on at the same time."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CardError
from .folder import FAILED, MANIFEST
from .lock import NAME

LOCKS = ".facekit.*-of-*.lock"  # of all shards


@dataclass(frozen=True)
class Shard:
    """The share of this process: every `count`-th image, starting at `index` (1-based, as in `2/4`)."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Read `i/n`; raises CardError for anything else."""
        if text is None:
            return cls()
        try:
            index, count = map(int, text.split("/"))
        except ValueError:
            index = count = 0
        if not 1 <= index <= count:
            raise CardError(f"--shard {text!r} is not i/n with 1 <= i <= n", "for example --shard 1/4")
        return cls(index, count)

    @property
    def whole(self) -> bool:
        """Whether this process does the whole folder."""
        return self.count == 1

    @property
    def manifest(self) -> str:
        """The name of this shard's manifest."""
        return self._own(MANIFEST)

    @property
    def failed(self) -> str:
        """The name of this shard's list of failures."""
        return self._own(FAILED)

    @property
    def lock(self) -> str:
        """The name of this shard's lock."""
        return self._own(NAME)

    def _own(self, name: str) -> str:
        stem, _, suffix = name.rpartition(".")
        return name if self.whole else f"{stem}.{self.index}-of-{self.count}.{suffix}"
