"""`facekit crawl`: download pictures from a board, a list of addresses or a folder, with their sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import options, outputs

SITE = "safebooru, danbooru, safebooru.donmai.us, urls or local"
CHOOSE, NET = "Which images", "Network"


@outputs.may_be_urls("out")
def crawl(
    site: Annotated[str, typer.Argument(help=SITE)],
    out: Annotated[Path, typer.Argument(help="folder for the images")],
    *,
    tags: Annotated[str, typer.Option(help="tags to search a board for, separated by spaces")] = "",
    expression: Annotated[
        Optional[str],
        typer.Option(
            help="all, or some of angry, sad, smile, surprised, crying, joined by commas: a folder for each",
            metavar="NAMES",
        ),
    ] = None,
    from_: Annotated[
        Optional[str],
        typer.Option("--from", help="urls: text file of addresses, or - for stdin; local: folder of images"),
    ] = None,
    limit: Annotated[Optional[int], typer.Option(min=1, help="number of images (of each expression)")] = None,
    rating: Annotated[
        str,
        typer.Option(help="accepted ratings, of general, sensitive, questionable, explicit", rich_help_panel=CHOOSE),
    ] = "general",
    min_size: Annotated[int, typer.Option(min=1, help="shortest edge, px", rich_help_panel=CHOOSE)] = 1,
    aspect: Annotated[
        Optional[str],
        typer.Option(help="accepted width / height", metavar="LOW:HIGH", rich_help_panel=CHOOSE),
    ] = None,
    types: Annotated[
        str, typer.Option(help="accepted file types, of jpg, png, webp, gif, bmp", rich_help_panel=CHOOSE)
    ] = "jpg,png,webp",
    min_score: Annotated[Optional[int], typer.Option(help="lowest score on the board", rich_help_panel=CHOOSE)] = None,
    want: Annotated[
        Optional[list[str]], typer.Option(help="a tag that an image must have (repeat)", rich_help_panel=CHOOSE)
    ] = None,
    without: Annotated[
        Optional[list[str]], typer.Option(help="a tag that an image must not have (repeat)", rich_help_panel=CHOOSE)
    ] = None,
    max_mb: Annotated[float, typer.Option(min=0.001, help="largest file, MB", rich_help_panel=CHOOSE)] = 30.0,
    rate: Annotated[float, typer.Option(min=0.001, help="requests per second and host", rich_help_panel=NET)] = 1.0,
    workers: Annotated[
        Optional[int], typer.Option(min=1, max=64, help="simultaneous downloads [default: 4]", rich_help_panel=NET)
    ] = None,
    address: Annotated[
        Optional[str], typer.Option(help="address of another board of the same engine", rich_help_panel=NET)
    ] = None,
    allow_host: Annotated[
        Optional[list[str]], typer.Option(help="another host that serves files (repeat)", rich_help_panel=NET)
    ] = None,
    allow_local: Annotated[
        bool, typer.Option("--allow-local", help="allow hosts of this machine and network", rich_help_panel=NET)
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="also download posts that are newer than the last run, and retry failures")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="retry downloads that failed for good, such as 404 and 403")
    ] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> Path:
    """Download pictures at a polite rate, check each one and record its source.

    OUT/manifest.jsonl lists id, md5, source, artist, rating, tags and page of every image. After a stop, the same
    command continues; a higher --limit downloads more. Only images rated general are downloaded unless you
    give --rating. Pictures belong to their artists: mind their rights.
    """
    from ..sources.run import crawl as run

    want, without, allow_host = ([one] if isinstance(one, str) else one for one in (want, without, allow_host))
    given: dict[str, Any] = {"site": site, "out": str(out), "tags": " ".join(tags.split()), "expression": expression}
    given |= {"source": from_ and str(from_), "limit": limit, "rating": rating, "min_size": min_size, "aspect": aspect}
    given |= {"types": types, "min_score": min_score, "want": want, "without": without, "max_mb": max_mb}
    given |= {"address": address, "allow_host": allow_host, "allow_local": allow_local}
    return run(
        given, rate=rate, workers=workers, update=update, retry_failed=retry_failed, force=force, dry_run=dry_run
    )
