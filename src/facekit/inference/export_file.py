"""`facekit export NAME.onnx`: one ONNX file from trained weights, checked before it gets its name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CardError, MissingError
from ..runtime import console
from ..storage import card, files, lock
from . import onnx_export, onnx_precision
from .export_plan import ExportOptions, Outcome, planned


def export(
    weights: str,
    out: Path,
    options: ExportOptions,
    recipe: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Outcome | None:
    """Write the generator of weights to the ONNX file `out`; returns None where that file is there already.

    Raises CardError for options that do not fit the weights and for a file that is something else, MissingError for
    weights that cannot be loaded, FacekitError where the file's results differ from PyTorch's.
    """
    reduced = options.precision if options.precision != "fp32" else None
    dynamic, opset = options.dynamic is not False, options.opset or onnx_export.OPSET
    plan = planned(weights, options, recipe, dynamic=dynamic, opset=opset, precision=reduced)
    translator, values = plan.translator, plan.values
    onnx_export.open_generator(translator, options.source_label)
    multiple = translator.model.recipe.multiple
    faces = _faces(options, translator.size)
    if faces is not None:
        values["inputs"]["calibrate"] = hashlib.sha256(faces.tobytes()).hexdigest()[:16]
    with contextlib.nullcontext() if dry_run else lock.held_file(out, "export"):
        if _complete(out, plan.weights, values, force):
            console.note(f"export: nothing to do, {out} is complete")
            return None
        if dry_run:
            free = onnx_export.ways_to_write(dynamic, multiple)[0]
            shape = onnx_export.as_text(onnx_export.shape_of(free, translator.size))
            return plan.announced(f"{translator.name} of {plan.weights} to {out}, {shape}", out)
        with files.replacing(out) as part:
            made = onnx_export.write(
                translator,
                part,
                options.source_label,
                dynamic,
                opset,
                values,
                options.precision,
                faces,
            )
    takes = onnx_export.as_text(made.shape)
    fields = {
        "path": str(out),
        "domain": translator.name,
        "shape": made.shape,
        "multiple": multiple if "height" in made.shape else 0,
        "difference": made.difference,
        "compared": [list(each) for each in made.compared],
    }
    if made.levels:
        fields |= {"mean_levels": made.levels[0], "largest_levels": made.levels[1]}
        mean, most = made.levels
        far = f"in {options.precision}, {mean:.2g} of 255 from PyTorch on average, {most:.2g} at most"
    else:
        far = f"{made.difference:.2g} from PyTorch at most"
    return Outcome(f"export: {out} takes {takes} to {translator.name}; {far}", fields)


def _faces(options: ExportOptions, size: int) -> np.ndarray | None:
    """Return the faces that show int8 its ranges; raises CardError where they are missing or for nothing."""
    if options.precision == "int8" and not options.calibrate:
        raise CardError("int8 needs faces to find the ranges of values", "--calibrate FOLDER of aligned faces")
    if options.calibrate and options.precision != "int8":
        raise CardError("--calibrate is for --precision int8", "leave it out")
    return onnx_precision.read_faces(options.calibrate, size) if options.calibrate else None


def _complete(out: Path, weights: Path, values: Mapping[str, Any], force: bool) -> bool:
    """Whether `out` is what this export would write.

    Raises CardError for a name that is no ONNX file's, for a file of another export or of somebody else's without
    `force`, and for the weights themselves.
    """
    if out.suffix.lower() != ".onnx":
        raise CardError(
            f"{out} ends in none of .onnx, .tflite and .mlpackage",
            f"facekit export MODEL {out.name}.onnx, or {out.name}.mlpackage",
        )
    if out.is_dir():
        raise CardError(f"{out} is a folder", "give a file")
    if out.exists() and files.real(out) == files.real(weights):
        raise CardError(f"{out} is the weights themselves", "choose another name")
    if force or not os.path.lexists(out):
        return False
    try:
        old = json.loads(onnx_export.read_metadata(out)["export"])
    except (MissingError, KeyError, ValueError) as error:
        hint = "choose another name, or --force"
        raise CardError(f"{out} already exists and was not created by facekit", hint) from error
    changed = card.differences(old, values)
    if changed:
        hint = "choose another name, or --force to replace this one"
        raise CardError(f"{out} is another export: {'; '.join(changed)}", hint)
    return True
