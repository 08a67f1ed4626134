"""What the shell completes: recipes, weights, and the domains or labels of weights."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parents[1] / "weights"
LARGEST_HEADER = 2**24  # bytes
SAFE = re.compile(r"[\w.,+ -]+")  # names from weights that a shell takes for words


def recipes(ctx: Any, incomplete: str) -> list[tuple[str, str]]:
    """Return the recipes that begin with `incomplete`, each with its summary."""
    from ..recipe_api.registry import catalogue

    return [(entry.name, entry.summary) for entry in catalogue().values() if entry.name.startswith(incomplete)]


def weights(ctx: Any, incomplete: str) -> list[str]:
    """Return the shipped weights, run folders and weights files that begin with `incomplete`."""
    shipped = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    return [name for name in [*shipped, *_local(incomplete)] if name.startswith(incomplete)]


def _local(incomplete: str) -> Iterator[str]:
    """List run folders and weights files under the folder that is being typed, and under runs/."""
    typed = incomplete.rpartition("/")[0]
    for place in dict.fromkeys([typed or ".", "runs"]):
        prefix = "" if place == "." else f"{place}/"
        for path in sorted(Path(place).glob("*")):
            if path.suffix == ".safetensors" or (path / "model.safetensors").is_file():
                yield prefix + path.name


def targets(ctx: Any, incomplete: str) -> list[str]:
    """Return the domains or labels that the weights on the command line can translate to."""
    from ..recipe_api.default_weights import GENERATORS

    given = ctx.params.get("weights") or ctx.params.get("model")
    if not given:
        return [name for name in GENERATORS if name.startswith(incomplete)]
    card = _card(str(given))
    try:
        labels = card.get("params", {}).get("labels")
        names = [*labels, "all"] if labels else list(card.get("domains", {}).values())
    except (TypeError, AttributeError):
        return []
    safe = [name for name in names if isinstance(name, str) and SAFE.fullmatch(name)]
    return [name for name in safe if name.startswith(incomplete)]


def _card(name: str) -> dict[str, Any]:
    """Return the card in the header of weights; an empty one if there is none."""
    path = Path(name)
    for file in (path / "model.safetensors", path, WEIGHTS / f"{name}.safetensors"):
        if file.is_file():
            try:
                with file.open("rb") as stream:
                    (size,) = struct.unpack("<Q", stream.read(8))
                    header = json.loads(stream.read(min(size, LARGEST_HEADER)))
                return dict(json.loads(header["__metadata__"]["facekit"]))
            except (OSError, ValueError, KeyError, TypeError, RecursionError, struct.error):
                return {}
    return {}
