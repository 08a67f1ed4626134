"""The kinds of `facekit export`: files for other runtimes, a page, or a repository on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CardError
from . import coreml_export, export_file, hub, litert_export, web_export
from .export_plan import ExportOptions, Outcome


def export(
    weights: str,
    out: Path | None,
    options: ExportOptions,
    *,
    web: bool = False,
    runtime: Path | None = None,
    repository: str | None = None,
    private: bool = False,
    **how: Any,
) -> Outcome | None:
    """Export weights to the file or folder `out`, or to a `repository`; None where it is there already.

    `how` is recipe, force and dry_run. Raises CardError for a combination that makes no sense, and as the exports do.
    """
    if repository:
        if out or web:
            raise CardError("--hub uploads the weights themselves", "leave out OUT and --web")
        _refuse_unused("an upload of the weights themselves", options)
        return hub.push(weights, repository, private, how["recipe"], how["dry_run"])
    if out is None:
        raise CardError("there is no OUT", f"facekit export {weights} NAME.onnx, or --hub USER/NAME")
    if web:
        _refuse_unused("a page, which computes in fp32,", options, "--opset")
        return web_export.export(weights, out, options, runtime, **how)
    if runtime:
        raise CardError("--runtime is for a page", "add --web")
    if out.suffix.lower() == litert_export.SUFFIX:
        _refuse_unused("a LiteRT file, which is of one size and in fp32,", options)
        return litert_export.export(weights, out, options, **how)
    if out.suffix.lower() == coreml_export.SUFFIX:
        _refuse_unused("a Core ML file, which is of one size,", options, "--precision")
        return coreml_export.export(weights, out, options, **how)
    return export_file.export(weights, out, options, **how)


def _refuse_unused(what: str, options: ExportOptions, *taken: str) -> None:
    """Raise CardError for options that an export would leave unused."""
    given = {
        "--precision": options.precision != "fp32",
        "--calibrate": options.calibrate is not None,
        "--dynamic": options.dynamic is True,
        "--opset": options.opset is not None,
    }
    unused = " and ".join(name for name, there in given.items() if there and name not in taken)
    if unused:
        raise CardError(f"{what} has no use for {unused}", f"leave out {unused}, or write an ONNX file")
