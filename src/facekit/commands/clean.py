"""`facekit clean`: the images of a folder that are worth training on, none of them twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from . import options

if TYPE_CHECKING:
    from ..cleaning.quality import Judged
    from ..storage.folder import Source

PAGE, FINDINGS, MEASURES, REJECTED = "report.html", "findings.jsonl", "measures.jsonl", "rejected"
GROUP = 16  # images that a worker measures before it says so


def clean(
    source: Annotated[Path, typer.Argument(help="a folder of images")],
    out: Annotated[
        Optional[Path], typer.Argument(help="folder for the images that are kept; else clean in place")
    ] = None,
    *,
    apply: Annotated[bool, typer.Option("--apply", help="do it; else only report")] = False,
    report: Annotated[
        Optional[Path], typer.Option(help="folder for report.html and its notes; else OUT, or IN-clean beside IN")
    ] = None,
    split: Annotated[
        Optional[str],
        typer.Option(help="deal what is kept into OUT/train, val and test, near images together", metavar="8:1:1"),
    ] = None,
    keep: Annotated[
        Optional[list[str]], typer.Option(help="report these but keep them: small, grey, near, ...", metavar="REASON")
    ] = None,
    distance: Annotated[
        int,
        typer.Option(
            min=0,
            max=16,
            help="bits of the perceptual hash in which near-duplicates may differ",
            rich_help_panel="Limits",
        ),
    ] = 8,
    colour: Annotated[
        float,
        typer.Option(min=0, max=255, help="mean difference in colour that they may have", rich_help_panel="Limits"),
    ] = 12,
    min_size: Annotated[int, typer.Option(min=1, help="shorter edge, px", rich_help_panel="Limits")] = 64,
    max_blur: Annotated[
        float, typer.Option(min=0, max=1, help="0 is sharp, 1 all blur", rich_help_panel="Limits")
    ] = 0.65,
    workers: options.Workers = None,
    seed: options.Seed = None,
    limit: options.Limit = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> dict[str, Any]:
    """Find duplicates, near-duplicates and bad images; keep the best of each group.

    Without --apply only report.html and its notes are written. With it what is kept is copied to OUT; without OUT what
    is not kept moves to IN-clean/rejected. No image of IN is ever deleted.
    """
    from ..cleaning.quality import Limits, judge, share_out
    from ..errors import CardError
    from ..runtime import console as say
    from ..storage import files
    from ..storage.folder import Folder

    source = Path(source)
    out = Path(out) if out else None
    found = list_images(source, out)[:limit]
    weights = parse_split(split, out, apply)
    spared = check_reasons(keep or [])
    home = source.resolve()
    place = Path(report) if report else out or home.with_name(f"{home.name}-clean")
    given: dict[str, Any] = {
        "source": source,
        "out": out,
        "apply": apply,
        "report": report,
        "split": split,
        "keep": sorted(spared),
    }
    given |= {"distance": distance, "colour": colour, "min_size": min_size, "max_blur": max_blur}
    given |= {"seed": seed, "limit": limit}
    given = {k: str(v) if isinstance(v, Path) else v for k, v in given.items() if v not in (None, [])}
    if dry_run:
        say.result(f"clean: {len(found)} images, report in {place}", sources=len(found), options=given)
        return {"options": given}
    if (place / PAGE).exists() and not (place / MEASURES).exists() and not force:
        raise CardError(f"{place / PAGE} is there already, and not of `clean`", "choose another folder with --report")
    files.make_folder(place)
    cores = min(workers or _cores(), len(found))
    rows = measure_all(found, place / MEASURES, cores if len(found) >= 32 or workers else 1, force)
    images, compared = judge(found, rows, Limits(size=min_size, blur=max_blur), distance, colour, spared)
    if weights:
        share_out(images, weights, seed or 0)
    summary = summarise(images, compared)
    text = "".join(files.encoded(line).decode() + "\n" for line in map(as_line, images))
    known = place / FINDINGS
    if apply and not out and not summary["rejected"] and (place / REJECTED).is_dir():
        say.note(f"clean: nothing to do, what was rejected of {source} is in {place / REJECTED}")
    elif not (place / PAGE).exists() or not known.exists() or known.read_text(encoding="utf-8") != text:
        from ..cleaning import report as clean_page

        files.write_text(place / PAGE, clean_page.page(str(source), images, summary, given, cores))
        files.write_text(known, text)
    summary |= {"report": str(place / PAGE), "findings": str(known)}
    say.result(describe(summary, source, apply), **summary)
    entries = Folder(source).entries
    if apply and out:
        copy_kept([one for one in images if one.kept], out, given, entries, force, summary)
    elif apply:
        move_rejected([one for one in images if not one.kept], place / REJECTED, entries)
    return summary


def _cores() -> int:
    import os

    return os.cpu_count() or 1


def list_images(source: Path, out: Path | None) -> list[Source]:
    """List the images to judge; raises InputError where there is none."""
    from ..errors import CardError
    from ..storage.folder import Folder, open_source

    if source.is_file():
        raise CardError(f"{source} is a file", "give a folder of images")
    return open_source(source, out) if out else Folder(source).sources()


def parse_split(text: str | None, out: Path | None, apply: bool) -> list[int]:
    """Read `8:1:1`; raises CardError for anything else, and where there is no folder to split into."""
    from ..errors import CardError

    if text is None:
        return []
    try:
        weights = [int(part) for part in text.split(":")]
    except ValueError:
        weights = []
    if len(weights) != 3 or min(weights) < 0 or not sum(weights):
        raise CardError(f"--split {text!r} is not three whole numbers", "for example --split 8:1:1 (train, val, test)")
    if apply and not out:
        raise CardError("--split needs a folder for its shares", "give OUT: facekit clean IN OUT --split 8:1:1 --apply")
    return weights


def check_reasons(names: Sequence[str]) -> set[str]:
    """Return the reasons that --keep names; raises CardError for one that there is not."""
    from ..cleaning.quality import COPIES, FAULTS
    from ..errors import CardError
    from ..storage.card import suggest

    known = [*(name for name in FAULTS if name != "unreadable"), *COPIES]
    for name in names:
        if name not in known:
            raise CardError(f"--keep {name!r} is no reason{suggest(name, known)}", f"reasons: {', '.join(known)}")
    return set(names)


def measure_all(found: Sequence[Source], path: Path, workers: int, force: bool) -> list[dict[str, Any]]:
    """Measure images; what `path` holds of an earlier run is taken from there unless `force`, the rest is noted there.

    Raises Interrupted on Ctrl-C (run again, it goes on), OutOfMemory where a worker process was killed.
    """
    import json

    from ..cleaning.quality import stamp
    from ..errors import Interrupted, OutOfMemory
    from ..runtime import console as say
    from ..storage import files
    from ..storage.folder import pool_of, read_lines

    stamps = {source.name: stamp(source) for source in found}
    known = {} if force else {row["file"]: row for row in read_lines(path) if "file" in row}
    known = {k: row for k, row in known.items() if all(row.get(s) == v for s, v in stamps.get(k, {"file": 0}).items())}
    todo = [source for source in found if source.name not in known]
    if todo:
        say.note(f"clean: {len(todo)} images to measure" + (f", {len(known)} measured before" if known else ""))
        files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in known.values()))
        groups = [todo[i : i + GROUP] for i in range(0, len(todo), GROUP)]
        with say.progress("clean", len(todo)) as bar, pool_of(workers, processes=True) as pool:
            try:
                for rows in (pool.map if pool else map)(measure_some, groups):
                    files.append_line(path, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
                    known |= {row["file"]: row for row in rows}
                    bar.advance(len(rows))
            except KeyboardInterrupt:
                raise Interrupted(
                    f"clean: stopped after {len(known)} of {len(found)} images", "run the same command again to go on"
                ) from None
            except futures.BrokenExecutor as error:
                raise OutOfMemory(
                    "clean: a worker process was killed, as happens when memory runs out",
                    "run the same command again with fewer --workers: it goes on",
                ) from error
    return [known[source.name] for source in found]


def measure_some(group: Sequence[Source]) -> list[dict[str, Any]]:
    """Measure a few images, in a worker process."""
    from ..cleaning.quality import measure_file

    return [measure_file(source) for source in group]


def summarise(images: Sequence[Judged], compared: int) -> dict[str, Any]:
    """Return the figures of a run; an image with several reasons counts under each."""
    from ..cleaning.quality import SHARES

    kept = [one for one in images if one.kept]
    groups = {one.group for one in images if one.group is not None}
    total = len(images) * (len(images) - 1) // 2
    figures: dict[str, Any] = {"images": len(images), "kept": len(kept), "rejected": len(images) - len(kept)}
    figures["reasons"] = dict(Counter(reason for one in images for reason in one.reasons).most_common())
    figures |= {"groups": len(groups), "pairs": total, "pairs_compared": compared}
    shares = Counter(one.share for one in kept if one.share)
    return figures | ({"split": {name: shares[name] for name in SHARES}} if shares else {})


def describe(summary: dict[str, Any], source: Path, apply: bool) -> str:
    """Return the result for people."""
    lines = [f"{summary['kept']} of {summary['images']} images of {source} are worth keeping"]
    width = max((len(name) for name in summary["reasons"]), default=0)
    lines += [f"  {name:{width}}  {count}" for name, count in summary["reasons"].items()]
    compared = f"{summary['pairs_compared']:,} of {summary['pairs']:,} pairs compared"
    lines.append(f"{summary['groups']} groups of like images ({compared})")
    if "split" in summary:
        lines.append("  ".join(f"{name} {count}" for name, count in summary["split"].items()))
    lines.append(f"look at {summary['report']}" + ("" if apply else ", then run the same with --apply"))
    return "\n".join(lines)


def as_line(one: Judged) -> str:
    """Return an image's line of findings.jsonl."""
    import json

    row: dict[str, Any] = {
        k: one.row[k]
        for k in ("file", "width", "height", "bytes", "blur", "chroma", "spread", "problem")
        if k in one.row
    }
    more = {"group": one.group, "better": one.better, "bits": one.bits, "share": one.share}
    row |= {"kept": one.kept, "reasons": one.reasons, **{k: v for k, v in more.items() if v is not None}}
    return json.dumps(row, ensure_ascii=False)


