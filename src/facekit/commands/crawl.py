"""`facekit crawl`: pictures from a board, a list of addresses or a folder, checked and with where they came from."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from . import options

if TYPE_CHECKING:
    from ..sources import Source
    from ..sources.archive import Archive
    from ..sources.crawler import Harvest, Job
    from ..sources.filters import Filters
    from ..sources.http_client import Polite

SITE = "safebooru, danbooru, safebooru.donmai.us, urls or local"
CHOOSE, NET = "Which images", "Network"
WORKERS = 4
POLITE = 5.0  # requests/s and host; above, a warning


def crawl(
    site: Annotated[str, typer.Argument(help=SITE)],
    out: Annotated[Path, typer.Argument(help="folder for the images")],
    *,
    tags: Annotated[str, typer.Option(help="tags to search a board for, with spaces between")] = "",
    expression: Annotated[
        Optional[str],
        typer.Option(help="all, or of angry,sad,smile,surprised,crying: a folder for each", metavar="NAMES"),
    ] = None,
    from_: Annotated[
        Optional[str], typer.Option("--from", help="urls: text file of addresses, or -; local: folder of images")
    ] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="images in all (of each expression)")] = None,
    rating: Annotated[
        str,
        typer.Option(help="ratings that are let in: general,sensitive,questionable,explicit", rich_help_panel=CHOOSE),
    ] = "general",
    min_size: Annotated[int, typer.Option(min=1, help="shorter edge, px", rich_help_panel=CHOOSE)] = 1,
    aspect: Annotated[
        Optional[str],
        typer.Option(help="width over height, from LOW to HIGH", metavar="LOW:HIGH", rich_help_panel=CHOOSE),
    ] = None,
    types: Annotated[
        str, typer.Option(help="file types, of jpg,png,webp,gif,bmp", rich_help_panel=CHOOSE)
    ] = "jpg,png,webp",
    min_score: Annotated[Optional[int], typer.Option(help="score on the board", rich_help_panel=CHOOSE)] = None,
    want: Annotated[
        Optional[list[str]], typer.Option(help="a tag that an image must have (repeat)", rich_help_panel=CHOOSE)
    ] = None,
    without: Annotated[
        Optional[list[str]], typer.Option(help="a tag that an image must not have (repeat)", rich_help_panel=CHOOSE)
    ] = None,
    max_mb: Annotated[float, typer.Option(min=0.001, help="largest file, MB", rich_help_panel=CHOOSE)] = 30.0,
    rate: Annotated[float, typer.Option(min=0.001, help="requests a second and host", rich_help_panel=NET)] = 1.0,
    workers: Annotated[
        Optional[int], typer.Option(min=1, max=64, help="downloads at a time; 4 if absent", rich_help_panel=NET)
    ] = None,
    address: Annotated[
        Optional[str], typer.Option(help="another board of the same engine: its address", rich_help_panel=NET)
    ] = None,
    allow_host: Annotated[
        Optional[list[str]], typer.Option(help="one more host that files may lie on (repeat)", rich_help_panel=NET)
    ] = None,
    allow_local: Annotated[
        bool, typer.Option("--allow-local", help="let hosts of this machine and network be asked", rich_help_panel=NET)
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="walk again from the newest post")] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Fetch pictures politely: one request a second, each image checked, and noted with its source.

    manifest.jsonl says of every image its id, md5, source, artist, rating, tags and page. A crawl that was stopped goes
    on when it is run again; a higher --limit fetches more. Only images rated general come, unless --rating says
    otherwise. Mind the rights: pictures belong to their artists.
    """
    from ..errors import Interrupted
    from ..runtime import console
    from ..sources import find
    from ..sources.archive import Archive, forget
    from ..sources.crawler import harvest
    from ..sources.filters import Filters, aspect_of, kinds, ratings
    from ..sources.http_client import Polite
    from ..sources.url_guard import Hosts
    from ..storage import claim

    out, kind = Path(out), find(site)
    want, without, allow_host = ([one] if isinstance(one, str) else one for one in (want, without, allow_host))
    given: dict[str, Any] = {"site": site, "out": str(out), "tags": " ".join(tags.split()), "expression": expression}
    given |= {"source": from_ and str(from_), "limit": limit, "rating": rating if kind.rated else None}
    given |= {"min_size": min_size, "aspect": aspect, "types": types, "min_score": min_score, "want": want}
    given |= {"without": without, "max_mb": max_mb, "address": address, "allow_host": allow_host}
    given |= {"allow_local": allow_local}
    given = {key: value for key, value in given.items() if value not in (None, "", [], ()) and value is not False}
    check(kind, given)
    filters = Filters(
        ratings=ratings(rating) if kind.rated else None,
        min_size=min_size,
        aspect=aspect_of(aspect),
        kinds=kinds(types),
        min_score=min_score,
        want=tuple(want or ()),
        without=tuple(without or ()),
        max_bytes=round(max_mb * 1e6),
    )
    origin = kind(address=address or "", given=str(from_ or ""), out=str(out))
    origin.open()
    todo = jobs(origin, tags.split(), expression, filters)
    polite = Polite(Hosts([*origin.hosts, *(allow_host or [])], origin.ports, allow_local), rate)
    if rate > POLITE and not allow_local:
        console.warn(
            f"--rate {rate:g} is more than the {POLITE:g} requests/s that sites put up with; they may shut you out"
        )
    if dry_run:
        with contextlib.closing(Archive(None, None if force else out)) as archive:
            begin(origin, polite, archive, todo, update)
            tell(origin, polite, archive, todo, given)
        return out
    values = {"facekit": 1, "command": "crawl", "options": given}
    if force:
        forget(out)
    state = claim.take(out, {**values, "options": {**given, **limit_before(out, given)}}, force=force)
    if state != "new":
        check_archive(out)
    with contextlib.closing(Archive(out)) as archive:
        if state == "unfinished":
            archive.mend({job.label: job.filters for job in todo})
        begin(origin, polite, archive, todo, update)
        if state == "finished":
            if is_complete(archive, todo, limit):
                console.note(
                    f"crawl: nothing to do, {out} is complete ({so_far(archive)}; a higher --limit fetches more)"
                )
                return out
            claim.reopen(out)
        try:
            result = harvest(origin, polite, archive, todo, limit, workers or WORKERS)
        except KeyboardInterrupt:
            raise Interrupted(f"crawl: stopped with {so_far(archive)}", "run the same command again to go on") from None
        finally:
            archive.list_failures()
        finish(out, values, archive, todo, result, polite)
    return out


