"""`folder_map`, which maps one folder of images to another: the base of align, translate and other commands."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CardError, OutOfMemory, OutputError, SomeFailed
from ..runtime import console
from ..runtime.workers import in_order, pool_of, stoppable
from . import card, claim, files, jsonl, lock
from .folder import Source
from .manifest import Manifest, Output, Stamp, notes
from .shard import LOCKS, Shard

T = TypeVar("T")
Group = list[tuple[Source, Any]]
PATIENCE = 60.0  # seconds that a shard waits while another one starts or finishes


@dataclass
class Outcome:
    """Counts of a folder_map: images made now, sources done in earlier runs, sources that failed now."""

    made: int = 0
    kept: int = 0
    failed: int = 0


def folder_map(
    title: str,
    sources: Sequence[Source],
    out: Path,
    values: dict[str, Any],
    work: Callable[[Source], T],
    together: Callable[[list[tuple[Source, T]]], list[list[Output] | Exception]] | None = None,
    *,
    names: Mapping[str, str] | None = None,
    batch: int = 1,
    workers: int = 0,
    processes: bool = False,
    limit: int | None = None,
    shard: str | None = None,
    force: bool = False,
    retry_failed: bool = False,
    mirror: Callable[[str], bool] | None = None,
    made: Callable[[], dict[str, Any]] = dict,
) -> Outcome:
    """Map images into the folder `out`. It can resume, writes atomically, lists failures, and writes the card last.

    `work` reads one source, in a pool of `workers` threads (or processes: then it must be picklable). `together` turns
    up to `batch` of its results into images, in this thread, while the threads read the next ones and encode the
    previous ones. Without `together`, `work` returns the images itself (list[Output]). `names` are the output names by
    source, if they are known in advance. `values` is the card; `made` returns further results for it.

    A source whose images are in the manifest is done. If the source has changed, its old images and lines are removed
    and it is processed again. A source that failed is tried again when its file has changed, with `retry_failed` or
    with `force`. An exception that `work` raises or `together` returns becomes a line in `failed.jsonl`: path, stage,
    reason. `limit` processes only the first images. The card of shards is written when all of them are done. `mirror`
    removes images that no source has any more, if it returns true for the source's name.

    Raises CardError if `out` holds a run of another card or files that facekit did not create, OutputError if another
    process is writing to `out`, Interrupted on Ctrl-C, OutOfMemory if a worker process was killed, and at the end
    SomeFailed if any of the sources has failed, in this run or an earlier one.
    """
    part = Shard.parse(shard)
    if force and not part.whole:
        raise CardError(
            "--force would delete the other shards' output", f"remove {out}, then start the shards without --force"
        )
    with _holding(out, title, part) as briefly:
        with briefly():
            job = _plan(title, sources, out, values, names or {}, part, limit, force, retry_failed, mirror)
        outcome = Outcome(kept=len(job.mine) - len(job.todo))
        if job.todo or job.state != "finished" or job.cleaned:
            _work_through(title, job, work, together, outcome, batch, workers, processes)
            with briefly():
                _finish(out, values, sources, job, made)
        return _report(title, out, job, outcome)


@contextlib.contextmanager
def _holding(out: Path, title: str, part: Shard) -> Iterator[Callable[[], contextlib.AbstractContextManager]]:
    """Lock the output, or a shard's share of it; yields a function that locks all of it for a moment."""
    with lock.held(out, title, part.lock):
        if part.whole:
            for path in sorted(out.glob(LOCKS)):
                with lock.held(out, title, path.name):  # raises if a shard is running
                    pass
            yield contextlib.nullcontext
        else:
            yield partial(lock.held, out, title, wait=PATIENCE)


@dataclass
class Job:
    """The work of this process: its sources, those that are not done, and the state of the output.

    `cleaned` says whether outdated images or failures were removed, `replace` whether foreign files may be overwritten.
    """

    part: Shard
    state: claim.State
    manifest: Manifest
    mine: list[Source]
    todo: list[Source]
    cleaned: bool
    replace: bool