def copy_kept(
    kept: Sequence[Judged],
    out: Path,
    given: dict[str, Any],
    entries: dict[str, dict[str, Any]],
    force: bool,
    summary: dict[str, Any],
) -> None:
    """Copy what is kept to OUT with its manifest entries, and take away earlier copies that are no longer kept.

    Raises CardError where OUT holds another run, or images that facekit has not made.
    """
    import json

    from ..errors import InputError
    from ..runtime import console as say
    from ..storage import card, files
    from ..storage.folder import MANIFEST, Made, folder_map, keep_originals, read_lines

    if not kept:
        raise InputError(
            "nothing is worth keeping", "look at the report; --keep, --min-size and --max-blur spare images"
        )
    names = {one.source.name: f"{one.share}/{one.source.name}" if one.share else one.source.name for one in kept}
    own = ("file", "source", "source_bytes", "source_mtime")
    sources = [one.source for one in kept]
    keep_originals(sources, out, names, force)
    values = {"facekit": 1, "command": "clean", "options": given}
    before = list(read_lines(out / MANIFEST))
    card.claim(out, values, force=force)
    wanted = set(names.values())
    stale = [row["file"] for row in before if row.get("file") not in wanted and "file" in row]
    if stale:
        files.write_text(
            out / MANIFEST, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in before if r["file"] in wanted)
        )
        for name in stale:
            (out / name).unlink(missing_ok=True)
        if (out / card.NAME).exists():
            card.reopen(out)
        say.note(f"clean: {len(stale)} copies taken out of {out}: they are no longer kept")

    def copy(source: Source) -> list[Made]:
        said = entries.get(source.name, {})
        entry = {"origin": said["source"]} if "source" in said else {}  # `source` is the image in IN, for going on
        entry |= {key: value for key, value in said.items() if key not in own}
        return [Made(names[source.name], source.path.read_bytes(), entry)]

    figures: dict[str, Any] = {
        key: summary[key] for key in ("kept", "rejected", "reasons", "groups", "split") if key in summary
    }

    def made() -> dict[str, Any]:
        return {**card.provenance("imagehash", "scikit-image", "pillow"), **figures}

    folder_map("clean", sources, out, values, copy, workers=2, force=force, made=made)


def move_rejected(rejected: Sequence[Judged], place: Path, entries: dict[str, dict[str, Any]]) -> None:
    """Move what is not kept to `place`, and note there why and what the manifest said of it."""
    import json

    from ..runtime import console as say
    from ..storage import files
    from ..storage.folder import MANIFEST

    for one in rejected:
        target = place / one.source.name
        while target.exists():
            target = target.with_name(f"{target.stem}_{target.suffix}")
        files.make_folder(target.parent)
        row: dict[str, Any] = {
            "file": target.relative_to(place).as_posix(),
            "from": str(one.source.path),
            "reasons": one.reasons,
        }
        row |= {"better": one.better, "entry": entries.get(one.source.name)}
        files.append_line(place / MANIFEST, json.dumps({k: v for k, v in row.items() if v}, ensure_ascii=False))
        try:
            one.source.path.rename(target)
        except OSError as error:
            files.cannot_write(target, error)
    if rejected:
        say.note(f"clean: {len(rejected)} images moved to {place}")
