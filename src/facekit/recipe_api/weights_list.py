"""The weights at hand: those that come with facekit, those downloaded, and the runs of this folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import FacekitError
from ..storage import card, yaml_text
from . import checkpoint, registry, remote_weights

RUNS = Path("runs")  # where `facekit train` puts runs by default
MOST_TARGETS = 6  # named in the list


def overview() -> list[dict[str, Any]]:
    """Return a row per weights: name, where, recipe, to, size in px, bytes, licence, path and source.

    `where` is shipped, downloaded or run. Weights that cannot be read have a `problem`.
    """
    rows = [_row(name, "shipped", path) for name, path in checkpoint.shipped().items()]
    rows += [
        {**_row(path.stem, "downloaded", path), "source": url} for path, url in remote_weights.downloaded().items()
    ]
    found = sorted(path for path in RUNS.glob("*") if (path / checkpoint.FILE).is_file())
    return rows + [_row(str(path), "run", path / checkpoint.FILE) for path in found]


def describe(name: str) -> tuple[dict[str, Any], str]:
    """Return the row of weights and their model card as text; of those without one, how they were trained.

    Raises MissingError for weights that are missing or damaged.
    """
    path = checkpoint.find_weights(name)
    where = "shipped" if path.parent == checkpoint.SHIPPED else "file"
    values = checkpoint.saved_card(path)
    row = _row(name, where, path)
    if about := model_card(path):
        return row, about
    head = f"{path}: {row['recipe']} to {', '.join(row['to'])}, {row['size']} px, {row['bytes'] / 1e6:.1f} MB"
    return row, f"{head}\n\n{yaml_text.dump(values)}".strip()


def model_card(path: str | Path) -> str:
    """Return the model card beside weights; empty without one."""
    about = Path(path).with_suffix(".md")
    return about.read_text(encoding="utf-8").strip() if about.is_file() else ""


def as_text(rows: list[dict[str, Any]]) -> str:
    """Return the list as aligned columns."""
    head = ("name", "where", "recipe", "px", "MB", "licence", "translates to")
    lines = [head]
    for row in rows:
        size, megabytes = str(row["size"] or ""), f"{row['bytes'] / 1e6:.1f}"
        to = row.get("problem") or _shortened(row["to"]) or "nothing: a helper of other commands"
        lines.append((row["name"], row["where"], row["recipe"], size, megabytes, row["licence"], to))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _row(name: str, where: str, path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name, "where": where, "recipe": "", "to": [], "size": None, "bytes": path.stat().st_size,
        "licence": _licence(path), "path": str(path),
    }  # fmt: skip
    try:
        values = card.validate(card.TrainCard, checkpoint.saved_card(path), str(path))
        row |= {"recipe": values.recipe.rpartition("/")[2], "size": values.data.size}
        if registry.is_file(values.recipe):  # it is not run for a list
            row["to"] = [values.domains.a, values.domains.b]
        else:
            kind, _ = registry.find(values.recipe)
            params = {**kind.older_defaults, **values.params}
            row["to"] = list(kind(params, values.data.size).targets(values.domains))
    except (FacekitError, ValueError) as error:
        row["problem"] = getattr(error, "message", str(error)).splitlines()[0]
    return row


def _licence(path: Path) -> str:
    """Return the first words under "Licence" in the model card beside weights; empty without one."""
    found = re.search(r"^## Licence\n+([^,.:;\n]+)", model_card(path), re.M)
    return found[1].strip() if found else ""


def _shortened(names: list[str]) -> str:
    more = len(names) - MOST_TARGETS
    return ", ".join(names[:MOST_TARGETS]) + (f" and {more} more" if more > 0 else "")
