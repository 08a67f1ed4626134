"""`facekit pairs` without its flags: faces and what a teacher draws of them as a/NAME and b/NAME of one folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import CardError, SomeFailed
from ..faces import MARGIN, Detector, align_face, find_detector, find_faces, template
from ..runtime import console
from ..runtime.cores import usable_cores
from ..runtime.device import find_device
from ..storage import content, images, provenance
from ..storage.folder import Folder, Source, open_source, output_names
from ..storage.folder_map import folder_map
from ..storage.manifest import Output, entries
from .choose_teacher import TeacherOptions, open_teacher
from .latent_teacher import LatentTeacher, latents
from .pair_filters import REASONS, FilterOptions, PairFilters, Verdict, read_mark
from .teachers import Teacher

DROPPED = "dropped"  # folder of what the filters dropped, by reason: face and drawing side by side
Read = Callable[[Source], Image.Image]


@dataclass(frozen=True)
class PairOptions:
    """Who draws, what is dropped and how faces are cut; see the flags of `facekit pairs`.

    `latents` are two StyleGAN2 runs in place of a folder of faces, `count` and `seed` their latents.
    """

    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    filters: FilterOptions = field(default_factory=FilterOptions)
    latents: tuple[str, str] | None = None
    count: int = 1000
    seed: int = 0
    truncation: float = 0.7
    align: bool = True
    margin: float | None = None
    detector: str = "auto"
    model_root: Path | None = None
    device: str = "auto"
    workers: int | None = None


def two_runs(first: str | None, second: str | None) -> tuple[str, str] | None:
    """Return the runs of --from and --and; raises CardError where only one is given."""
    if first is None or second is None:
        if first is not None or second is not None:
            raise CardError("--from and --and name two runs that draw the same latents", "give both")
        return None
    return first, second


def two_places(source: Path | None, out: Path | None, options: PairOptions) -> tuple[Path | None, Path]:
    """Return the input, which two generators do not have, and the output; raises CardError where one is missing."""
    if options.latents and out is None:
        source, out = None, source
    if out is None:
        raise CardError("no output folder", "facekit pairs IN OUT, or facekit pairs OUT --from RUN --and RUN")
    return (None if source is None else Path(source)), Path(out)


def make_pairs(
    source: Path | None, out: Path, options: PairOptions, dry_run: bool = False, **run: Any
) -> dict[str, Any]:
    """Write pairs to `out`; `run` goes to `folder_map` (limit, shard, force, retry_failed). Returns the counts.

    Raises CardError for options that do not fit each other, InputError without images, MissingError without weights,
    a program or a package, SomeFailed where the teacher failed on some faces; pairs that filters drop are no failures.
    """
    device = find_device(options.device)
    detector = find_detector(options.detector, options.model_root)
    if options.latents:
        if source is not None:
            raise CardError("pairs of two generators need no input folder", "facekit pairs OUT --from RUN --and RUN")
        found: Sequence[Source] = latents(options.count, options.seed)
        drawing = LatentTeacher(*options.latents, options.truncation, device)
        teacher: Teacher = drawing
        read: Read = drawing.face
    else:
        if source is None:
            raise CardError("no faces to draw", "facekit pairs IN OUT --teacher X, or --from RUN --and RUN")
        found = open_source(source, out)
        teacher = open_teacher(options.teacher, device, options.workers or usable_cores(), options.seed)
        read = open_faces(source, teacher.size, options, detector)
    filters = PairFilters(options.filters, device, detector)
    names = output_names(found)
    values = _card(source, out, options, teacher, filters, detector.name)
    if dry_run:
        count = len(found[: run.get("limit")])
        console.result(f"pairs: {count} faces into {out}", sources=count, options=values["options"])
        return {"pairs": 0}
    for row in entries(out) if not run.get("force") else ():
        mark = read_mark(row.get("fingerprint"))
        if mark is not None:
            filters.known.add(str(row.get("source")), mark)
    failed: SomeFailed | None = None
    try:
        folder_map(
            "pairs",
            found,
            out,
            values,
            read,
            partial(draw_pairs, teacher=teacher, filters=filters, names=names),
            names=names,
            tops=("a/", "b/"),
            batch=teacher.batch,
            workers=min(2, options.workers or 2),
            made=lambda: {**provenance.collect("torch"), **counts(out)},
            **run,
        )
    except SomeFailed as error:
        failed = error
    made = counts(out)
    dropped = ", ".join(f"{count} {reason}" for reason, count in made["dropped"].items())
    text = f"pairs: {made['pairs']} pairs in {out}" + (f"; dropped: {dropped}" if dropped else "")
    console.result(text, path=str(out), **made)
    if failed:
        raise failed
    if dropped and not made["pairs"] and not run.get("shard"):
        raise SomeFailed(
            f"no pair is left: {dropped} dropped",
            f"look at {out / DROPPED}; a milder limit, --keep REASON, or another teacher",
        )
    return made


def open_faces(source: Path, size: int, options: PairOptions, detector: Detector) -> Read:
    """Return what reads an image as a square face of `size` px.

    Faces that `facekit align` cut, and all with `align=False`, are taken as they are.
    """
    single = content.is_file(source)
    folder = Folder(source.parent if single else source)
    if not options.align or (folder.aligned and (not single or source.name in folder.entries)):
        return lambda image: images.resize(images.square(images.read(image.path)), size)
    margin = MARGIN if options.margin is None else options.margin
    template(size, margin)  # raises CardError for a margin that makes no crop

    def cut(image: Source) -> Image.Image:
        photo = np.asarray(images.read(image.path))
        (face,) = find_faces(detector, photo, hint="--no-align for faces already cut")
        return align_face(photo, face, size, margin).image

    return cut


def draw_pairs(
    group: Sequence[tuple[Source, Image.Image]], *, teacher: Teacher, filters: PairFilters, names: Mapping[str, str]
) -> list[list[Output] | Exception]:
    """Let the teacher draw those faces of a batch that pass, and return the images that each face gives."""
    sources, faces = [source for source, _ in group], [face for _, face in group]
    verdicts = filters.judge_faces([source.name for source in sources], faces)
    asked = [place for place, verdict in enumerate(verdicts) if verdict.reason is None]
    wanted = [names[sources[place].name] for place in asked], [faces[place] for place in asked]
    drawn = teacher.draw(*wanted) if asked else []
    drawings: dict[int, Image.Image] = {}
    out: list[list[Output] | Exception] = [[] for _ in group]
    for place, image in zip(asked, drawn, strict=True):
        if isinstance(image, Exception):
            out[place] = image
        else:
            drawings[place] = images.to_rgb(image)
            if drawings[place].size != faces[place].size:
                drawings[place] = drawings[place].resize(faces[place].size, Image.Resampling.LANCZOS)
    judged = filters.judge_drawings([faces[place] for place in drawings], [*drawings.values()])
    for place, verdict in zip(drawings, judged, strict=True):
        verdicts[place].reason = verdict.reason
        verdicts[place].measures |= verdict.measures
    for place, (source, face) in enumerate(group):
        if not isinstance(out[place], Exception):
            out[place] = _outputs(names[source.name], face, drawings.get(place), verdicts[place])
    return out


def _outputs(name: str, face: Image.Image, drawing: Image.Image | None, verdict: Verdict) -> list[Output]:
    """Return the images of a pair that is kept, or the one picture that shows what was dropped."""
    if verdict.reason is None:
        assert drawing is not None
        a = Output(f"a/{name}", partial(images.encode, face), verdict.measures)
        measured = {key: value for key, value in verdict.measures.items() if key != "fingerprint"}
        return [a, Output(f"b/{name}", partial(images.encode, drawing), measured)]
    shown = face
    if drawing is not None:
        shown = Image.new("RGB", (face.width * 2, face.height))
        shown.paste(face, (0, 0))
        shown.paste(drawing, (face.width, 0))
    entry = {"dropped": verdict.reason, **verdict.measures}
    return [Output(f"{DROPPED}/{verdict.reason}/{name}", partial(images.encode, shown), entry)]


def counts(out: Path) -> dict[str, Any]:
    """Return how many pairs a folder holds, and how many were dropped for each reason."""
    pairs, dropped = 0, Counter[str]()
    for row in {row.get("file"): row for row in entries(out)}.values():
        if "dropped" in row:
            dropped[str(row["dropped"])] += 1
        else:
            pairs += str(row.get("file")).startswith("a/")
    return {"pairs": pairs, "dropped": {reason: dropped[reason] for reason in REASONS if dropped[reason]}}


def _card(
    source: Path | None,
    out: Path,
    options: PairOptions,
    teacher: Teacher,
    filters: PairFilters,
    detector: str,
) -> dict[str, Any]:
    """Return the values of the run's card. `--recipe` is left out: a card never runs code."""
    drawn, kept = options.teacher, options.filters
    given: dict[str, Any] = {
        "source": source, "out": out, "teacher": drawn.name, "to": drawn.to, "teacher_command": drawn.command,
        "timeout": drawn.timeout if drawn.command else None, "prompt": drawn.prompt, "set": [*drawn.settings] or None,
        "size": teacher.size if not options.latents else None, "segnet": kept.segnet, "face": kept.face,
        "min_parts": kept.min_parts, "min_identity": kept.min_identity if kept.face else None,
        "keep": [*kept.keep] or None, "detector": detector, "margin": options.margin,
        "model_root": options.model_root, "align": options.align if not options.latents else None,
    }  # fmt: skip
    if options.latents:
        first, second = options.latents
        given |= {"came_from": first, "and": second, "n": options.count, "truncation": options.truncation}
    if options.latents or drawn.prompt is not None:
        given["seed"] = options.seed
    given = {key: str(value) if isinstance(value, Path) else value for key, value in given.items() if value is not None}
    return {"facekit": 1, "command": "pairs", "options": given, "inputs": {**teacher.inputs, **filters.inputs}}
