"""A trained generator as an ONNX file: images in, images out, its card in the metadata, compared with PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import CardError, FacekitError, MissingError
from ..nets.detector import FaceDetector
from ..recipe_api import checkpoint
from ..runtime import console
from ..runtime.quiet import quiet_libraries
from ..storage import card, images
from . import hub
from .onnx_precision import Precision, convert, difference
from .translator import Translator

INPUT, OUTPUT = "image", "translation"
AXES = {0: "batch", 2: "height", 3: "width"}
OPSET = 17
LIMIT = 1e-3  # of the difference, of values from -1 to 1; a step of an 8-bit image is 0.008


@dataclass(frozen=True)
class Exported:
    """What was written: the shape that the file takes and gives, and the largest difference to PyTorch's images.

    Axes that are free stand in `shape` by name; `compared` are the shapes at which the difference was taken. `levels`
    are the mean and the largest difference of a smaller precision, of 255; None for 32-bit floats.
    """

    shape: list[int | str]
    difference: float
    compared: list[tuple[int, ...]]
    levels: tuple[float, float] | None = None


class Generator(nn.Module):
    """A model in one direction: images [N, 3, H, W] in [-1, 1] to images; `source` is what all of them are."""

    def __init__(self, translator: Translator, source: str | None = None):
        super().__init__()
        self.recipe: Any = translator.model.recipe
        self.nets, self.side, self.source = translator.model.nets, translator.side, source

    def forward(self, image: Tensor) -> Tensor:
        condition = {} if self.source is None else {"source": [self.source] * len(image)}
        return self.recipe.translate(self.nets, image, self.side, **condition)


def open_generator(translator: Translator, came_from: str | None = None) -> Generator:
    """Return what is written; raises CardError for a size or a source that the model does not know, or lacks."""
    model, size = translator.model, translator.size
    name, multiple = model.card.recipe, model.recipe.multiple
    if hasattr(model.recipe, "label"):
        raise CardError(
            f"{name} labels the parts of a face and translates nothing; export writes generators",
            f"facekit translate IN OUT --weights {model.path.stem} shows the labels",
        )
    if any(isinstance(net, FaceDetector) for net in model.nets.values()):
        raise CardError(
            f"{name} frames the faces that it finds and translates nothing; export writes generators",
            "facekit export WEIGHTS OUT --web writes a page with the nets of the shipped detector",
        )
    if hasattr(model.recipe, "invert"):
        raise CardError(
            f"{name} searches for the latent of each photo, which an ONNX file cannot",
            "facekit pairs PHOTOS PAIRS --teacher this; a student trained on the pairs can be exported",
        )
    if multiple and size % multiple:
        near = dict.fromkeys(edge for edge in (size // multiple * multiple, -(-size // multiple) * multiple) if edge)
        hint = " or ".join(f"--size {edge}" for edge in near)
        raise CardError(f"{name} takes edges that are multiples of {multiple} px, not {size}", hint)
    if came_from is None and model.recipe.needs_source:
        hint = f"--from {' or '.join(model.directions)}: one file for each"
        raise CardError(f"{name} needs to know what the faces are, and an ONNX file takes only images", hint)
    if came_from is not None and not model.recipe.needs_source:
        raise CardError(f"{name} does not use what the faces are", "leave out --from")
    return Generator(translator, None if came_from is None else checkpoint.direction(model, came_from)).eval()


def ways_to_write(dynamic: bool, multiple: int) -> list[tuple[int, ...]]:
    """Return sets of axes to leave free, the freest first; a `multiple` of 0 is a model of one size."""
    if not dynamic:
        return [()]
    return [(0, 2, 3), (2, 3), (0,), ()] if multiple else [(0,), ()]


def shape_of(free: Sequence[int], size: int) -> list[int | str]:
    """Return [batch, 3, height, width], with 1 and `size` for the axes that are not free."""
    return [AXES[axis] if axis in free else edge for axis, edge in enumerate((1, 3, size, size))]


def write(
    translator: Translator,
    path: Path,
    came_from: str | None = None,
    dynamic: bool = True,
    opset: int = OPSET,
    export_card: Mapping[str, Any] | None = None,
    precision: Precision = "fp32",
    faces: np.ndarray | None = None,
) -> Exported:
    """Write the translator's direction as ONNX to `path` and compare ONNX Runtime's results with PyTorch's.

    `dynamic` leaves the batch open, and the edges where the model takes other sizes than its own. Axes at which the
    results differ are fixed, and a note says so. `export_card` goes into the metadata. A `precision` other than fp32 is
    made of the file that was compared, int8 with the ranges that `faces` [n, 3, H, W] show.
    Raises FacekitError where the answers differ by more than LIMIT even so, CardError for nets that torch cannot write,
    MissingError without onnx or onnxruntime; `path` may then hold anything.
    """
    onnx = package("onnx")
    net, size, multiple = open_generator(translator, came_from), translator.size, translator.model.recipe.multiple
    problem: FacekitError | None = None
    for free in ways_to_write(dynamic, multiple):
        shapes = compared_shapes(free, size, multiple)
        try:
            _trace(net, path, free, size, opset)
            worst = largest_difference(net, path, (make(shape) for shape in shapes for make in (noise, portraits)))
            break
        except FacekitError as error:
            problem = error
    else:
        assert problem
        raise problem
    shape = shape_of(free, size)
    if dynamic and len(free) < 3:
        why = "gives other results at other shapes" if multiple else f"translates at {size} px only"
        console.note(f"export: {translator.model.card.recipe} {why}; the file takes {as_text(shape)}")
    levels = _reduced(net, path, precision, faces, size) if precision != "fp32" else None
    found = Exported(shape, worst, shapes, levels)
    _sign(onnx, path, translator, found, export_card or {})
    return found


def _reduced(
    net: nn.Module, path: Path, precision: Precision, faces: np.ndarray | None, size: int
) -> tuple[float, float]:
    """Rewrite a file in a smaller precision; returns how far its images of faces then are from PyTorch's."""
    seen = portraits((4, 3, size, size)).numpy() if faces is None else faces
    with torch.inference_mode():
        expected = [net(torch.from_numpy(face[None])).numpy() for face in seen]
    convert(path, precision, seen)
    return difference(path, seen, expected)


