"""The page of `facekit clean`: groups of near duplicates, the kept image first, and images with other faults."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..reports import html
from ..runtime.workers import pool_of
from ..storage import images
from ..storage.folder import Source
from .quality import COPIES, FAULTS, Judged, rank

SHOWN_GROUPS, SHOWN_MEMBERS, SHOWN_FAULTS, THUMB = 400, 12, 96, 96


def page(source: str, judged: Sequence[Judged], summary: dict[str, Any], given: dict[str, Any], workers: int) -> str:
    """Return the page: the figures, the groups with the kept image first, then the other faults."""
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        if one.group is not None:
            groups.setdefault(one.group, []).append(one)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0].source.name))[:SHOWN_GROUPS]
    for group in ordered:
        group.sort(key=lambda one: (not one.kept, one.bits or 0, rank(one)))
    faults = {reason: [one for one in judged if reason in one.reasons] for reason in FAULTS}
    shown = [one for group in ordered for one in group[:SHOWN_MEMBERS]]
    shown += [one for group in faults.values() for one in group[:SHOWN_FAULTS]]
    thumbs = thumbnails([one.source for one in shown], workers)
    meanings: dict[str, str] = {**FAULTS, **COPIES}
    lines = [("images", summary["images"], ""), ("kept", summary["kept"], ""), ("not kept", summary["rejected"], "")]
    lines += [(name, count, meanings[name]) for name, count in summary["reasons"].items()]
    lines += [(name, count, "share of --split") for name, count in summary.get("split", {}).items()]
    return html.render(
        "clean.html",
        title=f"clean {source}",
        figures=lines,
        groups=[
            (f"{len(group)} alike, {sum(one.kept for one in group)} kept", [figure(one, thumbs) for one in group])
            for group in ordered
        ],
        group_count=len(groups),
        most_in_group=SHOWN_MEMBERS,
        faults=[
            (f"{reason}: {len(group)}", FAULTS[reason], [figure(one, thumbs) for one in group])
            for reason, group in faults.items()
            if group
        ],
        most_with_fault=SHOWN_FAULTS,
        pairs=summary["pairs"],
        compared=summary["pairs_compared"],
        options=json.dumps(given, indent=1, ensure_ascii=False),
    )


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
