"""`facekit export --web`: a page that translates in the visitor's browser, as a folder for any web server."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from ..errors import CardError
from ..faces import detectors, neural
from ..faces.alignment import MARGIN, template
from ..nets import detector, face_points
from ..ops import boxes
from ..recipe_api import checkpoint
from ..runtime import console
from ..runtime.printable import printable
from ..storage import card, claim, files, lock, provenance
from . import enlarger, head_mask, onnx_export, web_nets, web_runtime
from .export_plan import ExportOptions, Outcome, planned
from .translator import Translator

PAGE = Path(__file__).parent / "web"
RUNTIME = "onnxruntime"  # the sub-folder of onnxruntime-web's files
NETS = ("model.onnx", "detector.onnx", "points.onnx", "segnet.onnx", "upscaler.onnx")
CONFIG = "config.json"


def export(
    weights: str,
    out: Path,
    options: ExportOptions,
    runtime: Path | None = None,
    recipe: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Outcome | None:
    """Write the page into the folder `out`; returns None where it is there already.

    `runtime` is the archive of the npm package onnxruntime-web; without it, it is downloaded. Raises CardError for
    options that do not fit the weights and for a folder with other things, MissingError for weights or a runtime that
    cannot be loaded, InputError for a download that fails, FacekitError where a net's results differ from PyTorch's.
    """
    opset = options.opset or onnx_export.OPSET
    plan = planned(weights, options, recipe, web=True, opset=opset)
    translator, values = plan.translator, plan.values
    drawing = Translator(translator.model, options.to, translator.net_size)
    onnx_export.open_generator(drawing, options.source_label)
    if dry_run:
        text = f"a page that translates to {translator.name} with {plan.weights}, {translator.size} px, in {out}"
        return plan.announced(text, out)
    archive = web_runtime.find(runtime)
    values["inputs"]["runtime"] = files.digest(archive)
    with lock.held(out, "facekit export"):
        _refuse_foreign(out, force)
        for folder in (out, out / RUNTIME):
            files.sweep(folder, ours=False)
        if claim.take(out, values, force=force) == "finished":
            console.note(f"export: nothing to do, {out} is complete (--force writes it again)")
            return None
        for name, data in web_runtime.unpack(archive).items():
            files.write_bytes(out / RUNTIME / name, data)
        differences = _write_nets(out, drawing, options.source_label, opset)
        files.write_text(out / CONFIG, json.dumps(_config(translator), indent=1) + "\n")
        for path in sorted(PAGE.iterdir()):
            files.write_bytes(out / path.name, _page(path, translator))
        claim.finish(out, values, {**provenance.collect("torch", "onnx", "onnxruntime"), "differences": differences})
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    worst = max(differences.values())
    text = (
        f"export: {out} translates to {translator.name} in a browser, {worst:.2g} from PyTorch at most; "
        f"to look at it: python -m http.server -d {out}"
    )
    return Outcome(text, {"path": str(out), "domain": translator.name, "differences": differences, "bytes": size})


def _refuse_foreign(out: Path, force: bool) -> None:
    """Raise CardError for a folder that holds a page, or one of its files, that facekit did not make."""
    if force or any((out / name).exists() for name in (card.NAME, card.UNFINISHED)):
        return
    names = [*NETS, CONFIG, RUNTIME, *(path.name for path in PAGE.iterdir())]
    foreign = [out / name for name in names if os.path.lexists(out / name)]
    if foreign:
        raise CardError(
            f"{foreign[0]} already exists and was not created by facekit", "choose another folder, or --force"
        )


def _write_nets(out: Path, drawing: Translator, label: str | None, opset: int) -> dict[str, float]:
    """Write the nets; returns how far each is from PyTorch."""

    def write_model(path: Path) -> float:
        return onnx_export.write(drawing, path, label, dynamic=False, opset=opset).difference

    writers = (
        write_model,
        web_nets.write_detector,
        web_nets.write_points,
        lambda path: web_nets.write_parts(path, checkpoint.load_model("segnet")),
        web_nets.write_upscaler,
    )
    found = {}
    for name, write in zip(NETS, writers, strict=True):
        with files.replacing(out / name) as part:
            found[Path(name).stem] = write(part)
    return found


def _config(translator: Translator) -> Mapping[str, Any]:
    """Return the numbers that the page computes with: those of the detector, the alignment and the head's mask."""
    least, sure = head_mask.LEAST, head_mask.SURE
    return {
        "domain": translator.name,
        "size": translator.net_size,
        "result": translator.size,
        "template": template(translator.net_size, MARGIN).tolist(),
        "head": {
            "edge": checkpoint.load_model("segnet").card.data.size,
            "least": least,
            "low": sure[0],
            "high": sure[1],
        },
        "enlarge": {"least": enlarger.LEAST, "most": enlarger.MOST, "largest": enlarger.LARGEST},
        "detector": {
            "first": neural.FIRST,
            "largest": neural.LARGEST,
            "margin": neural.MARGIN,
            "fine": neural.FINE,
            "found": neural.FOUND,
            "steps": neural.STEPS,
            "looked": neural.LEAST,
            "second": neural.SECOND,
            "least": detectors.OWN,
            "leastSmall": detectors.OWN_SMALL,
            "leastTurned": detectors.OWN_TURNED,
            "small": detectors.SMALL,
            "smallest": detectors.SMALLEST,
            "overlap": boxes.MOST,
            "strides": list(detector.STRIDES),
            "unit": detector.UNIT,
            "square": face_points.SIDE,
            "boxed": face_points.BOXED,
            "framed": face_points.FRAMED,
            "views": face_points.VIEWS,
            "doubt": face_points.DOUBT,
        },
    }


def _page(path: Path, translator: Translator) -> bytes:
    """Return a file of the page; the HTML names what is translated to."""
    if path.suffix != ".html":
        return path.read_bytes()
    domain = html.escape(printable(translator.name))
    return Template(path.read_text(encoding="utf-8")).substitute(title=f"Photo to {domain}", domain=domain).encode()
