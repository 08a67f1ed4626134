"""What `facekit crawl` does: prepare the search, download into a folder that remembers, and report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import CardError, InputError, Interrupted, SomeFailed
from ..runtime import console
from ..storage import card, claim, files, provenance, working_copy
from ..storage.folder import FAILED, MANIFEST
from ..storage.lock import held
from . import find, tag_presets
from .archive import NAME, Archive
from .base import Site
from .crawler import CrawlResult, Walk, preview, run_walks
from .filters import Filters, aspect_of, kinds, ratings
from .forget import forget
from .http_client import HttpClient
from .size_estimate import size_of
from .unsent import sent_in_parts
from .url_guard import Hosts

WORKERS = 4
POLITE = 5.0  # requests/s and host; a higher rate is warned about
EXAMPLES = {"urls": "--from list.txt", "local": "--from folder/"}


@dataclass
class Session:
    """One crawl: its options as on the card, its site, its walks and its HTTP client."""

    options: dict[str, Any]
    out: Path
    site: Site
    walks: list[Walk]
    client: HttpClient

    @property
    def limit(self) -> int | None:
        """Images in all, or of each label."""
        return self.options.get("limit")


def crawl(
    options: Mapping[str, Any],
    *,
    rate: float = 1.0,
    workers: int | None = None,
    update: bool = False,
    retry_failed: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> Path:
    """Crawl as the `options` of `facekit crawl` say; return the folder.

    Raises CardError for options that the site lacks or does not take and for a folder of another crawl, InputError
    if the site gives nothing, SomeFailed if downloads failed, now or in an earlier run that is not repeated.
    """
    session = prepare(options, rate)
    out, values = session.out, {"facekit": 1, "command": "crawl", "options": session.options}
    if dry_run:
        with contextlib.closing(Archive(None, None if force else out)) as archive:
            _restart(session, archive, update, retry_failed)
            _announce(session, archive)
        return out
    with held(out, "crawl"):
        if force:
            forget(out)
        earlier = {**session.options, **_earlier_limit(out, session.options)}
        _refuse_foreign(out, force)
        state = claim.take(out, {**values, "options": earlier}, force=force)
        files.sweep(out, ours=False)  # an unfinished crawl recovers below
        recorded = (out / NAME).exists() or any(copy.parts.names for copy in working_copy.of(out))
        if state != "new" and (out / MANIFEST).exists() and not recorded:
            raise InputError(
                f"{out / NAME}, the record of what was downloaded, is missing",
                "restore it, or start again with --force",
            )
        with contextlib.closing(Archive(out)) as archive, sent_in_parts(archive) as elsewhere:
            if state == "unfinished" or elsewhere:
                archive.recover({walk.label: walk.filters for walk in session.walks})
            _restart(session, archive, update, retry_failed)
            if state == "finished":
                if _is_complete(session, archive):
                    _report_complete(out, archive)
                    return out
                claim.reopen(out)
            try:
                result = run_walks(
                    session.site, session.client, archive, session.walks, session.limit, workers or WORKERS
                )
            except KeyboardInterrupt:
                reason = f"crawl: stopped with {_progress(archive)}"
                raise Interrupted(reason, "run the same command again to continue") from None
            finally:
                archive.list_failures()
            _finish(session, values, archive, result)
    return out


def _refuse_foreign(out: Path, force: bool) -> None:
    """Raise CardError where the folder holds files that a crawl would write to and no crawl has written."""
    ours = any((out / name).exists() for name in (card.NAME, card.UNFINISHED, NAME))
    for name in () if ours or force else (MANIFEST, FAILED):
        if os.path.lexists(out / name):
            raise CardError(
                f"{out / name} already exists and was not created by facekit",
                "choose another output folder, or --force to replace it",
            )


def prepare(options: Mapping[str, Any], rate: float) -> Session:
    """Return the crawl that options describe; nothing is requested yet. Raises CardError and InputError as `crawl`."""
    given = {key: v for key, v in options.items() if v not in (None, "", [], ()) and v is not False}
    kind = find(given["site"])
    if not kind.rated:
        given.pop("rating", None)
    _check(kind, given)
    filters = Filters(
        ratings=ratings(given["rating"]) if kind.rated else None,
        min_size=given["min_size"],
        aspect=aspect_of(given.get("aspect")),
        kinds=kinds(given["types"]),
        min_score=given.get("min_score"),
        want=tuple(given.get("want", ())),
        without=tuple(given.get("without", ())),
        max_bytes=round(given["max_mb"] * 1e6),
    )
    site = kind(address=given.get("address", ""), given=given.get("source", ""), out=given["out"])
    site.open()
    local = given.get("allow_local", False)
    hosts = Hosts([*site.hosts, *given.get("allow_host", [])], site.ports, local)
    if rate > POLITE and not local:
        console.warn(f"--rate {rate:g}: sites tolerate about {POLITE:g} requests/s, and may block you")
    walks = _walks(site, given.get("tags", "").split(), given.get("expression"), filters)
    return Session(given, Path(given["out"]), site, walks, HttpClient(hosts, rate))


def _check(kind: type[Site], given: dict[str, Any]) -> None:
    """Raise CardError for options that a site lacks or does not take."""
    site = given["site"]
    if kind.needs == "source":
        if "source" not in given:
            raise CardError(f"crawl {site} needs --from", EXAMPLES.get(site, "--from PATH"))
        for key in ("tags", "expression", "address", "min_score"):
            if key in given:
                raise CardError(f"--{key.replace('_', '-')} is for boards, not for {site}", "leave it out")
        return
    if "source" in given:
        raise CardError(f"--from is for urls and local, not for {site}", 'use --tags "..."')
    if "tags" not in given and "expression" not in given:
        raise CardError(f"crawl {site} needs --tags or --expression", 'for example --tags "solo portrait"')
    if "limit" not in given:
        raise CardError(f"crawl {site} needs --limit", "the number of images, for example --limit 1000")


def _walks(site: Site, tags: list[str], expression: str | None, filters: Filters) -> list[Walk]:
    """Return the searches: one for the tags, or one for each expression, into its folder."""
    if expression is None:
        return [Walk("", site.query(tags, filters), filters, "" if site.remote else None)]
    chosen = tag_presets.labels(expression)
    walks = []
    for label in chosen:
        unwanted = tuple(dict.fromkeys((*filters.without, *tag_presets.others(label, chosen))))
        narrow = replace(filters, without=unwanted)
        walks.append(Walk(label, site.query([*tags, label], narrow), narrow, label))
    return walks


def _restart(session: Session, archive: Archive, update: bool, retry_failed: bool) -> None:
    """Read a list or folder anew, for it may have grown; with `update` search a board again from the newest post."""
    listed = session.site.needs == "source"
    for walk in session.walks:
        if update or retry_failed:
            archive.retry_failed(walk.label)
        if update or listed:
            archive.restart(walk.label)
        if listed:
            for page in session.site.pages(session.client, walk.tags, None):
                archive.add(walk.label, page, walk.filters, walk.folder)


def _is_complete(session: Session, archive: Archive) -> bool:
    """Return whether every walk has its images, or no more posts and nothing to retry."""
    for walk in session.walks:
        enough = session.limit is not None and archive.count("done", walk.label) >= session.limit
        if not enough and not (archive.position(walk.label)[1] and not archive.waiting(walk.label)):
            return False
    return True


def _report_complete(out: Path, archive: Archive) -> None:
    """Say that there is nothing to do; raises SomeFailed if downloads had failed."""
    console.note(f"crawl: nothing to do, {out} is complete ({_progress(archive)}; a higher --limit downloads more)")
    failed = archive.count("failed") + archive.count("again")
    if failed:
        raise SomeFailed(
            f"{failed} images of an earlier run could not be downloaded; {out}/failed.jsonl has the reasons",
            "--retry-failed tries them again",
        )


def _earlier_limit(out: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return the limit on the folder's card: another limit is not another crawl."""
    for path in (out / card.NAME, out / card.UNFINISHED):
        if path.exists():
            with contextlib.suppress(CardError):  # `claim` reports it
                return {"limit": card.load(path).get("options", {}).get("limit")}
    return {"limit": given["limit"]} if "limit" in given else {}