def as_text(shape: Sequence[int | str]) -> str:
    """Return a shape for people."""
    return f"[{', '.join(map(str, shape))}]"


def package(name: str) -> Any:
    """Import a package that comes with facekit but may be gone; raises MissingError with the line that gets it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingError(f"{name} is not here: {error}", f"pip install {name}") from error


def compared_shapes(free: Sequence[int], size: int, multiple: int) -> list[tuple[int, ...]]:
    """Return shapes to compare at: one image of `size`, then other batches, and higher and wider images, as `free`."""
    home = (1, 3, size, size)
    few, more = (2, 3) if 0 in free else (1, 1)
    if 2 in free:
        longer = size + multiple * max(1, size // 4 // multiple)
        return [home, (few, 3, size, longer), (more, 3, longer, size)]
    return [home, (more, 3, size, size)] if 0 in free else [home]


def _trace(net: nn.Module, path: Path, free: Sequence[int], size: int, opset: int) -> None:
    """Write a generator as ONNX with the axes `free` left open; raises CardError where torch cannot."""
    names = {axis: AXES[axis] for axis in free}
    example = torch.zeros(2 if 0 in free else 1, 3, size, size)
    write_net(net, path, example, {INPUT: names, OUTPUT: names}, opset)


def write_net(
    net: nn.Module, path: Path, example: Tensor, axes: Mapping[str, Mapping[int, str]], opset: int = OPSET
) -> None:
    """Write a net of one input as ONNX; raises CardError where torch cannot.

    `axes` names the input first, then the outputs, each with the axes that are left open, by name. It is written by
    torch's older exporter, which needs no package that facekit has not; the newer one needs onnxscript.
    """
    first, *outputs = axes
    try:
        with quiet_libraries(), torch.no_grad():  # torch calls this exporter old, and every number of Python's a guess
            torch.onnx.export(
                net,
                (example,),
                path,  # for a str torch would put weights of more than 2 GB beside it
                input_names=[first],
                output_names=outputs,
                dynamic_axes={name: dict(free) for name, free in axes.items()},
                opset_version=opset,
                do_constant_folding=False,  # it loses one of two equal parameters; ONNX Runtime folds by itself
                dynamo=False,
            )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        hint = f"--opset {OPSET}" if opset != OPSET else "use it with facekit translate"
        raise CardError(f"torch cannot write these nets as ONNX of opset {opset}: {reason}", hint) from error


def largest_difference(net: nn.Module, path: Path, inputs: Iterable[Tensor]) -> float:
    """Return how far ONNX Runtime's answers are from those of a net of one input; raises FacekitError over LIMIT."""
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    worst = 0.0
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for x in inputs:
            made = session.run(None, {INPUT: x.numpy()})
            with torch.inference_mode():
                found = net(x)
            expected = [one.numpy() for one in (found if isinstance(found, list) else [found])]
            for one, other in zip(made, expected, strict=True):
                if one.shape != other.shape:
                    raise ValueError(f"it gives {list(one.shape)} where PyTorch gives {list(other.shape)}")
                worst = float(np.maximum(worst, np.abs(one - other).max()))  # a nan stays one
    except Exception as error:  # ONNX Runtime's errors have no class in common
        reason = str(error).strip().splitlines()[-1][:300]
        raise FacekitError(f"ONNX Runtime cannot be compared with PyTorch: {reason}", "another --opset") from error
    if not worst <= LIMIT:
        hint = "another --opset; weights that are not finite cannot be exported"
        raise FacekitError(f"ONNX Runtime's answers differ from PyTorch's by {worst:.2g}, over {LIMIT:g}", hint)
    return worst


def noise(shape: tuple[int, ...]) -> Tensor:
    """Return uniform noise in [-1, 1], the same at every call."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def portraits(shape: tuple[int, ...]) -> Tensor:
    """Return scikit-image's photo of a face as [N, 3, H, W], each with less contrast than the one before."""
    from skimage.data import astronaut

    count, _, height, width = shape
    face = Image.fromarray(astronaut()[:220, 110:330]).resize((width, height), Image.Resampling.BICUBIC)
    return torch.stack([images.to_tensor(face) * 0.8**number for number in range(count)])


def _sign(onnx: Any, path: Path, translator: Translator, found: Exported, export_card: Mapping[str, Any]) -> None:
    """Put the model's card, the export's, and what a user must know into the file's metadata."""
    model = translator.model
    values = {
        checkpoint.KEY: json.dumps(hub.without_places(card.plain(model.card))),
        "domain": translator.name,
        "size": str(translator.size),
        "multiple": str(model.recipe.multiple if "height" in found.shape else 0),
        "range": "-1 to 1",
        "channels": "RGB",
        "difference": f"{found.levels[1] / 127.5 if found.levels else found.difference:.2g}",
        "export": json.dumps(export_card),
    }
    file = onnx.load(str(path))
    onnx.helper.set_model_props(file, values)
    onnx.save(file, str(path))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file; raises MissingError for a file that is something else."""
    onnx = package("onnx")
    try:
        return {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}
    except Exception as error:  # protobuf's errors move between its versions
        raise MissingError(f"{path} is not a complete ONNX file", "export it again") from error