def check(kind: type[Source], given: dict[str, Any]) -> None:
    """Raise CardError for options that a source lacks or does not take."""
    from ..errors import CardError

    site = given["site"]
    if kind.needs == "source":
        if "source" not in given:
            raise CardError(f"crawl {site} needs --from", "--from list.txt" if site == "urls" else "--from folder/")
        for key in ("tags", "expression", "address", "min_score"):
            if key in given:
                raise CardError(f"--{key.replace('_', '-')} is for boards, not for {site}", "leave it out")
        return
    if "source" in given:
        raise CardError(f"--from is for urls and local, not for {site}", 'give --tags "..."')
    if "tags" not in given and "expression" not in given:
        raise CardError(f"crawl {site} needs --tags or --expression", 'for example --tags "solo portrait"')
    if "limit" not in given:
        raise CardError(f"crawl {site} needs --limit", "say how many images you want: --limit 1000")


def check_archive(out: Path) -> None:
    """Raise InputError where a crawl's images are but not its archive: all of them would be fetched again."""
    from ..errors import InputError
    from ..sources.archive import NAME
    from ..storage.folder import MANIFEST

    if (out / MANIFEST).exists() and not (out / NAME).exists():
        raise InputError(
            f"{out / NAME} is missing, which knows what was fetched", "put it back, or --force begins anew"
        )


def jobs(origin: Source, tags: list[str], expression: str | None, filters: Filters) -> list[Job]:
    """Return the walks: one for the tags, or one for each expression, into its folder."""
    from dataclasses import replace

    from ..sources import tag_presets as presets
    from ..sources.crawler import Job

    if expression is None:
        folder = "" if origin.remote else None
        return [Job("", origin.query(tags, filters), filters, folder)]
    chosen = presets.labels(expression)
    out = []
    for label in chosen:
        unwanted = tuple(dict.fromkeys((*filters.without, *presets.others(label, chosen))))
        narrow = replace(filters, without=unwanted)
        out.append(Job(label, origin.query([*tags, label], narrow), narrow, label))
    return out