def _plan(
    title: str,
    sources: Sequence[Source],
    out: Path,
    values: dict[str, Any],
    names: Mapping[str, str],
    part: Shard,
    limit: int | None,
    force: bool,
    retry_failed: bool,
    mirror: Callable[[str], bool] | None,
) -> Job:
    """Claim the output, read what is done, and remove what is out of date."""
    manifest = Manifest(out, part)
    ours = any((out / name).exists() for name in (card.NAME, card.UNFINISHED))
    if ours:
        manifest.read()
    _refuse_foreign(out, sources, names, manifest, ours, force)
    if force:
        manifest.clear()
    state = claim.take(out, values, force=force)
    if part.whole:
        files.sweep(out, ours=state == "unfinished")
    jsonl.drop_cut_line(manifest.path)
    jsonl.drop_cut_line(manifest.failed_path)
    mine = list(sources)[part.index - 1 :: part.count][:limit]
    states = {source.name: manifest.state(source) for source in mine}
    again = ("new", "changed", "failed") if retry_failed else ("new", "changed")
    todo = [source for source in mine if states[source.name] in again]
    stale = _stale(sources, names, manifest, mirror) if part.whole else set()
    known = (manifest.made.keys() | manifest.failed.keys()) & ({source.name for source in todo} | stale)
    if state == "finished" and (todo or known):
        claim.reopen(out)
    if stale & manifest.made.keys():
        console.note(f"{title}: {len(stale & manifest.made.keys())} images of {out} are out of date and are removed")
    if known:
        manifest.forget(known)
    changed = sum(states[source.name] == "changed" for source in todo)
    if todo:
        kept = len(mine) - len(todo)
        before = f", {kept} done before" if kept else ""
        console.note(f"{title}: {len(todo)} images" + (f" ({changed} changed)" if changed else "") + before)
    return Job(part, state, manifest, mine, todo, bool(known), force or state == "unfinished")


def _refuse_foreign(
    out: Path, sources: Sequence[Source], names: Mapping[str, str], manifest: Manifest, ours: bool, force: bool
) -> None:
    """Raise CardError if output would replace an input, or a file that facekit did not create."""
    finished = ours and not (out / card.UNFINISHED).exists()
    real_folder: dict[str, str] = {}

    def real(path: Path) -> str:
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in real_folder:
            real_folder[folder] = os.path.realpath(folder)
        return os.path.join(real_folder[folder], name)

    originals: set[str] | None = None
    for name in names.values():
        target = out / name
        if not os.path.lexists(target):
            continue
        if originals is None:
            originals = {real(source.path) for source in sources}
        foreign = not ours or (finished and name not in manifest.files)
        if real(target) in originals or (foreign and not force):
            raise CardError(f"{target} already exists and was not created by facekit", "choose another output folder")
    if not ours and not force and (found := notes(out)):
        raise CardError(
            f"{found[0]} already exists and was not created by facekit",
            "choose another output folder, or --force to replace it",
        )


def _stale(
    sources: Sequence[Source], names: Mapping[str, str], manifest: Manifest, mirror: Callable[[str], bool] | None
) -> set[str]:
    """Return the sources whose failures (with `mirror` also whose images) belong to inputs that are gone or moved."""
    here = {source.name for source in sources}
    stale = {name for name in manifest.failed if name not in here}
    if mirror:
        for name, images in manifest.made.items():
            if mirror(name) and (name not in here or any(file != names.get(name) for file, *_ in images)):
                stale.add(name)
    return stale


def _work_through(
    title: str,
    job: Job,
    work: Callable[[Source], Any],
    together: Callable[[Group], list[Any]] | None,
    outcome: Outcome,
    batch: int,
    workers: int,
    processes: bool,
) -> None:
    """Process the sources that are not done, and record each of them in order."""
    ahead = 2 * max(workers, 1) + batch
    with (
        stoppable(title, lambda: f"{outcome.made} images"),
        console.progress(title, len(job.todo)) as bar,
        pool_of(workers, processes) as pool,
    ):
        read = in_order(pool, partial(_attempt, work), job.todo, ahead)
        encoders = pool if together and not processes else None
        for source, stamp, images in _images(encoders, _batches(read, batch), together, ahead):
            if not isinstance(images, Exception):
                try:
                    job.manifest.check(images, job.replace)
                except OutputError as error:
                    error.stage = "write"  # type: ignore[attr-defined]
                    images = error
            if isinstance(images, Exception):
                job.manifest.fail(source, stamp, images)
                outcome.failed += 1
            else:
                job.manifest.add(source, stamp, images)
                outcome.made += len(images)
            bar.advance(1, failed=outcome.failed)


