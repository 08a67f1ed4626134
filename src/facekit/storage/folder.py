"""Folders of images with an optional manifest, and the one function that maps a folder onto another."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ..errors import CardError, FacekitError, InputError, Interrupted, OutOfMemory, SomeFailed
from ..runtime import console
from . import card, files
from .listing import SUFFIXES, Listing, list_images

MANIFEST = "manifest.jsonl"
FAILED = "failed.jsonl"


@dataclass(frozen=True)
class Source:
    """An image to read: where it is, and its name relative to its folder (forward slashes)."""

    path: Path
    name: str


@dataclass
class Made:
    """An image that was made: its name relative to the output, its bytes (or what encodes them), its manifest entry."""

    name: str
    data: bytes | Callable[[], bytes]
    entry: dict[str, Any] = field(default_factory=dict)


class Folder:
    """A folder of images, sub-folders included, with what `manifest.jsonl` says about them if there is one.

    Raises InputError where the folder is missing.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"no such file or folder: {self.path}", "check the path")
        if not self.path.is_dir():
            raise InputError(f"{self.path} is not a folder", "give a folder of images")

    @cached_property
    def listing(self) -> Listing:
        """The images' names and how many other files there are; see `list_images`."""
        return list_images(self.path)

    @property
    def names(self) -> list[str]:
        """The images' names relative to the folder, sorted."""
        return self.listing.names

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The manifest by file name; the manifests of shards (`manifest.2-of-4.jsonl`) count as one."""
        rows = itertools.chain.from_iterable(read_lines(p) for p in sorted(self.path.glob("manifest*.jsonl")))
        return {row["file"]: row for row in rows if "file" in row}

    @property
    def aligned(self) -> bool:
        """Whether the folder is the output of `facekit align`: its card says so."""
        with contextlib.suppress(FacekitError):
            return card.load(self.path / card.NAME).get("command") == "align"
        return False

    def sources(self) -> list[Source]:
        """The images as sources; raises InputError where there is none."""
        if not self.names:
            extra = f" ({self.listing.others} other files)" if self.listing.others else ""
            raise InputError(f"no images in {self.path}{extra}", f"images end in {' '.join(SUFFIXES)}")
        return [Source(self.path / name, name) for name in self.names]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a JSON-lines file; a line cut by a kill is passed over."""
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row


def open_source(path: str | Path, out: str | Path | None = None) -> list[Source]:
    """List the sources of a folder or of a single image file, without what lies in the output folder `out`.

    Raises InputError where there is none, CardError where `path` is `out`.
    """
    path = Path(path)
    place = Path(out).resolve() if out else None
    if place == path.resolve():
        raise CardError(f"{path} is both input and output", "choose another output")
    if path.is_file():
        return [Source(path, path.name)]
    found = Folder(path).sources()
    if place and path.resolve() in place.parents:
        found = [source for source in found if place not in source.path.resolve().parents]
    if not found:
        raise InputError(f"no images in {path} outside the output {out}", "choose another input folder")
    return found


def output_names(sources: Sequence[Source], suffix: str = ".png") -> dict[str, str]:
    """Return each source's output name: its own with `suffix`; `a.jpg` beside `a.png` become `a_jpg` and `a_png`."""
    stems = Counter(str(PurePosixPath(source.name).with_suffix("")) for source in sources)
    out = {}
    for source in sources:
        name = PurePosixPath(source.name)
        stem, old = str(name.with_suffix("")), name.suffix.removeprefix(".")
        if stems[stem] > 1:
            stem = f"{stem}_{old}"
            while stem in stems:
                stem += "_"
        out[source.name] = stem + suffix
    return out


def keep_originals(sources: Sequence[Source], out: Path, names: Mapping[str, str], force: bool) -> None:
    """Raise CardError where output would overwrite an input, or an image that no run of facekit has made."""
    ours = force or any((out / mark).exists() for mark in (card.NAME, card.UNFINISHED))
    originals = {source.path.resolve() for source in sources}
    for target in (out / name for name in names.values()):
        if os.path.exists(target) and (not ours or target.resolve() in originals):
            raise CardError(f"{target} is there already, and facekit has not made it", "choose another output folder")


@dataclass(frozen=True)
class Shard:
    """Which part of a folder this process does: every `count`-th image from `index` on (1-based, as in `2/4`)."""

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
    def manifest(self) -> str:
        """The name of this shard's manifest."""
        return MANIFEST if self.count == 1 else f"manifest.{self.index}-of-{self.count}.jsonl"

    @property
    def failed(self) -> str:
        """The name of this shard's list of failures."""
        return FAILED if self.count == 1 else f"failed.{self.index}-of-{self.count}.jsonl"


@dataclass
class Outcome:
    """What a folder_map did: files made now, files there before, sources that failed."""

    made: int = 0
    kept: int = 0
    failed: int = 0


T = TypeVar("T")


