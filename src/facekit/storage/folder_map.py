"""`folder_map`, which maps one folder of images to another: the base of align, translate and other commands."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CardError, OutputError, SomeFailed
from ..runtime import console
from ..runtime.engine import LOCAL, Engine
from ..runtime.workers import piece_size, pool_of, stoppable
from . import card, claim, files, jsonl, lock, working_copy
from .folder import Chosen, Source
from .folder_work import Piece, done_apart, done_together
from .made import Made
from .manifest import Manifest, Output, notes
from .shard import LOCKS, Shard

T = TypeVar("T")
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
    tops: Sequence[str] = ("",),
    batch: int = 1,
    workers: int = 0,
    processes: bool = False,
    apart: bool = False,
    engine: Engine = LOCAL,
    ready: Callable[[], Any] | None = None,
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
    previous ones. Without `together`, `work` returns the images itself (list[Output]). With `apart` each worker does
    all of this with its own images. So do the workers of a cluster (`engine`), which also write the images: `work` and
    `together` must be picklable, and this process only renames the images and keeps the manifest; `ready` opens there
    what all images need. `names` are the output names by source, if they are known in advance, each in every folder of
    `tops` (such as "a/"). `values` is the card; `made` returns further results for it.

    A source whose images are in the manifest is done. If the source has changed, its old images and lines are removed
    and it is processed again. A source that failed is tried again when its file has changed, with `retry_failed` or
    with `force`. An exception that `work` raises or `together` returns becomes a line in `failed.jsonl`: path, stage,
    reason. `limit` processes only the first images. The card of shards is written when all of them are done. `mirror`
    removes images that no source has any more, if it returns true for the source's name.

    Raises CardError if `out` holds a run of another card or files that facekit did not create, OutputError if another
    process is writing to `out`, MissingError for a cluster that cannot be used, Interrupted on Ctrl-C, OutOfMemory if
    a worker process was killed, and at the end SomeFailed if any of the sources has failed, in this run or an earlier
    one.
    """
    part = Shard.parse(shard)
    if force and not part.whole:
        raise CardError(
            "--force would delete the other shards' output", f"remove {out}, then start the shards without --force"
        )
    with _holding(out, title, part) as briefly:
        with briefly():
            manifest = Manifest(out, part, Made((source.name for source in sources), names or {}, tops))
            job = _plan(title, sources, values, manifest, limit, force, retry_failed, mirror)
        outcome = Outcome(kept=len(job.mine) - len(job.todo))
        if job.todo or job.state != "finished" or job.cleaned:
            piece = Piece(work, together, batch, *((out, ready) if engine.remote else ()))
            seeing = engine.seeing(out / card.UNFINISHED, *(source.path for source in job.todo[:1]))
            _work_through(title, job, piece, outcome, apart, workers, processes, seeing)
            if engine.remote and job.part.whole:
                files.sweep(out)  # what workers left that are gone
            with briefly():
                _finish(out, values, sources, job, made)
        return _report(title, out, job, outcome)


@contextlib.contextmanager
def _holding(out: Path, title: str, part: Shard) -> Iterator[Callable[[], contextlib.AbstractContextManager]]:
    """Lock the output, or a shard's share of it; yields a function that locks all of it for a moment."""
    with lock.held(out, title, part.lock):
        if part.whole:
            for path in files.matching(out, LOCKS):
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
    mine: Sequence[Source]
    todo: Sequence[Source]
    cleaned: bool
    replace: bool


