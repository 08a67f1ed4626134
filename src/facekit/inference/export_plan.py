"""What every kind of `facekit export` shares: the options, the card of an export, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..recipe_api import checkpoint
from ..storage import files
from .onnx_precision import Precision
from .translator import Translator


@dataclass(frozen=True)
class ExportOptions:
    """What is written and what it takes; see the flags of `facekit export`."""

    to: str | None = None
    source_label: str | None = None
    size: int | None = None
    dynamic: bool | None = None  # True where it was asked for; an ONNX file is, unless this is False
    opset: int | None = None
    precision: Precision = "fp32"
    calibrate: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What to say of an export: a line for people, fields for machines."""

    text: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportPlan:
    """The weights to export, as a translator, and the card `values` of the export."""

    translator: Translator
    values: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.translator.model.path

    def announced(self, text: str, out: Path) -> Outcome:
        """Return what a dry run says."""
        return Outcome(f"export: {text}", {"path": str(out), "options": self.values["options"]})


def planned(weights: str, options: ExportOptions, recipe: str | None, **more: Any) -> ExportPlan:
    """Load weights and return what is planned with them; `more` are further options of the card, None is left out.

    Raises MissingError for weights that cannot be loaded, CardError for options that do not fit them.
    """
    model = checkpoint.load_model(weights, recipe=recipe)
    translator = Translator(model, options.to, options.size)
    given = {"to": translator.name, "came_from": options.source_label, "size": translator.size, **more}
    given = {key: value for key, value in given.items() if value is not None}
    inputs = {"weights": files.digest(model.path)}
    return ExportPlan(translator, {"facekit": 1, "command": "export", "options": given, "inputs": inputs})