def folder_map(
    title: str,
    sources: Sequence[Source],
    out: Path,
    values: dict[str, Any],
    work: Callable[[Source], T],
    together: Callable[[list[tuple[Source, T]]], list[list[Made] | Exception]] | None = None,
    *,
    batch: int = 1,
    workers: int = 0,
    processes: bool = False,
    limit: int | None = None,
    shard: str | None = None,
    force: bool = False,
    made: Callable[[], dict[str, Any]] = dict,
) -> Outcome:
    """Map images into the folder `out`: resumable, atomic, failures noted, and its card `values` written last.

    `work` reads one source, in a pool of `workers` threads (or processes: then it must be picklable); `together` turns
    up to `batch` of its results into images, in this thread, while threads read the next and encode those before;
    without it `work` returns the images itself (list[Made]).
    With `limit` only the first images are asked for; the card of shards is written when all of them are done.
    A source whose images stand in the manifest is done; one that failed is tried again only when its file has changed
    or with `force`. An exception that `work` raises or `together` returns is a line in `failed.jsonl`: path, stage,
    reason. Raises CardError where `out` holds another card's run, Interrupted on Ctrl-C, SomeFailed if sources failed
    now, OutOfMemory where a worker process was killed.
    """
    part = Shard.parse(shard)
    if force and part.count > 1:
        raise CardError("--force would undo what the other shards do", f"remove {out}, then start the shards again")
    state = card.claim(out, values, force=force)
    if force:
        for old in [*out.glob("manifest*.jsonl"), *out.glob("failed*.jsonl")]:
            old.unlink()
    if state == "unfinished" and part.count == 1:
        files.sweep(out)
    manifest, failed = out / part.manifest, out / part.failed
    _end_cut_line(manifest)
    done = _rows(out)
    mine = list(sources)[part.index - 1 :: part.count][:limit]
    todo = [source for source in mine if not _is_done(out, source, done)]
    outcome = Outcome(kept=len(mine) - len(todo))
    if not todo and state == "finished":
        bad = sum(source.name in _failures(out) for source in mine)
        what = f"{outcome.kept} sources" + (f", {bad} of them failed" if bad else "")
        console.note(f"{title}: nothing to do, {out} is complete ({what}; --force does them again)")
        return outcome
    if state == "finished":  # more images have come since
        card.reopen(out)
    _forget(failed, todo)
    console.note(f"{title}: {len(todo)} images" + (f", {outcome.kept} done before" if outcome.kept else ""))
    with console.progress(title, len(todo)) as bar, pool_of(workers, processes) as pool:
        try:
            ahead = 2 * max(workers, 1) + batch
            groups = _batches(_results(pool, work, todo, ahead), batch)
            for source, images in _images(pool if together and not processes else None, groups, together, ahead):
                images = _with_names_that_fit(out, images)
                if isinstance(images, Exception):
                    _note_failure(failed, source, images)
                    outcome.failed += 1
                else:
                    _write(out, manifest, source, images)
                    outcome.made += len(images)
                bar.advance(1, failed=outcome.failed)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{title}: stopped after {outcome.made} images", "run the same command again to go on"
            ) from None
        except futures.BrokenExecutor as error:
            raise OutOfMemory(
                f"{title}: a worker process was killed, as happens when memory runs out",
                "run the same command again with fewer --workers: it goes on",
            ) from error
    done = _rows(out)
    if all(_is_done(out, source, done) for source in (mine if part.count == 1 else sources)):
        if part.count > 1:
            _merge(out)
            failed = out / FAILED
        card.finish(out, values, {**made(), "images": len(Folder(out).entries)})
    if outcome.failed:
        raise SomeFailed(
            f"{title}: {outcome.made} images made, {outcome.failed} of {len(todo)} sources failed",
            f"{failed} says which and why",
        )
    console.note(f"{title}: {outcome.made} images made in {out}")
    return outcome


@contextlib.contextmanager
def pool_of(workers: int, processes: bool) -> Iterator[futures.Executor | None]:
    """Give a pool of threads or processes, nothing for a single process; what waits is dropped when the block ends."""
    if workers < 2 and processes:
        yield None
        return
    kind = futures.ProcessPoolExecutor if processes else futures.ThreadPoolExecutor
    pool = kind(max(workers, 1))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _results(
    pool: futures.Executor | None, work: Callable[[Source], Any], todo: Sequence[Source], ahead: int
) -> Iterator[tuple[Source, Any]]:
    """Yield each source with its result or exception, in order, with at most `ahead` of them in memory."""
    if pool is None:
        yield from ((source, _guard(work, source)) for source in todo)
        return
    waiting: list[tuple[Source, futures.Future]] = []
    rest = iter(todo)
    while True:
        more = itertools.islice(rest, ahead - len(waiting))
        waiting += [(source, pool.submit(_guard, work, source)) for source in more]
        if not waiting:
            return
        source, future = waiting.pop(0)
        yield source, future.result()


def _guard(work: Callable[[Any], Any], item: Any) -> Any:
    """Run `work`; whatever one image raises must not stop the folder."""
    try:
        return work(item)
    except OutOfMemory:  # the next images would fail as well
        raise
    except Exception as error:
        return error


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while group := list(itertools.islice(rest, size)):
        yield group


