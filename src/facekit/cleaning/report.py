"""The page of `facekit clean`: groups of near duplicates, the kept image first, and images with other faults."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..reports import html
from ..runtime.workers import pool_of
from ..storage import images
from ..storage.folder import Source
from .findings import Findings, Judged
from .quality import BIT, COPIES, FAULTS

SHOWN_GROUPS, SHOWN_MEMBERS, SHOWN_FAULTS, THUMB = 400, 12, 96, 96


def page(source: str, found: Findings, summary: dict[str, Any], given: dict[str, Any], workers: int) -> str:
    """Return the page: the figures, the groups with the kept image first, then the other faults."""
    groups = found.largest_groups(SHOWN_GROUPS)
    at_fault = {reason: np.flatnonzero(found.reasons & BIT[reason]) for reason in FAULTS}
    places = [best_first(found, group)[:SHOWN_MEMBERS] for group in groups]
    places += [some[:SHOWN_FAULTS] for some in at_fault.values()]
    shown = [[found.image(place) for place in some.tolist()] for some in places]
    thumbs = thumbnails([one.source for some in shown for one in some], workers)
    figures = [[figure(one, thumbs) for one in some] for some in shown]
    meanings: dict[str, str] = {**FAULTS, **COPIES}
    lines = [("images", summary["images"], ""), ("kept", summary["kept"], ""), ("not kept", summary["rejected"], "")]
    lines += [(name, count, meanings[name]) for name, count in summary["reasons"].items()]
    lines += [(name, count, "share of --split") for name, count in summary.get("split", {}).items()]
    return html.render(
        "clean.html",
        title=f"clean {source}",
        figures=lines,
        groups=[
            (f"{len(group)} alike, {found.kept[group].sum()} kept", some, len(group))
            for group, some in zip(groups, figures, strict=False)
        ],
        group_count=summary["groups"],
        faults=[
            (f"{reason}: {len(faulty)}", FAULTS[reason], some, len(faulty))
            for (reason, faulty), some in zip(at_fault.items(), figures[len(groups) :], strict=True)
            if some
        ],
        pairs=summary["pairs"],
        compared=summary["pairs_compared"],
        options=json.dumps(given, indent=1, ensure_ascii=False),
    )


def best_first(found: Findings, group: np.ndarray) -> np.ndarray:
    """Return the places of the images of a group: the kept one, then those nearest to it, then by quality."""
    keys = (found.ranks[group], found.reasons[group] > 0, found.bits[group], ~found.kept[group])
    return group[np.lexsort(keys)]


def figure(one: Judged, thumbs: dict[str, str]) -> dict[str, Any]:
    """Return what the page shows of one image."""
    row = one.row
    size = (
        f"{row['width']} × {row['height']}, {row['bytes'] / 1000:,.1f} kB, blur {row['blur']}" if "width" in row else ""
    )
    why = ", ".join(one.reasons) + (f", {one.bits} bits from {Path(one.better).name}" if one.better else "")
    name = one.source.name
    lines = [size, row.get("problem", ""), why, one.share or ""]
    return {"name": name, "kept": one.kept, "thumb": thumbs.get(name, ""), "lines": lines}


def thumbnails(sources: Sequence[Source], workers: int) -> dict[str, str]:
    """Return small JPEGs as data URIs, by name; nothing for a file that cannot be read."""
    unique = list({source.name: source for source in sources}.values())
    with pool_of(workers if len(unique) >= 64 else 1, processes=True) as pool:
        made = pool.map(thumbnail, unique, chunksize=16) if pool else map(thumbnail, unique)
        return {source.name: uri for source, uri in zip(unique, made, strict=True)}


def thumbnail(source: Source) -> str:
    """Return one image as a small JPEG in a data URI."""
    try:
        image = images.read(source.path)
    except InputError:
        return ""
    image.thumbnail((2 * THUMB, THUMB))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
