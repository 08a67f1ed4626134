"""The crawl itself: walk, choose, fetch, check, keep, with several downloads at a time inside one polite rate."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runtime import console
from ..storage import files
from .archive import Archive
from .base import Page, Source
from .errors import Fault, Stopped
from .filters import Filters
from .http_client import Polite
from .post import Post
from .validate import prove

DEAD = 20  # images in a row that fail although they may be had later: the site is down


@dataclass(frozen=True)
class Job:
    """One walk: what to ask for, what to keep of it, and under which label. `folder` None leaves it to the posts."""

    label: str
    tags: list[str]
    filters: Filters
    folder: str | None = None


@dataclass
class Harvest:
    """What a crawl did now."""

    made: int = 0
    failed: int = 0
    bytes: int = 0
    row: int = 0  # failures one after another
    tried: set[str] = field(default_factory=set)  # ids that get a second turn


def harvest(
    source: Source, polite: Polite, archive: Archive, jobs: list[Job], limit: int | None, workers: int
) -> Harvest:
    """Fetch until every job has `limit` images or its walk has ended. Raises InputError where the site gives nothing.

    What is under way is finished or given up before an error or Ctrl-C goes on; everything finished is kept.
    """
    result = Harvest()
    had = {job.label: archive.count("done", job.label) for job in jobs}
    total = max(min(limit or source.total, source.total), *had.values()) if source.total else 0
    total = total or sum(max(limit or 0, count) for count in had.values())
    with console.progress("crawl", total, sum(had.values())) as bar:
        pool = futures.ThreadPoolExecutor(workers, thread_name_prefix="fetch")
        walker = futures.ThreadPoolExecutor(1, thread_name_prefix="walk")
        try:
            for job in jobs:
                _work(job, source, polite, archive, limit, workers, pool, walker, result, bar)
        except BaseException:
            polite.stop.set()
            raise
        finally:
            for executor in (pool, walker):
                executor.shutdown(wait=True, cancel_futures=True)
    return result


def _work(
    job: Job,
    source: Source,
    polite: Polite,
    archive: Archive,
    limit: int | None,
    workers: int,
    pool: futures.Executor,
    walker: futures.Executor,
    result: Harvest,
    bar: console.Bar,
) -> None:
    done = archive.count("done", job.label)
    queue = deque(archive.waiting(job.label))
    anchor, ended = archive.walk(job.label)
    pages = source.pages(polite, job.tags, anchor)
    page: futures.Future[Page] | None = None
    flying: dict[futures.Future, Post] = {}
    while True:
        room = workers - len(flying) if limit is None else min(workers, limit - done) - len(flying)
        for _ in range(min(room, len(queue))):
            post = queue.popleft()
            flying[pool.submit(fetch, source, polite, archive, post, job.filters)] = post
        wanting = limit is None or done + len(flying) + len(queue) < limit
        if page is None and not ended and wanting and len(queue) < 2 * workers:
            page = walker.submit(next, pages)
        if not flying and page is None:
            return
        ready, _ = futures.wait([*flying, *([page] if page else [])], return_when=futures.FIRST_COMPLETED)
        if page in ready and page is not None:
            found = page.result()
            queue.extend(archive.add(job.label, found, job.filters, job.folder))
            ended, page = found.end, None
        for one in ready & flying.keys():
            post = flying.pop(one)
            done += _settle(post, one.result(), archive, queue, result, polite, bar)


def _settle(
    post: Post, outcome: Any, archive: Archive, queue: deque[Post], result: Harvest, polite: Polite, bar: console.Bar
) -> int:
    """Note what became of a post; return 1 for an image that was kept."""
    if not isinstance(outcome, Fault):
        result.row = 0
        kept = int(outcome[0] == "done")
        result.made += kept
        result.bytes += outcome[1] * kept
        seconds = max(polite.clock() - polite.began, 1e-9)
        figures = {"MB": round(result.bytes / 1e6, 2), "MB/s": round(result.bytes / 1e6 / seconds, 3)}
        bar.advance(kept, **figures, requests=polite.tally.requests, failed=result.failed)
        return kept
    if outcome.again and post.id not in result.tried:
        result.tried.add(post.id)
        queue.append(post)  # a second turn, after the others
        return 0
    archive.fail(post, outcome)
    if outcome.stage != "filter":
        result.failed += 1
        result.row = result.row + 1 if outcome.again else 0
        console.warn(f"{post.page or post.url}: {outcome.message}" + (f" ({outcome.hint})" if outcome.hint else ""))
    if result.row >= DEAD:
        raise InputError(
            f"{DEAD} images in a row cannot be had: {outcome.message}",
            "the site may be down: run the same command again later, it goes on",
        )
    return 0


def fetch(source: Source, polite: Polite, archive: Archive, post: Post, filters: Filters) -> tuple[str, int] | Fault:
    """Fetch, check and keep one image; return what became of it and its bytes, or the Fault."""
    assert archive.folder
    if archive.has(post):
        return "double", 0
    try:
        handle, name = tempfile.mkstemp(dir=archive.folder, prefix=".", suffix=".part")
    except OSError as error:
        files.cannot_write(archive.folder, error)
    part = Path(name)
    os.close(handle)

    def once(attempt: int) -> tuple[str, int]:
        source.fetch(polite, post, part, filters.max_bytes)
        proof = prove(part, post, filters)
        return archive.keep(post, part, proof), proof.bytes

    try:
        return polite.retry(once) if source.remote else once(0)
    except Fault as fault:
        fault.again = fault.again and source.remote
        return fault
    except Stopped:
        return Fault("stopped", stage="http", again=True)
    finally:
        part.unlink(missing_ok=True)


def preview(source: Source, polite: Polite, archive: Archive, jobs: list[Job], limit: int | None) -> Iterator[Post]:
    """Yield the posts that a crawl would fetch now; only the site's lists are asked."""
    for job in jobs:
        count = archive.count("done", job.label)
        queue = deque(archive.waiting(job.label))
        anchor, ended = archive.walk(job.label)
        pages = source.pages(polite, job.tags, anchor)
        while limit is None or count < limit:
            if queue:
                count += 1
                yield queue.popleft()
            elif ended:
                break
            else:
                page = next(pages)
                ended = page.end
                queue.extend(archive.add(job.label, page, job.filters, job.folder))
