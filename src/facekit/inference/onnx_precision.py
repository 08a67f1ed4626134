"""Smaller ONNX files of a generator: 16-bit floats, or 8-bit whole numbers calibrated on faces."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import FacekitError, InputError
from ..runtime import console
from ..runtime.quiet import quiet_libraries
from ..storage import images
from ..storage.folder import Folder

Precision = Literal["fp32", "fp16", "int8"]
MOST = 64  # faces that are looked at for the ranges of values
FEW = 16
WHOLE = ("Conv", "ConvTranspose", "MatMul", "Gemm")  # what is computed in 8 bits; the rest stays in floats
PERCENTILE = 99.99  # of the values of a tensor that lie in its range; the rest is clipped
LIMIT = 16.0  # of 255: the mean difference from PyTorch's images over which a file is useless


def read_faces(folder: Path, size: int) -> np.ndarray:
    """Return up to MOST faces of a folder as float32 [n, 3, size, size] in [-1, 1], spread evenly over its names.

    Raises InputError for a folder without readable images.
    """
    sources = Folder(folder).sources()
    chosen = sources[:: max(1, len(sources) // MOST)][:MOST]
    found = []
    for source in chosen:
        try:
            face = images.resize(images.square(images.read(source.path)), size)
        except InputError as error:
            console.warn(f"{error.message}; not used for the ranges")
            continue
        found.append(images.to_tensor(face).numpy())
    if not found:
        raise InputError(f"no image in {folder} can be read", "give a folder of faces, as `facekit align` cuts them")
    if len(found) < FEW:
        console.warn(f"{len(found)} faces say little about the ranges of values; give {FEW} or more")
    return np.stack(found)


def convert(path: Path, precision: Precision, faces: np.ndarray) -> None:
    """Rewrite the ONNX file at `path` in a smaller precision; "int8" takes its ranges from `faces` [n, 3, H, W].

    Input and output stay 32-bit floats. Raises FacekitError where ONNX Runtime's tools cannot convert these nets.
    """
    try:
        with quiet_libraries():
            _halve(path) if precision == "fp16" else _quantize(path, faces)
    except Exception as error:  # ONNX Runtime's tools raise whatever they like
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        hint = "--precision fp32" if precision == "fp16" else "--precision fp16"
        raise FacekitError(f"these nets cannot be written in {precision}: {reason}", hint) from error


def difference(path: Path, faces: np.ndarray, expected: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the mean and the largest difference of a file's images from those `expected`, in levels of 255.

    Raises FacekitError for a mean over LIMIT and for images that are not finite.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns of what it does not fold
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    made = [session.run(None, {session.get_inputs()[0].name: face[None]})[0] for face in faces]
    pairs = [(np.clip(one, -1, 1), np.clip(other, -1, 1)) for one, other in zip(made, expected, strict=True)]
    apart = [np.abs(one - other) * 127.5 for one, other in pairs]
    mean, most = float(np.mean([one.mean() for one in apart])), float(max(one.max() for one in apart))
    if not mean <= LIMIT:
        raise FacekitError(
            f"the file's images differ from PyTorch's by {mean:.1f} of 255 on average", "--precision fp16 or fp32"
        )
    return mean, most


def _halve(path: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(str(path)), keep_io_types=True), str(path))


def _quantize(path: Path, faces: np.ndarray) -> None:
    from onnxruntime import quantization as tools

    class Faces(tools.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[np.ndarray] = iter(faces)

        def get_next(self) -> dict[str, Any] | None:
            face = next(self.rest, None)
            return None if face is None else {"image": face[None]}

    with tempfile.TemporaryDirectory(prefix="facekit-") as place:
        made = Path(place) / "int8.onnx"
        tools.quantize_static(
            str(path),
            str(made),
            Faces(),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=list(WHOLE),
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            calibrate_method=tools.CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )
        path.write_bytes(made.read_bytes())
