"""`facekit recipes`: what `train` can train."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from . import completion


def recipes(
    name: Annotated[
        Optional[str],
        typer.Argument(help="describe this recipe (default: list all)", autocompletion=completion.recipes),
    ] = None,
) -> list[dict[str, Any]]:
    """List the methods that `train` knows, or describe one: terms and weights, parameters, defaults, paper."""
    from ..recipe_api.registry import catalogue
    from ..runtime import console

    if name is None:
        rows = [{"name": entry.name, "summary": entry.summary} for entry in catalogue().values()]
        width = max(len(row["name"]) for row in rows)
        console.result("\n".join(f"{row['name']:{width}}  {row['summary']}" for row in rows), recipes=rows)
        return rows
    told = describe(name)
    console.result(as_text(told), **told)
    return [told]


def describe(name: str) -> dict[str, Any]:
    """Return everything about a recipe: paper, terms, phases, parameters, defaults, parameter counts."""
    import inspect

    import torch

    from ..recipe_api.registry import find
    from ..storage import card

    kind, preset = find(name)
    values = card.merge(kind.defaults, preset)
    params = kind.Params.model_validate(values.get("params", {}))
    made = kind(params.model_dump(), values.get("data", {}).get("size", 256))
    with torch.device("meta"):
        counts = {key: sum(p.numel() for p in net.parameters()) for key, net in made.nets().items()}
    return {
        "recipe": name,
        "about": inspect.getdoc(kind) or "",
        "translates_to": list(kind.directions),
        "phases": {phase.name: list(phase.nets) for phase in kind.phases},
        "terms": {t.name: {"phase": t.phase, "weight": t.weight, "about": t.doc} for t in kind.terms().values()},
        "params": {
            key: {"value": getattr(params, key), "about": field.description or ""}
            for key, field in kind.Params.model_fields.items()
        },
        "defaults": {key: value for key, value in values.items() if key != "params"},
        "parameters": {key: count for key, count in counts.items() if count},
    }


def as_text(told: dict[str, Any]) -> str:
    """Return a description for people."""
    import yaml

    lines = [told["recipe"], "", told["about"], "", "terms (phase, weight; set with losses.NAME):"]
    lines += [f"  {k:14} {t['phase']:2} {t['weight']:<6g} {t['about']}" for k, t in told["terms"].items()]
    lines += ["", "parameters (set with params.NAME):"]
    lines += [f"  {k:14} {p['value']!s:<8} {p['about']}" for k, p in told["params"].items()]
    total = sum(told["parameters"].values())
    nets = ", ".join(f"{k} {count:,}" for k, count in told["parameters"].items())
    lines += ["", f"nets: {nets}; together {total:,}", "", "defaults:"]
    lines += ["  " + line for line in yaml.safe_dump(told["defaults"], default_flow_style=None).splitlines()]
    return "\n".join(lines)