def _progress(archive: Archive) -> str:
    """Return how many images there are, and how many failed."""
    failed = archive.count("failed") + archive.count("again")
    return f"{archive.count('done')} images" + (f", {failed} failed" if failed else "")


def _skipped(reasons: dict[str, int]) -> str:
    """Return the reasons for which posts were skipped, the most frequent first."""
    return ", ".join(f"{why} {count}" for why, count in sorted(reasons.items(), key=lambda item: -item[1]))


def _announce(session: Session, archive: Archive) -> None:
    """Print what would be downloaded and how large it is."""
    posts = list(preview(session.site, session.client, archive, session.walks, session.limit))
    size = size_of(session.site, session.client, posts)
    seen, reasons = archive.seen()
    lines = [f"crawl: {len(posts)} images of {session.options['site']} into {session.out}, {size}; {seen} posts seen"]
    if reasons:
        lines.append(f"skipped: {_skipped(reasons)}")
    listed = [
        {
            "id": post.id,
            "page": post.page or post.source,
            "label": post.label or None,
            "width": post.width,
            "height": post.height,
            "bytes": post.bytes,
            "rating": post.rating,
        }
        for post in posts
    ]
    lines += ["  ".join(filter(None, (str(row["label"] or ""), str(row["page"])))) for row in listed[:10]]
    if len(posts) > 10:
        lines.append(f"and {len(posts) - 10} more")
    figures = {"images": len(posts), "bytes": size.bytes, "estimated": size.known < size.count, "seen": seen}
    console.result("\n".join(lines), **figures, passed_over=reasons, posts=listed, options=session.options)


def _finish(session: Session, values: dict[str, Any], archive: Archive, result: CrawlResult) -> None:
    """Write the card and report; raises SomeFailed if downloads failed, InputError if there are no images."""
    out, limit = session.out, session.limit
    count, failed = archive.count("done"), archive.list_failures()
    seen, reasons = archive.seen()
    if not count and not failed:
        why = f": {seen} posts, all skipped ({_skipped(reasons)})" if seen else ": there are no such posts"
        raise InputError(f"no images{why}", "check the tags and --rating, --min-size, --types, --want, --without")
    labels = {walk.label: archive.count("done", walk.label) for walk in session.walks if walk.label}
    made = {"images": count, "failed": failed, "seen": seen, "passed_over": reasons}
    made |= {"requests": session.client.traffic.requests} | ({"labels": labels} if labels else {})
    claim.finish(out, values, {**provenance.collect("requests", "pillow"), **made})
    text = f"crawl: {result.kept} images downloaded; {out} has {_progress(archive)}"
    console.note(text + (f"; skipped: {_skipped(reasons)}" if reasons else ""))
    for walk in session.walks:
        had = archive.count("done", walk.label)
        if limit and had < limit:
            console.note(f"there are no more{f' of {walk.label}' if walk.label else ''}: {had} of {limit}")
    if failed:
        raise SomeFailed(
            f"{result.kept} images downloaded, {failed} could not be; {out}/failed.jsonl has the reasons",
            "the same command again retries what may pass; --retry-failed retries everything",
        )