def begin(origin: Source, polite: Polite, archive: Archive, todo: list[Job], update: bool) -> None:
    """List the whole of a list or folder, which may have grown; let the walk of a board begin again with `update`."""
    for job in todo:
        if update or origin.needs == "source":
            archive.begin_again(job.label)
        if origin.needs == "source":
            for page in origin.pages(polite, job.tags, None):
                archive.add(job.label, page, job.filters, job.folder)


def is_complete(archive: Archive, todo: list[Job], limit: int | None) -> bool:
    """Whether every walk has its images, or has come to its end with nothing left to try."""
    for job in todo:
        enough = limit is not None and archive.count("done", job.label) >= limit
        if not enough and not (archive.walk(job.label)[1] and not archive.waiting(job.label)):
            return False
    return True


def limit_before(out: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return the limit of the run that the folder holds: another limit makes no other run."""
    from ..errors import CardError
    from ..storage import card

    for path in (out / card.NAME, out / card.UNFINISHED):
        if path.exists():
            with contextlib.suppress(CardError):  # `claim` tells of it
                return {"limit": card.load(path).get("options", {}).get("limit")}
    return {"limit": given["limit"]} if "limit" in given else {}


def so_far(archive: Archive) -> str:
    """Return how many images there are, and how many cannot be had."""
    failed = archive.count("failed") + archive.count("again")
    return f"{archive.count('done')} images" + (f", {failed} failed" if failed else "")


def passed_over(reasons: dict[str, int]) -> str:
    """Return the reasons for which posts were passed over, the most frequent first."""
    return ", ".join(f"{why} {count}" for why, count in sorted(reasons.items(), key=lambda item: -item[1]))


def tell(origin: Source, polite: Polite, archive: Archive, todo: list[Job], given: dict[str, Any]) -> None:
    """Say what would come and how big it is."""
    from ..runtime import console
    from ..sources.crawler import preview
    from ..sources.size_estimate import size_of

    posts = list(preview(origin, polite, archive, todo, given.get("limit")))
    size = size_of(origin, polite, posts)
    seen, reasons = archive.seen()
    lines = [f"crawl: {len(posts)} images of {given['site']} into {given['out']}, {size}; {seen} posts looked at"]
    if reasons:
        lines.append(f"passed over: {passed_over(reasons)}")
    shown = [{"id": post.id, "page": post.page or post.source, "label": post.label or None} for post in posts]
    sizes = [{"width": post.width, "height": post.height, "bytes": post.bytes, "rating": post.rating} for post in posts]
    lines += ["  ".join(filter(None, (row["label"], row["page"]))) for row in shown[:10]]
    if len(posts) > 10:
        lines.append(f"and {len(posts) - 10} more")
    told = {"images": len(posts), "bytes": size.bytes, "estimated": size.told < size.count, "seen": seen}
    listed = [{**one, **more} for one, more in zip(shown, sizes, strict=True)]
    console.result("\n".join(lines), **told, passed_over=reasons, posts=listed, options=given)


def finish(
    out: Path, values: dict[str, Any], archive: Archive, todo: list[Job], result: Harvest, polite: Polite
) -> None:
    """Write the card and say what came; raises SomeFailed where images failed, InputError where none came."""
    from ..errors import InputError, SomeFailed
    from ..runtime import console
    from ..storage import claim, provenance

    count, limit = archive.count("done"), values["options"].get("limit")
    seen, reasons = archive.seen()
    failed = archive.list_failures()
    if not count and not failed:
        why = f": {seen} posts, all passed over ({passed_over(reasons)})" if seen else ": there are no such posts"
        raise InputError(f"no images{why}", "check the tags and --rating, --min-size, --types, --want, --without")
    labels = {job.label: archive.count("done", job.label) for job in todo if job.label}
    made = {"images": count, "failed": failed, "seen": seen, "passed_over": reasons, "requests": polite.tally.requests}
    made |= {"labels": labels} if labels else {}
    claim.finish(out, values, {**provenance.collect("requests", "pillow"), **made})
    told = f"crawl: {result.made} images fetched; {out} has {so_far(archive)}"
    console.note(told + (f"; passed over: {passed_over(reasons)}" if reasons else ""))
    for job in todo:
        had = archive.count("done", job.label)
        if limit and had < limit:
            console.note(f"there are no more{f' of {job.label}' if job.label else ''}: {had} of {limit}")
    if result.failed:
        raise SomeFailed(
            f"crawl: {result.made} images fetched, {result.failed} could not be had",
            f"{out / 'failed.jsonl'} says which and why; the same command tries again what may come later",
        )
