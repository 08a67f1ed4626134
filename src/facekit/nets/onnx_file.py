"""Where an ONNX file keeps its weights: in itself, or in files beside it, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import CardError


def check_external_data(path: Path) -> None:
    """Raise CardError for an ONNX file whose weights would be read from anywhere but files beside it."""
    import onnx

    for place in _external(onnx.load(str(path), load_external_data=False)):
        if Path(place).name != place or (path.parent / place).is_symlink():
            raise CardError(
                f"{path} reads weights from {place!r}, which is not a file beside it",
                "store the weights inside the file, or beside it",
            )


def _external(message: Any) -> Iterator[str]:
    """Yield the location of every tensor in an ONNX message that is stored outside of it."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield from (entry.value for entry in message.external_data if entry.key == "location")
    for field, value in message.ListFields():
        if field.message_type:
            for part in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from _external(part)
