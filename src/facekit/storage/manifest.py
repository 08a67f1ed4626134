"""What an output folder says about its images: which source each was made of, and which sources failed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import FacekitError, OutputError
from ..runtime import console
from . import files, jsonl
from .folder import FAILED, MANIFEST, Source, is_inside
from .shard import Shard

Stamp = dict[str, int]
State = Literal["done", "failed", "changed", "new"]


@dataclass
class Output:
    """An image to write: name in the output folder, bytes (or a function that encodes them) and manifest entry."""

    name: str
    data: bytes | Callable[[], bytes]
    entry: dict[str, Any] = field(default_factory=dict)


class Manifest:
    """The manifests and lists of failures of an output folder, all shards together, read once.

    `made` holds (file, bytes, mtime) of each image by its source, `failed` the stamp of each source that failed.
    """

    def __init__(self, out: Path, shard: Shard):
        self.out, self.shard = out, shard
        self.path, self.failed_path = out / shard.manifest, out / shard.failed
        self.made: dict[str, list[tuple[str, int | None, int | None]]] = {}
        self.failed: dict[str, Stamp] = {}
        self.files: set[str] = set()

    def read(self) -> None:
        """Read the folder's manifests and lists of failures; lines that name files outside are passed over."""
        foreign = 0
        for row in _rows(self.out, MANIFEST):
            file, source = row.get("file"), row.get("source")
            if not isinstance(file, str) or not is_inside(file):
                foreign += 1
            elif isinstance(source, str):
                image = (file, row.get("source_bytes"), row.get("source_mtime"))
                images = self.made.setdefault(source, [])
                if image not in images:
                    images.append(image)
                    self.files.add(file)
        for row in _rows(self.out, FAILED):
            if isinstance(row.get("path"), str):
                self.failed[row["path"]] = {k: row[k] for k in row if k.startswith("source_")}
        if foreign:
            console.warn(f"{self.out / MANIFEST}: {foreign} lines do not name a file of this folder and are ignored")

    def state(self, source: Source) -> State:
        """Return what is known of a source as it is now: all images made of it are there, or it failed, or neither."""
        stamp = source.stamp()
        images = self.made.get(source.name, ())
        if stamp:
            own = (stamp["source_bytes"], stamp["source_mtime"])
            current = [image for image in images if image[1:] == own]
        else:
            current = list(images)
        if images and len(current) == len(images):
            return "done" if all(os.path.exists(self.out / image[0]) for image in images) else "new"
        failed = self.failed.get(source.name)
        if failed is not None and all(stamp.get(key) == failed[key] for key in failed) and bool(stamp) == bool(failed):
            return "failed"
        return "changed" if images or failed is not None else "new"

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.files)

    def check(self, images: Sequence[Output], replace: bool) -> None:
        """Raise OutputError where an image has a name that the file system does not take, or that is taken.

        Files that no manifest names were not made by facekit; they may go only with `replace`.
        """
        for image in images:
            path = self.out / image.name
            try:
                os.lstat(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                files.cannot_write(path, error)
            if not replace and image.name not in self.files:
                raise OutputError(f"{path} already exists and was not created by facekit", "move it, or use --force")

    def add(self, source: Source, stamp: Stamp, images: Sequence[Output]) -> None:
        """Note images, then write them: what a kill leaves half done has its line, and is made again.

        Raises OutputError where that cannot be.
        """
        own: dict[str, Any] = {key: stamp[key] for key in ("source_bytes", "source_mtime") if key in stamp}
        if images:
            jsonl.append(self.path, [{"file": i.name, "source": source.name, **own, **i.entry} for i in images])
        for image in images:
            assert isinstance(image.data, bytes)
            files.write_bytes(self.out / image.name, image.data)
        self.made[source.name] = [(i.name, own.get("source_bytes"), own.get("source_mtime")) for i in images]
        self.files.update(image.name for image in images)

    def fail(self, source: Source, stamp: Stamp, error: Exception) -> None:
        """Note that a source failed, and why."""
        reason = error.message if isinstance(error, FacekitError) else f"{type(error).__name__}: {error}"
        row = {"path": source.name, "stage": getattr(error, "stage", "read"), "reason": reason, **stamp}
        jsonl.append(self.failed_path, [row])
        self.failed[source.name] = dict(stamp)
        console.warn(f"{source.name}: {reason}")

    def forget(self, sources: Collection[str]) -> None:
        """Remove the images made of these sources, then their lines; those of images that failed too."""
        names = set(sources)
        for name in names & self.made.keys():
            for file, *_ in self.made.pop(name):
                self.files.discard(file)
                self._remove(file)
        for pattern, key in ((MANIFEST, "source"), (FAILED, "path")):
            for path in self._own(pattern):
                rows = list(jsonl.read_lines(path))
                kept = [row for row in rows if row.get(key) not in names]
                if len(kept) < len(rows):
                    jsonl.write(path, kept)
        for name in names & self.failed.keys():
            del self.failed[name]

    def clear(self) -> None:
        """Remove all images that were read from the manifests, then the manifests and lists of failures."""
        for file in sorted(self.files):
            self._remove(file)
        for path in notes(self.out):
            files.remove(path)
        self.made, self.failed, self.files = {}, {}, set()

    def merge(self) -> None:
        """Make the manifests of all shards one, and their failures: whole before theirs go, in order of sources."""
        for name, key in ((MANIFEST, "source"), (FAILED, "path")):
            unique = {jsonl.line(dict(sorted(row.items()))): row for row in _rows(self.out, name)}
            rows = sorted(unique.values(), key=lambda row: (str(row.get(key)), str(row.get("file"))))
            if rows:
                jsonl.write(self.out / name, rows)
            for path in _paths(self.out, name):
                if path.name != name:
                    files.remove(path)
        self.path, self.failed_path = self.out / MANIFEST, self.out / FAILED

    def _own(self, name: str) -> list[Path]:
        """Return the files of a kind that this process may rewrite: no shard at work beside it appends to them."""
        others = f"-of-{self.shard.count}.jsonl"
        own = (self.path, self.failed_path)
        return [p for p in _paths(self.out, name) if self.shard.whole or p in own or not p.name.endswith(others)]

    def _remove(self, name: str) -> None:
        """Remove an image, unless a link on the way leads out of the folder."""
        path, top = self.out / name, os.path.realpath(self.out)
        if os.path.commonpath([os.path.realpath(path.parent), top]) == top:
            files.remove(path)


def _paths(out: Path, name: str) -> list[Path]:
    stem, _, suffix = name.rpartition(".")
    return sorted(p for p in out.glob(f"{stem}*.{suffix}") if p.name == name or p.name.startswith(f"{stem}."))


def _rows(out: Path, name: str) -> Iterator[dict[str, Any]]:
    return itertools.chain.from_iterable(jsonl.read_lines(path) for path in _paths(out, name))


def entries(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all manifests of a folder."""
    return _rows(out, MANIFEST)


def failures(out: Path) -> dict[str, str]:
    """Return why images failed on their way into the folder `out`, by their source."""
    return {str(row["path"]): str(row.get("reason", "")) for row in _rows(out, FAILED) if "path" in row}


def notes(out: Path) -> list[Path]:
    """Return the manifests and lists of failures that lie in a folder."""
    return [*_paths(out, MANIFEST), *_paths(out, FAILED)]
