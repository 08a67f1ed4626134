"""The crawl itself: list, filter, download, check and keep, with several downloads at a time under one rate limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..runtime import console
from ..storage import files
from .archive import Archive
from .base import Page, Site
from .errors import FetchError, Stopped
from .filters import Filters
from .http_client import HttpClient
from .post import Post
from .validate import validate

MAX_FAILURES = 20  # consecutive downloads that fail for a time: the site is down


@dataclass(frozen=True)
class Walk:
    """One search: its tags, which posts it keeps, its label and their sub-folder (None: that of each post)."""

    label: str
    tags: list[str]
    filters: Filters
    folder: str | None = None


@dataclass
class CrawlResult:
    """What this run of a crawl did."""

    kept: int = 0
    failed: int = 0
    bytes: int = 0
    row: int = 0  # consecutive failures
    retried: set[str] = field(default_factory=set)  # ids that had their second turn


def run_walks(
    site: Site, client: HttpClient, archive: Archive, walks: list[Walk], limit: int | None, workers: int
) -> CrawlResult:
    """Download until every walk has `limit` images or no more posts; raises InputError if the site gives nothing.

    An error or Ctrl-C aborts the downloads under way; everything finished is kept.
    """
    result = CrawlResult()
    had = {walk.label: archive.count("done", walk.label) for walk in walks}
    total = max(min(limit or site.total, site.total), *had.values()) if site.total else 0
    total = total or sum(max(limit or 0, count) for count in had.values())
    with console.progress("crawl", total, sum(had.values())) as bar:
        pool = futures.ThreadPoolExecutor(workers, thread_name_prefix="fetch")
        walker = futures.ThreadPoolExecutor(1, thread_name_prefix="walk")
        try:
            for walk in walks:
                _work(walk, site, client, archive, limit, workers, pool, walker, result, bar)
        except BaseException:
            client.abort()
            raise
        finally:
            for executor in (pool, walker):
                executor.shutdown(wait=True, cancel_futures=True)
    return result


def _work(
    walk: Walk,
    site: Site,
    client: HttpClient,
    archive: Archive,
    limit: int | None,
    workers: int,
    pool: futures.Executor,
    walker: futures.Executor,
    result: CrawlResult,
    bar: console.Bar,
) -> None:
    done = archive.count("done", walk.label)
    queue = deque(archive.waiting(walk.label))
    anchor, ended = archive.position(walk.label)
    pages = site.pages(client, walk.tags, anchor)
    page: futures.Future[Page] | None = None
    flying: dict[futures.Future, Post] = {}
    while True:
        room = workers - len(flying) if limit is None else min(workers, limit - done) - len(flying)
        for _ in range(min(room, len(queue))):
            post = queue.popleft()
            flying[pool.submit(fetch, site, client, archive, post, walk.filters)] = post
        wanting = limit is None or done + len(flying) + len(queue) < limit
        if page is None and not ended and wanting and len(queue) < 2 * workers:
            page = walker.submit(next, pages)
        if not flying and page is None:
            return
        ready, _ = futures.wait([*flying, *([page] if page else [])], return_when=futures.FIRST_COMPLETED)
        if page in ready and page is not None:
            found = page.result()
            queue.extend(archive.add(walk.label, found, walk.filters, walk.folder))
            ended, page = found.end, None
        for one in ready & flying.keys():
            post = flying.pop(one)
            done += _settle(post, one.result(), archive, queue, result, client, bar)


def _settle(
    post: Post,
    outcome: Any,
    archive: Archive,
    queue: deque[Post],
    result: CrawlResult,
    client: HttpClient,
    bar: console.Bar,
) -> int:
    """Record the outcome of a download; return 1 for an image that was kept."""
    if not isinstance(outcome, FetchError):
        result.row = 0
        kept = int(outcome[0] == "done")
        result.kept += kept
        result.bytes += outcome[1] * kept
        seconds = max(client.clock() - client.began, 1e-9)
        figures = {"MB": round(result.bytes / 1e6, 2), "MB/s": round(result.bytes / 1e6 / seconds, 3)}
        bar.advance(kept, **figures, requests=client.traffic.requests, failed=result.failed)
        return kept
    if outcome.again and post.id not in result.retried:
        result.retried.add(post.id)
        queue.append(post)  # a second turn, after the others
        return 0
    archive.fail(post, outcome)
    if outcome.stage != "filter":
        result.failed += 1
        result.row = result.row + 1 if outcome.again else 0
        console.warn(f"{post.page or post.url}: {outcome.message}" + (f" ({outcome.hint})" if outcome.hint else ""))
    if result.row >= MAX_FAILURES:
        raise InputError(
            f"{MAX_FAILURES} consecutive downloads failed: {outcome.message}",
            "the site may be down: run the same command again later; it continues",
        )
    return 0


def fetch(
    site: Site, client: HttpClient, archive: Archive, post: Post, filters: Filters
) -> tuple[str, int] | FetchError:
    """Download, check and keep one image; return "done" or "double" and its bytes, or the FetchError."""
    assert archive.folder
    if archive.has(post):
        return "double", 0
    part = files.temporary(archive.folder)

    def once(attempt: int) -> tuple[str, int]:
        site.fetch(client, post, part, filters.max_bytes)
        facts = validate(part, post, filters)
        return archive.keep(post, part, facts), facts.bytes

    try:
        return client.retry(once) if site.remote else once(0)
    except FetchError as error:
        error.again = error.again and site.remote
        return error
    except Stopped:
        return FetchError("stopped", stage="http", again=True)
    finally:
        part.unlink(missing_ok=True)


def preview(site: Site, client: HttpClient, archive: Archive, walks: list[Walk], limit: int | None) -> Iterator[Post]:
    """Yield the posts that a crawl would download now; requests only the site's lists."""
    for walk in walks:
        count = archive.count("done", walk.label)
        queue = deque(archive.waiting(walk.label))
        anchor, ended = archive.position(walk.label)
        pages = site.pages(client, walk.tags, anchor)
        while limit is None or count < limit:
            if queue:
                count += 1
                yield queue.popleft()
            elif ended:
                break
            else:
                page = next(pages)
                ended = page.end
                queue.extend(archive.add(walk.label, page, walk.filters, walk.folder))
