"""`facekit export NAME.mlpackage`: a trained generator for Core ML, an RGB picture in and an RGB picture out."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CardError, FacekitError
from ..recipe_api import checkpoint
from ..runtime import console
from ..runtime.optional import needs
from ..runtime.quiet import quiet_libraries
from ..storage import card, claim, files, images, lock, provenance
from . import hub, onnx_export, onnx_precision
from .export_plan import ExportOptions, ExportPlan, Outcome, planned
from .onnx_precision import Precision

SUFFIX = ".mlpackage"
MANIFEST = "Manifest.json"  # every package of Core ML has one
DEBUGGING = "executorch_debug_handle_mapping.json"  # coremltools leaves it there; the manifest does not list it
LIMIT = 1.0  # of 255: the largest difference of 32-bit floats, whose pixels may be rounded to the next level
LICENCE = re.compile(r"^## Licen[cs]e\s+(.+?)(?:\n\s*\n|\Z)", re.M | re.S)
Levels = tuple[float, float]


class Picture(nn.Module):
    """A generator whose output Core ML shows as a picture: [1, 3, S, S] in [-1, 1] to whole numbers from 0 to 255."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return torch.round(torch.clamp(self.net(image) * 127.5 + 127.5, 0, 255))


def export(
    weights: str,
    out: Path,
    options: ExportOptions,
    recipe: str | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> Outcome | None:
    """Write a generator as the Core ML package `out`, its card beside it; returns None where it is there already.

    It takes and gives one RGB picture of S x S px. On macOS the pictures are compared with PyTorch's; elsewhere Core ML
    cannot run, and the outcome says so. Raises CardError for options that do not fit, MissingError for weights that
    cannot be loaded and without coremltools, FacekitError where the net cannot be converted or the pictures differ.
    """
    plan = planned(weights, options, recipe, precision=None if options.precision == "fp32" else options.precision)
    translator, values = plan.translator, plan.values
    net = onnx_export.open_generator(translator, options.source_label)
    size = translator.size
    takes = f"an RGB picture of {size} x {size} px"
    if dry_run:
        return plan.announced(f"{translator.name} of {plan.weights} to {out}, {takes}", out)
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).exists():
        raise CardError(f"{out} is a folder and no Core ML package", "choose another name")
    name = f"{out.name}.{card.NAME}"
    with lock.held_file(out, "export"):
        if not force and claim.is_complete(out, values, name):
            console.note(f"export: nothing to do, {out} is complete")
            return None
        claim.take(out.parent, values, name, force=True)
        with files.replacing_folder(out) as part:
            levels = write(net, part, size, options.precision, _about(plan))
        made = {"mean_levels": levels[0], "largest_levels": levels[1]} if levels else {"compared": False}
        claim.finish(out.parent, values, {**provenance.collect("torch", "coremltools"), **made}, name)
    if levels:
        mean, most = levels
        said = f"{mean:.2g} of 255 from PyTorch on average, {most:.2g} at most"
    else:
        said = "it is converted but not compared with PyTorch, as Core ML runs on macOS only"
    fields = {"path": str(out), "domain": translator.name, "size": size, "compared": levels is not None, **made}
    return Outcome(f"export: {out} takes {takes} to {translator.name}; {said}", fields)


def write(net: nn.Module, path: Path, size: int, precision: Precision, about: Mapping[str, Any]) -> Levels | None:
    """Write a generator as a Core ML package; returns how far its pictures are from PyTorch's, None if not on macOS.

    `about` are attributes of the model, such as its `license`, and its user-defined `metadata`. Raises MissingError
    without coremltools, FacekitError where it cannot convert the net and where the pictures differ too much.
    """
    shape = (1, 3, size, size)
    with needs("coreml"), quiet_libraries():
        import coremltools as ct
    rgb, numbers = ct.colorlayout.RGB, ct.precision
    try:
        with quiet_libraries(), torch.no_grad():
            program = torch.export.export(Picture(net).eval(), (torch.zeros(shape),))
            model = ct.convert(
                program.run_decompositions(_decompositions()),
                convert_to="mlprogram",
                inputs=[
                    ct.ImageType(
                        name=onnx_export.INPUT, shape=shape, scale=1 / 127.5, bias=[-1.0, -1.0, -1.0], color_layout=rgb
                    )
                ],
                outputs=[ct.ImageType(name=onnx_export.OUTPUT, color_layout=rgb)],
                compute_precision=numbers.FLOAT32 if precision == "fp32" else numbers.FLOAT16,
                minimum_deployment_target=ct.target.iOS16,
                skip_model_load=True,
            )
            if precision == "int8":
                tools = ct.optimize.coreml
                how = tools.OpLinearQuantizerConfig(mode="linear_symmetric")
                model = tools.linear_quantize_weights(model, tools.OptimizationConfig(global_config=how))
            more = dict(about)
            model.user_defined_metadata.update(more.pop("metadata", {}))
            for attribute, value in more.items():
                setattr(model, attribute, value)
            model.input_description[onnx_export.INPUT] = f"an upright face, {size} x {size} px, as `facekit align` cuts"
            model.output_description[onnx_export.OUTPUT] = "the translated face"
            model.save(str(path))
    except Exception as error:  # the converter raises whatever it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        raise FacekitError(f"coremltools cannot convert this net: {reason}", "export it as NAME.onnx") from error
    (path / DEBUGGING).unlink(missing_ok=True)
    return compare(net, path, size, precision) if sys.platform == "darwin" else None