def _finish(
    out: Path, values: dict[str, Any], sources: Sequence[Source], job: Job, made: Callable[[], dict[str, Any]]
) -> None:
    """Write the card if the folder is complete: with shards, the last one to finish does it."""
    manifest = job.manifest
    if not job.part.whole:
        manifest = Manifest(out, job.part)
        manifest.read()
        if any(manifest.state(source) in ("new", "changed") for source in sources):
            return
        manifest.merge()
        job.manifest.path, job.manifest.failed_path = manifest.path, manifest.failed_path
        files.sweep(out)
    claim.finish(out, values, {**made(), "images": manifest.count})


def _report(title: str, out: Path, job: Job, outcome: Outcome) -> Outcome:
    """Print the result; raises SomeFailed if sources of this process have failed, in this run or an earlier one."""
    bad = sum(source.name in job.manifest.failed for source in job.mine)
    idle = not job.todo and job.state == "finished" and not job.cleaned
    if bad:
        did = f"nothing to do, {out} is complete, but" if idle else f"{outcome.made} images made,"
        raise SomeFailed(
            f"{title}: {did} {bad} of {len(job.mine)} sources failed",
            f"{job.manifest.failed_path} says which and why; --retry-failed tries them again",
        )
    if idle:
        console.note(f"{title}: nothing to do, {out} is complete ({outcome.kept} sources; --force does all again)")
    else:
        console.note(f"{title}: {outcome.made} images made in {out}")
    return outcome


def _attempt(work: Callable[[Source], Any], source: Source) -> tuple[Stamp, Any]:
    """Return a source's stamp from before it is read, and the result of `work` or the exception that it raises."""
    return source.stamp(), _guard(work, source)


def _guard(work: Callable[[Any], Any], item: Any) -> Any:
    """Run `work` and return its result or its exception: one broken image must not stop the folder."""
    try:
        return work(item)
    except OutOfMemory:  # the next images would fail too
        raise
    except Exception as error:
        return error


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while group := list(itertools.islice(rest, size)):
        yield group


def _images(
    pool: futures.Executor | None,
    groups: Iterable[list[tuple[Source, tuple[Stamp, Any]]]],
    together: Callable[[Group], list[Any]] | None,
    ahead: int,
) -> Iterator[tuple[Source, Stamp, list[Output] | Exception]]:
    """Yield each source in order, with its stamp and its encoded images or an exception.

    The pool encodes up to `ahead` of them in advance.
    """
    waiting: deque[tuple[Source, Stamp, futures.Future]] = deque()
    for group in groups:
        results = _apply(together, [(source, value) for source, (_, value) in group])
        for (source, (stamp, _)), result in zip(group, results, strict=True):
            if pool is None:
                yield source, stamp, _guard(_encoded, result)
                continue
            waiting.append((source, stamp, pool.submit(_guard, _encoded, result)))
            if len(waiting) > ahead:
                first, its_stamp, future = waiting.popleft()
                yield first, its_stamp, future.result()
    for source, stamp, future in waiting:
        yield source, stamp, future.result()


def _apply(together: Callable[[Group], list[Any]] | None, group: Group) -> list[Any]:
    """Turn a group of results into lists of images; exceptions of `work` are passed on."""
    good = [(source, value) for source, value in group if not isinstance(value, Exception)]
    made = iter(together(good) if together and good else [value for _, value in good])
    return [value if isinstance(value, Exception) else next(made) for _, value in group]


def _encoded(images: list[Output] | Exception) -> list[Output] | Exception:
    if isinstance(images, Exception):
        return images
    return [replace(image, data=image.data()) if callable(image.data) else image for image in images]
