"""The list of recipes and the description of one, as data and as text."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

import yaml

from ..storage import card
from .costs import COSTS
from .registry import catalogue, find

COST = (
    "work: of a training step per image, projected-cut's is 1; GiB: of a training step, estimated. Both at the size "
    "and batch of the recipe"
)
FIRST = "projected-cut"  # trains in hours on one machine, from a few hundred images


def overview() -> list[dict[str, Any]]:
    """Return a row per recipe: name, summary, what its preset changes, size in px, length, where to start, and cost.

    `work` is that of a training step per image, where that of `FIRST` is 1, and `gib` the estimated memory of a step,
    both at the recipe's own size and batch; None where they are not known. Imports no recipe: size and length are
    missing where only the class knows them.
    """
    rows = []
    for entry in catalogue().values():
        values = card.merge(entry.defaults, entry.preset)
        rows.append(
            {
                "name": entry.name,
                "summary": entry.summary,
                "differs": [f"{key}={value}" for key, value in card.leaves(entry.preset)],
                "size": values.get("data", {}).get("size"),
                "steps": values.get("run", {}).get("steps"),
                "epochs": values.get("run", {}).get("epochs"),
                "start_here": entry.name == FIRST,
                **_cost(entry.name),
            }
        )
    return rows


def _cost(name: str) -> dict[str, float | None]:
    """Return the work and memory of a training step of a recipe."""
    if name not in COSTS:
        return {"work": None, "gib": None}
    work, memory = COSTS[name]
    first = COSTS[FIRST][0]
    return {"work": None if work is None or first is None else round(work / first, 2), "gib": memory}


def overview_text(rows: list[dict[str, Any]]) -> str:
    """Return the list as aligned columns; a preset that shares its method's summary shows what it changes."""
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'recipe':{width}}  {'px':>4}  {'length':>15}  what it is, or how the preset differs"]
    seen: set[str] = set()
    for row in rows:
        length = f"{row['steps']:,} steps" if row["steps"] else f"{row['epochs']:,} epochs" if row["epochs"] else ""
        about = ", ".join(row["differs"]) if row["summary"] in seen and row["differs"] else row["summary"]
        seen.add(row["summary"])
        mark = "START HERE. " if row["start_here"] else ""
        work = f"work {row['work']:g}, " if row["work"] else ""
        cost = f" [{work}{row['gib']:g} GiB]" if row["gib"] else ""
        lines.append(f"{row['name']:{width}}  {row['size'] or '':>4}  {length:>15}  {mark}{about}{cost}")
    hint = "`facekit recipes NAME` shows losses, parameters and their number; --size and --steps change these two"
    return "\n".join([*lines, "", COST, hint])


def describe(name: str) -> dict[str, Any]:
    """Return paper, terms with this preset's weights, phases, parameters, defaults and counts of a recipe."""
    import torch

    from .checkpoint import Blueprint

    kind, preset = find(name)
    values = card.merge(kind.defaults, preset)
    params = kind.Params.model_validate(values.get("params", {}))
    recipe = kind(params.model_dump(), values.get("data", {}).get("size", 256))
    weights = {term.name: term.weight for term in kind.terms().values()}
    for term_name, value in values.get("losses", {}).items():
        weights[term_name] = value.get("weight", weights[term_name]) if isinstance(value, dict) else value
    with torch.device("meta"), Blueprint():
        counts = {key: sum(p.numel() for p in net.parameters()) for key, net in recipe.nets().items()}
    return {
        "recipe": name,
        "about": inspect.getdoc(kind) or "",
        "translates_to": list(kind.directions),
        "phases": {phase.name: list(phase.nets) for phase in kind.phases},
        "terms": {t.name: {"phase": t.phase, "weight": weights[t.name], "about": t.doc} for t in kind.terms().values()},
        "params": {
            key: {"value": getattr(params, key), "about": field.description or ""}
            for key, field in kind.Params.model_fields.items()
        },
        "controls": {
            control.name: {"takes": control.takes, "default": control.default, "about": control.help}
            for control in (kind.known_controls() if kind.directions else ())
        },
        "defaults": {key: value for key, value in values.items() if key != "params"},
        "parameters": {key: count for key, count in counts.items() if count},
    }


def as_text(found: dict[str, Any]) -> str:
    """Return a description for people."""
    lines = [found["recipe"], "", found["about"], "", "terms (phase, weight; set with losses.NAME):"]
    lines += [f"  {k:14} {t['phase']:2} {t['weight']:<6g} {t['about']}" for k, t in found["terms"].items()]
    lines += ["", "parameters (set with params.NAME):"]
    lines += [f"  {k:14} {p['value']!s:<8} {p['about']}" for k, p in found["params"].items()]
    if found["controls"]:
        lines += ["", "controls of translate (set with --NAME or --control NAME=VALUE):"]
        lines += [f"  {k:14} {c['default']!s:<8} {c['takes']}: {c['about']}" for k, c in found["controls"].items()]
    total = sum(found["parameters"].values())
    nets = ", ".join(f"{k} {count:,}" for k, count in found["parameters"].items())
    lines += ["", f"nets: {nets}; together {total:,}", "", "defaults:"]
    lines += ["  " + line for line in yaml.safe_dump(found["defaults"], default_flow_style=None).splitlines()]
    return "\n".join(lines)


def wrapped(text: str, width: int) -> str:
    """Return text whose lines have at most `width` columns; what follows hangs under the last column of a table row."""
    lines = []
    for line in text.splitlines():
        gap = re.match(r".*  (?=\S)", line)
        hang = " " * min(gap.end() if gap else 0, width // 2 + 8)
        lines.append(textwrap.fill(line, width, subsequent_indent=hang, break_on_hyphens=False) if line else "")
    return "\n".join(lines)