def compare(net: nn.Module, path: Path, size: int, precision: Precision) -> Levels:
    """Return the mean and the largest difference of a package's pictures from PyTorch's, in levels of 255; macOS only.

    Raises FacekitError where Core ML cannot run it, for a difference of 32-bit floats over LIMIT, and for a mean
    difference of smaller precisions over that of an ONNX file.
    """
    import coremltools as ct

    seen = [*onnx_export.portraits((4, 3, size, size))]
    if precision == "fp32":
        seen.append(onnx_export.noise((3, size, size)))
    apart = []
    try:
        with quiet_libraries():
            model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)
            for face in seen:
                picture = images.to_image(face)
                made = model.predict({onnx_export.INPUT: picture})[onnx_export.OUTPUT].convert("RGB")
                with torch.inference_mode():
                    expected = images.to_image(net(images.to_tensor(picture)[None])[0])
                apart.append(np.abs(np.asarray(made, float) - np.asarray(expected, float)))
    except Exception as error:  # Core ML's errors have no class in common
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        raise FacekitError(f"Core ML cannot run what was written: {reason}", "it needs macOS 13 or later") from error
    mean, most = float(np.mean([one.mean() for one in apart])), float(max(one.max() for one in apart))
    if precision == "fp32" and most > LIMIT:
        raise FacekitError(f"Core ML's pictures differ from PyTorch's by {most:.0f} of 255", "export NAME.onnx")
    if mean > onnx_precision.LIMIT:
        raise FacekitError(
            f"Core ML's pictures differ from PyTorch's by {mean:.1f} of 255 on average", "--precision fp32"
        )
    return mean, most


def _about(plan: ExportPlan) -> dict[str, Any]:
    """Return what the package says of itself; paths of this machine are left out."""
    model, domain = plan.translator.model, plan.translator.name
    told: dict[str, Any] = {
        "short_description": f"Translates a face to {domain}, by {model.card.recipe} of facekit.",
        "metadata": {
            checkpoint.KEY: json.dumps(hub.without_places(card.plain(model.card))),
            "domain": domain,
            "size": str(plan.translator.size),
            "export": json.dumps(hub.without_places(plan.values)),
        },
    }
    if model.path in checkpoint.shipped().values():
        told["author"] = "the facekit authors"
    about = model.path.with_suffix(".md")
    licence = LICENCE.search(about.read_text(encoding="utf-8")) if about.is_file() else None
    if licence:
        told["license"] = " ".join(hub.LINK.sub(r"\1", licence[1]).split())
    return told


def _decompositions() -> dict[Any, Any]:
    """Return how the operations of facekit's nets that coremltools does not know follow from ones that it knows."""
    aten = torch.ops.aten
    return {
        aten.var_mean.correction: _var_mean,
        aten.std_mean.correction: _std_mean,
        aten.addcmul.default: _addcmul,
    }


def _addcmul(x: Tensor, one: Tensor, other: Tensor, *, value: float = 1) -> Tensor:
    return x + value * one * other


def _var_mean(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    axes = list(range(x.ndim)) if dim is None else list(dim)
    count = math.prod(x.shape[axis] for axis in axes)
    mean = x.mean(axes, keepdim=True)
    far = (x - mean).square().sum(axes, keepdim=keepdim)
    return far / (count - (1 if correction is None else correction)), mean if keepdim else x.mean(axes)


def _std_mean(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    variance, mean = _var_mean(x, dim, correction=correction, keepdim=keepdim)
    return variance.sqrt(), mean
