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
        if out or web or options.precision != "fp32":
            raise CardError("--hub uploads the weights themselves", "leave out OUT, --web and --precision")
        return hub.push(weights, repository, private, how["recipe"], how["dry_run"])
    if out is None:
        raise CardError("there is no OUT", f"facekit export {weights} NAME.onnx, or --hub USER/NAME")
    if web and options.precision != "fp32":
        raise CardError("a page computes in fp32, as facekit does", "leave out --precision, or --web")
    if web:
        return web_export.export(weights, out, options, runtime, **how)
    if runtime:
        raise CardError("--runtime is for a page", "add --web")
    kinds = {kind.SUFFIX: kind.export for kind in (litert_export, coreml_export)}
    return kinds.get(out.suffix.lower(), export_file.export)(weights, out, options, **how)
