"""The manifest of an output folder: which source each image comes from, and which sources failed."""

from __future__ import annotations

import contextlib
import itertools
import os
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import FacekitError, OutputError
from ..runtime import console
from ..runtime.stand_ins import told
from . import files, jsonl
from .folder import FAILED, MANIFEST, Source, is_inside
from .made import Made
from .shard import Shard

Stamp = dict[str, int]
State = Literal["done", "failed", "changed", "new"]


@dataclass
class Output:
    """An image to write: name in the output folder, bytes (or a function that returns them) and manifest entry.

    The bytes may also lie in a file already, which `files.write_part` has written.
    """

    name: str
    data: bytes | Callable[[], bytes] | Path
    entry: dict[str, Any] = field(default_factory=dict)


class Manifest:
    """The manifests and lists of failures of an output folder, of all shards together.

    `made` are the images of each source; `failed` maps each source that failed to its stamp.
    """

    def __init__(self, out: Path, shard: Shard, made: Made):
        self.out, self.shard, self.made = out, shard, made
        self.path, self.failed_path = out / shard.manifest, out / shard.failed
        self.failed: dict[str, Stamp] = {}

    def read(self) -> None:
        """Read the folder's manifests and lists of failures; lines that name files outside the folder are ignored."""
        self.made.clear()
        self.failed, foreign = {}, 0
        for row in _rows(self.out, MANIFEST):
            file, source = row.get("file"), row.get("source")
            if not isinstance(file, str) or not is_inside(file):
                foreign += 1
            elif isinstance(source, str):
                image, images = (file, row.get("source_bytes"), row.get("source_mtime")), self.made.of(source)
                if image not in images:
                    self.made.put(source, (*images, image))
        for row in _rows(self.out, FAILED):
            if isinstance(row.get("path"), str):
                self.failed[row["path"]] = {k: row[k] for k in row if k.startswith("source_")}
        if foreign:
            console.warn(f"{self.out / MANIFEST}: {foreign} lines do not name a file of this folder and are ignored")

    def state(self, source: Source) -> State:
        """Return the state of a source: done (all its images exist), failed, changed since then, or new."""
        stamp = source.stamp()
        images = self.made.of(source.name)
        if stamp:
            own = (stamp["source_bytes"], stamp["source_mtime"])
            current = [image for image in images if image[1:] == own]
        else:
            current = list(images)
        if images and len(current) == len(images):
            top = os.fspath(self.out)
            return "done" if all(os.path.exists(os.path.join(top, image[0])) for image in images) else "new"
        failed = self.failed.get(source.name)
        if failed is not None and all(stamp.get(key) == failed[key] for key in failed) and bool(stamp) == bool(failed):
            return "failed"
        return "changed" if images or failed is not None else "new"

    def check(self, images: Sequence[Output], replace: bool) -> None:
        """Raise OutputError if the name of an image is invalid on this file system or belongs to a foreign file.

        A file that no manifest names was not created by facekit; `replace` allows it to be overwritten.
        """
        for image in images:
            path = self.out / image.name
            try:
                os.lstat(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                files.cannot_write(path, error)
            if not replace and not self.made.has(image.name):
                raise OutputError(f"{path} already exists and was not created by facekit", "move it, or use --force")

    def add(self, source: Source, stamp: Stamp, images: Sequence[Output]) -> None:
        """Add the images to the manifest, then write them: after a kill in between, the next run makes them again.

        Raises OutputError if they cannot be written.
        """
        own: dict[str, Any] = {key: stamp[key] for key in ("source_bytes", "source_mtime") if key in stamp}
        if images:
            jsonl.append(self.path, [{"file": i.name, "source": source.name, **own, **i.entry} for i in images])
        for image in images:
            assert isinstance(image.data, bytes | Path)
            files.put(self.out / image.name, image.data)
        size, mtime = own.get("source_bytes"), own.get("source_mtime")
        self.made.put(source.name, tuple((image.name, size, mtime) for image in images))

    def fail(self, source: Source, stamp: Stamp, error: Exception) -> None:
        """Record that a source failed, and why."""
        reason = error.message if isinstance(error, FacekitError) else f"{type(error).__name__}: {error}"
        row = {"path": source.name, "stage": getattr(error, "stage", "read"), "reason": told(reason), **stamp}
        jsonl.append(self.failed_path, [row])
        self.failed[source.name] = dict(stamp)
        console.warn(f"{source.name}: {reason}")

    def forget(self, sources: Collection[str]) -> None:
        """Remove the images of these sources, then their lines in the manifests and lists of failures."""
        names = set(sources)
        for name in names:
            for file, *_ in self.made.of(name):
                self._remove(file)
            self.made.put(name, ())
        for pattern, key in ((MANIFEST, "source"), (FAILED, "path")):
            for path in self._own(pattern):
                if any(str(row.get(key)) in names for row in jsonl.read_lines(path)):
                    jsonl.write(path, (row for row in jsonl.read_lines(path) if str(row.get(key)) not in names))
        for name in names & self.failed.keys():
            del self.failed[name]

    def clear(self) -> None:
        """Remove all images that the manifests name, then the manifests and lists of failures."""
        for _, images in self.made.items():
            for file, *_ in images:
                self._remove(file)
        for path in notes(self.out):
            files.remove(path)
        self.made.clear()
        self.failed = {}

    def merge(self) -> None:
        """Merge the manifests and lists of failures of all shards, sorted by source; theirs are removed afterwards."""
        for name, key in ((MANIFEST, "source"), (FAILED, "path")):
            rows = _in_order(_paths(self.out, name), key)
            first = next(rows, None)
            if first is not None:
                jsonl.write(self.out / name, itertools.chain([first], rows))
            for path in _paths(self.out, name):
                if path.name != name:
                    files.remove(path)
        self.path, self.failed_path = self.out / MANIFEST, self.out / FAILED

    def _own(self, name: str) -> list[Path]:
        """Return the files `name` that this process may rewrite, because no other running shard appends to them."""
        others = f"-of-{self.shard.count}.jsonl"
        own = (self.path, self.failed_path)
        return [p for p in _paths(self.out, name) if self.shard.whole or p in own or not p.name.endswith(others)]

    def _remove(self, name: str) -> None:
        """Remove an image, unless it is a folder or its path leads out of the folder through a link."""
        path, top = self.out / name, os.path.realpath(self.out)
        inside = os.path.commonpath([os.path.realpath(path.parent), top]) == top
        if inside and (path.is_symlink() or not path.is_dir()):
            files.remove(path)


def _paths(out: Path, name: str) -> list[Path]:
    stem, _, suffix = name.rpartition(".")
    with contextlib.suppress(OSError), os.scandir(out) as entries:
        names = (entry.name for entry in entries)  # no list of paths: a million of them are 250 MB
        return sorted(out / n for n in names if n.startswith(f"{stem}.") and n.endswith(f".{suffix}"))
    return []


def _rows(out: Path, name: str) -> Iterator[dict[str, Any]]:
    return itertools.chain.from_iterable(jsonl.read_lines(path) for path in _paths(out, name))


def _in_order(paths: Sequence[Path], key: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of several files in the order of `key` and file, each once; they are read anew one by one."""
    with contextlib.ExitStack() as closing:
        opened = [closing.enter_context(jsonl.open_rows(path)) for path in paths]
        marks: list[str] = []
        where, begins = array("q"), array("q")
        for number, file in enumerate(opened):
            for begin, row in jsonl.rows_in(file):
                marks.append(f"{row.get(key)}\0{row.get('file')}")
                where.append(number)
                begins.append(begin)

        def row_at(place: int) -> dict[str, Any]:
            opened[where[place]].seek(begins[place])
            return next(jsonl.rows_in(opened[where[place]]))[1]

        for _, places in itertools.groupby(sorted(range(len(marks)), key=marks.__getitem__), marks.__getitem__):
            rows = [row_at(place) for place in places]
            unique = {jsonl.line(dict(sorted(row.items()))): row for row in rows} if len(rows) > 1 else {"": rows[0]}
            yield from unique.values()


def entries(out: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of all manifests of a folder."""
    return _rows(out, MANIFEST)


def failures(out: Path) -> dict[str, str]:
    """Return the reason of each failure in the folder `out`, by source."""
    return {str(row["path"]): str(row.get("reason", "")) for row in _rows(out, FAILED) if "path" in row}


def notes(out: Path) -> list[Path]:
    """Return the paths of the manifests and lists of failures in a folder."""
    return [*_paths(out, MANIFEST), *_paths(out, FAILED)]
