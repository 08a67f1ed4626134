"""`facekit export NAME.tflite`: a trained generator for LiteRT (TensorFlow Lite), checked before it gets its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import FacekitError
from ..runtime import console
from ..runtime.optional import needs
from ..runtime.quiet import quiet_libraries
from ..storage import card, claim, files, lock, provenance
from . import onnx_export
from .export_plan import ExportOptions, Outcome, planned

SUFFIX = ".tflite"
LIMIT = onnx_export.LIMIT


def export(
    weights: str,
    out: Path,
    options: ExportOptions,
    recipe: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Outcome | None:
    """Write a generator [1, 3, S, S] to the LiteRT file `out`, its card beside it; None where it is there already.

    Raises CardError for options that do not fit, MissingError for weights that
    cannot be loaded and without litert-torch, FacekitError where the net cannot be converted or the file's results
    differ from PyTorch's.
    """
    plan = planned(weights, options, recipe)
    translator, values = plan.translator, plan.values
    net = onnx_export.open_generator(translator, options.source_label)
    shape = [1, 3, translator.size, translator.size]
    if dry_run:
        return plan.announced(f"{translator.name} of {plan.weights} to {out}, {onnx_export.as_text(shape)}", out)
    name = f"{out.name}.{card.NAME}"
    with lock.held_file(out, "export"):
        if not force and claim.is_complete(out, values, name):
            console.note(f"export: nothing to do, {out} is complete")
            return None
        claim.take(out.parent, values, name, force=True)
        with files.replacing(out) as part:
            worst = write(net, part, translator.size)
        claim.finish(out.parent, values, {**provenance.collect("torch", "litert-torch"), "difference": worst}, name)
    text = f"export: {out} takes {onnx_export.as_text(shape)} to {translator.name}; {worst:.2g} from PyTorch at most"
    return Outcome(text, {"path": str(out), "domain": translator.name, "shape": shape, "difference": worst})


def write(net: nn.Module, path: Path, size: int) -> float:
    """Write a generator as a LiteRT file; returns the largest difference to PyTorch, on noise and on a face.

    Raises MissingError without litert-torch, FacekitError where it cannot convert the net or the difference is over
    LIMIT.
    """
    shape = (1, 3, size, size)
    with needs("litert"), quiet_libraries():
        import litert_torch
        from ai_edge_litert.interpreter import Interpreter
    try:
        with quiet_libraries():
            litert_torch.convert(net, (torch.zeros(shape),)).export(str(path))
            reader = Interpreter(model_content=path.read_bytes(), num_threads=torch.get_num_threads())
            reader.allocate_tensors()
            worst = 0.0
            for x in (onnx_export.noise(shape), onnx_export.portraits(shape)):
                reader.set_tensor(reader.get_input_details()[0]["index"], x.numpy())
                reader.invoke()
                made = reader.get_tensor(reader.get_output_details()[0]["index"])
                with torch.inference_mode():
                    worst = float(np.maximum(worst, np.abs(made - net(x).numpy()).max()))
    except Exception as error:  # the converter raises whatever it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise FacekitError(f"litert-torch cannot convert this net: {reason}", "export it as NAME.onnx") from error
    if not worst <= LIMIT:
        raise FacekitError(f"LiteRT's images differ from PyTorch's by {worst:.2g}, over {LIMIT:g}", "export NAME.onnx")
    return worst
