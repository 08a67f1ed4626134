"""The page of `facekit clean`: groups of like images with the kept one first, and the images with other faults."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..reports import contact_sheet
from ..runtime.workers import pool_of
from ..storage import images
from ..storage.folder import Source
from .quality import COPIES, FAULTS, Judged, rank

SHOWN_GROUPS, SHOWN_MEMBERS, SHOWN_FAULTS, THUMB = 400, 12, 96, 96

STYLE = """<style>
section { display: inline-block; vertical-align: top; margin: 0 1.4rem 1rem 0 }
h3 { font-size: .8rem; margin: 0 } p { margin: .3rem 0 }
figure { display: inline-block; vertical-align: top; width: 8.6rem; margin: .2rem; padding: .3rem }
figure { border: 2px solid #e2e2e8; border-radius: .4rem }
figure.kept { border-color: #2e9e5b } figcaption { font-size: .72rem; line-height: 1.3; overflow-wrap: anywhere }
figure img, figure div { display: block; height: 6rem; object-fit: contain; margin: 0 auto .2rem }
figure div { width: 6rem; background: #f4f4f6; color: #88888e; text-align: center; line-height: 6rem }
table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0 } td:nth-child(2) { text-align: right }
</style>"""


def page(source: str, judged: Sequence[Judged], summary: dict[str, Any], given: dict[str, Any], workers: int) -> str:
    """Return the page: the figures, the groups with the kept image first, then the other faults."""
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        if one.group is not None:
            groups.setdefault(one.group, []).append(one)
    sections: list[tuple[str, str, list[Judged]]] = []
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0].source.name))
    for group in ordered[:SHOWN_GROUPS]:
        group.sort(key=lambda one: (not one.kept, one.bits or 0, rank(one)))
        sections.append((f"{len(group)} alike, {sum(one.kept for one in group)} kept", "", group))
    faults = []
    for reason, meaning in FAULTS.items():
        having = [one for one in judged if reason in one.reasons]
        if having:
            faults.append((f"{reason}: {len(having)}", meaning, having))
    shown = [one for _, _, group in sections for one in group[:SHOWN_MEMBERS]]
    shown += [one for _, _, group in faults for one in group[:SHOWN_FAULTS]]
    thumbs = thumbnails([one.source for one in shown], workers)
    meanings: dict[str, str] = {**FAULTS, **COPIES}
    lines = [("images", summary["images"], ""), ("kept", summary["kept"], ""), ("not kept", summary["rejected"], "")]
    lines += [(name, count, meanings[name]) for name, count in summary["reasons"].items()]
    lines += [(name, count, "share of --split") for name, count in summary.get("split", {}).items()]
    cells = "".join(f"<tr><td>{name}<td>{count:,}<td>{escape(text)}" for name, count, text in lines)
    parts = [STYLE, f"<table>{cells}</table>"]
    compared = f"{summary['pairs_compared']:,} of {summary['pairs']:,} pairs compared"
    hidden = (
        ""
        if len(ordered) <= SHOWN_GROUPS
        else f"; the largest {SHOWN_GROUPS} are shown, the rest stand in findings.jsonl"
    )
    parts.append(f"<h2>Groups of like images: {len(ordered)}</h2><p>Green is kept. {compared}{hidden}.</p>")
    parts += [f"<section>{block('h3', *section, SHOWN_MEMBERS, thumbs)}</section>" for section in sections]
    parts += [block("h2", *section, SHOWN_FAULTS, thumbs) for section in faults]
    parts.append(f"<h2>options</h2><pre>{escape(json.dumps(given, indent=1, ensure_ascii=False))}</pre>")
    return contact_sheet.PAGE.format(title=f"clean {escape(source)}", body="\n".join(parts))


def block(head: str, title: str, text: str, group: Sequence[Judged], most: int, thumbs: dict[str, str]) -> str:
    """Return a heading and a row of images, at most `most` of them."""
    more = f"<p>and {len(group) - most} more</p>" if len(group) > most else ""
    row = "".join(figure(one, thumbs[one.source.name]) for one in group[:most])
    told = f"<p>{escape(text)}</p>" if text else ""
    return f"<{head}>{escape(title)}</{head}>{told}<div>{row}</div>{more}"


def figure(one: Judged, thumb: str) -> str:
    """Return one image with what is known of it."""
    row = one.row
    seen = f'<img src="{thumb}" alt="">' if thumb else "<div>?</div>"
    size = (
        f"{row['width']} × {row['height']}, {row['bytes'] / 1000:,.1f} kB, blur {row['blur']}" if "width" in row else ""
    )
    why = ", ".join(one.reasons) + (f", {one.bits} bits from {Path(one.better).name}" if one.better else "")
    told = [f"<b>{escape(one.source.name)}</b>", size, escape(row.get("problem", "")), escape(why), one.share or ""]
    kind = ' class="kept"' if one.kept else ""
    return f"<figure{kind}>{seen}<figcaption>{'<br>'.join(line for line in told if line)}</figcaption></figure>"


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


def escape(text: str) -> str:
    """Return text for HTML; what is no Unicode (in file names) is escaped."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())