def _plan(
    title: str,
    sources: Sequence[Source],
    values: dict[str, Any],
    manifest: Manifest,
    limit: int | None,
    force: bool,
    retry_failed: bool,
    mirror: Callable[[str], bool] | None,
) -> Job:
    """Claim the output, read what is done, and remove what is out of date."""
    out, part, made = manifest.out, manifest.shard, manifest.made
    ours = any((out / name).exists() for name in (card.NAME, card.UNFINISHED))
    if ours:
        manifest.read()
    _refuse_foreign(out, sources, made, ours, force)
    if force:
        manifest.clear()
    state = claim.take(out, values, force=force)
    if part.whole:
        files.sweep(out, ours=state == "unfinished")
    jsonl.drop_cut_line(manifest.path)
    jsonl.drop_cut_line(manifest.failed_path)
    mine = sources[part.index - 1 :: part.count][:limit]
    states = [manifest.state(source) for source in mine]
    again = ("new", "changed", "failed") if retry_failed else ("new", "changed")
    todo = Chosen(mine, (number for number, state in enumerate(states) if state in again))
    stale = _stale(manifest, mirror) if part.whole else set()
    outdated = itertools.chain((source.name for source in todo), stale)
    known = {name for name in outdated if made.of(name) or name in manifest.failed}
    if state == "finished" and (todo or known):
        claim.reopen(out)
    gone = sum(bool(made.of(name)) for name in stale)
    if gone:
        console.note(f"{title}: {gone} images of {out} are out of date and are removed")
    if known:
        manifest.forget(known)
    changed = states.count("changed")
    if todo:
        kept = len(mine) - len(todo)
        before = f", {kept} done before" if kept else ""
        console.note(f"{title}: {len(todo)} images" + (f" ({changed} changed)" if changed else "") + before)
    return Job(part, state, manifest, mine, todo, bool(known), force or state == "unfinished")


def _refuse_foreign(out: Path, sources: Sequence[Source], made: Made, ours: bool, force: bool) -> None:
    """Raise CardError if output would replace an input, or a file that facekit did not create."""
    finished = ours and not (out / card.UNFINISHED).exists()
    real_folder: dict[str, str] = {}
    top = os.fspath(out)

    def real(place: str, name: str) -> str:  # texts: as paths these would take longer than all else of a rerun
        path = os.path.join(place, name)
        if os.path.islink(path):
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in real_folder:
            real_folder[folder] = os.path.realpath(folder)
        return os.path.join(real_folder[folder], name)

    there, places = bytearray(), set()  # a list of a million names is 70 MB
    for _, name in made.all_expected():
        there.append(os.path.lexists(os.path.join(top, name)))
        if there[-1]:
            places.add(os.path.dirname(real(top, name)))
    inputs = (real(os.fspath(source.folder), source.name) for source in sources) if places else ()
    originals = {path for path in inputs if os.path.dirname(path) in places}
    for owner, name in itertools.compress(made.all_expected(), there):
        foreign = not ours or (finished and not made.is_whole(owner) and not made.has(name, owner))
        if (originals and real(top, name) in originals) or (foreign and not force):
            raise CardError(
                f"{out / name} already exists and was not created by facekit", "choose another output folder"
            )
    if not ours and not force and (theirs := notes(out)):
        raise CardError(
            f"{theirs[0]} already exists and was not created by facekit",
            "choose another output folder, or --force to replace it",
        )


def _stale(manifest: Manifest, mirror: Callable[[str], bool] | None) -> set[str]:
    """Return the sources whose failures (with `mirror` also whose images) belong to inputs that are gone or moved."""
    made = manifest.made
    stale = {name for name in manifest.failed if not made.is_source(name)}
    for name, images in made.items() if mirror else ():
        gone = not made.is_source(name) or any(file not in made.expected(name) for file, *_ in images)
        if gone and mirror and mirror(name):
            stale.add(name)
    return stale


def _work_through(
    title: str, job: Job, piece: Piece, outcome: Outcome, apart: bool, workers: int, processes: bool, engine: Engine
) -> None:
    """Process the sources that are not done, and record each of them in order."""
    ahead = 2 * max(workers, 1) + piece.batch
    with (
        stoppable(title, lambda: f"{outcome.made} images"),
        console.progress(title, len(job.todo)) as bar,
        pool_of(workers, processes, engine, len(job.todo)) as pool,
    ):
        if apart or engine.remote:
            done = done_apart(pool, piece, job.todo, piece_size(pool, len(job.todo), piece.batch), ahead)
        else:
            done = done_together(pool, piece, job.todo, ahead, encode=not processes)
        for source, stamp, images in done:
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
        for copy in working_copy.of(out):
            copy.meet()
        manifest.read()
        if any(manifest.state(source) in ("new", "changed") for source in sources):
            return
        manifest.merge()
        files.sweep(out)
    claim.finish(out, values, {**made(), "images": manifest.made.count})


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