def _apply(together: Callable | None, group: list[tuple[Source, Any]]) -> list[Any]:
    """Turn a group of results into lists of images; exceptions of `work` pass through."""
    good = [(source, value) for source, value in group if not isinstance(value, Exception)]
    made = iter(together(good) if together and good else [value for _, value in good])
    return [value if isinstance(value, Exception) else next(made) for _, value in group]


def _images(
    pool: futures.Executor | None, groups: Iterable[list[tuple[Source, Any]]], together: Callable | None, ahead: int
) -> Iterator[tuple[Source, list[Made] | Exception]]:
    """Yield each source with its images, encoded, or an exception, in order; a pool encodes up to `ahead` of them."""
    waiting: deque[tuple[Source, futures.Future]] = deque()
    for group in groups:
        for (source, _), result in zip(group, _apply(together, group), strict=True):
            if pool is None:
                yield source, _guard(_encoded, result)
                continue
            waiting.append((source, pool.submit(_guard, _encoded, result)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
    for source, future in waiting:
        yield source, future.result()


def _encoded(images: list[Made] | Exception) -> list[Made] | Exception:
    if isinstance(images, Exception):
        return images
    return [replace(image, data=image.data()) if callable(image.data) else image for image in images]


def _with_names_that_fit(out: Path, images: list[Made] | Exception) -> list[Made] | Exception:
    """Return the images, or an InputError where the file system takes no name as long as one of theirs."""
    for image in [] if isinstance(images, Exception) else images:
        try:
            os.lstat(out / image.name)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return InputError(f"the name {image.name[:40]}… is too long for a file here", "rename the image")
    return images


def _write(out: Path, manifest: Path, source: Source, images: list[Made]) -> None:
    rows = []
    for image in images:
        assert isinstance(image.data, bytes)
        files.write_bytes(out / image.name, image.data)
        rows.append({"file": image.name, "source": source.name, **_stamp(source), **image.entry})
    files.append_line(manifest, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))


def _stamp(source: Source) -> dict[str, int]:
    """Return what tells whether a source has changed; nothing for one that is gone."""
    try:
        stat = source.path.stat()
    except OSError:
        return {}
    return {"source_bytes": stat.st_size, "source_mtime": stat.st_mtime_ns}


def _note_failure(failed: Path, source: Source, error: Exception) -> None:
    reason = error.message if isinstance(error, FacekitError) else f"{type(error).__name__}: {error}"
    stage = getattr(error, "stage", "read")
    row = {"path": source.name, "stage": stage, "reason": reason, **_stamp(source)}
    files.append_line(failed, json.dumps(row, ensure_ascii=False))
    console.warn(f"{source.name}: {reason}")


def _rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what the manifests and the lists of failures say, by source."""
    rows = _failures(out)
    for row in itertools.chain.from_iterable(read_lines(path) for path in sorted(out.glob("manifest*.jsonl"))):
        if "file" in row and "source" in row:
            rows.setdefault(row["source"], []).append(row)
    return rows


def _merge(out: Path) -> None:
    """Make the manifests of all shards one, and their failures: whole before theirs go, in the order of the sources."""
    for name, key in ((MANIFEST, "source"), (FAILED, "path")):
        stem = Path(name).stem
        rows = [row for path in sorted(out.glob(f"{stem}*.jsonl")) for row in read_lines(path)]
        unique = {json.dumps(row, sort_keys=True): row for row in rows}
        rows = sorted(unique.values(), key=lambda row: (str(row.get(key)), str(row.get("file"))))
        if rows:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            files.write_text(out / name, text)
        for path in out.glob(f"{stem}.*-of-*.jsonl"):
            path.unlink(missing_ok=True)


def failures(out: Path) -> dict[str, str]:
    """Return why images failed on their way into the folder `out`, by their source."""
    return {name: str(rows[0].get("reason", "")) for name, rows in _failures(out).items()}


def _failures(out: Path) -> dict[str, list[dict[str, Any]]]:
    rows = itertools.chain.from_iterable(read_lines(path) for path in sorted(out.glob("failed*.jsonl")))
    return {row["path"]: [row] for row in rows if "path" in row}


def _is_done(out: Path, source: Source, rows: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether the source, as it is now, has failed or all images made of it are there."""
    stamp = _stamp(source)
    known = [row for row in rows.get(source.name, ()) if all(row.get(key) == value for key, value in stamp.items())]
    return bool(known) and all(os.path.exists(out / row["file"]) for row in known if "file" in row)


def _forget(failed: Path, todo: Sequence[Source]) -> None:
    """Drop from `failed.jsonl` the sources that are tried again."""
    if failed.exists():
        again = {source.name for source in todo}
        rows = [row for row in read_lines(failed) if row.get("path") not in again]
        files.write_text(failed, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _end_cut_line(path: Path) -> None:
    if path.exists() and path.read_bytes()[-1:] not in (b"", b"\n"):
        files.append_line(path, "")
