"""The demo's controls: made once for all weights, and shown as the chosen weights have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from .demo_run import Controls

AS_IT_IS = "as it is"
ROTATIONS = {"upright": "turned upright, then back", "condition": "the weights are told its angle"}
TICKED = {"keep": "Keep the colours of hair and skin", "background": "Keep the background of the face"}
"""Controls that are a box to tick where they have two choices: the second, if it is ticked."""
FIRST = ("strength", *TICKED)

Kind = tuple[str, bool]  # of what weights let people set: its name, and whether it is chosen among texts


class DemoControls:
    """What stands between the weights and the button; `known` is what `Studio.describe` says of the weights."""

    def __init__(self, known: Sequence[dict[str, Any]]):
        self.known = {one["name"]: one for one in known}
        declared = {_kind(control): control for one in known for control in one["controls"]}
        self.declared = dict(sorted(declared.items(), key=lambda pair: pair[0][0] not in FIRST))

    def components(self, weights: str) -> list[Any]:
        """Return the controls in the order of `settings`, set up for weights."""
        settings = iter(self.settings(weights))
        return [
            gr.Dropdown(label="Translate to", multiselect=True, elem_id="to", **next(settings)),
            gr.Dropdown(label="What the face is", multiselect=True, elem_id="source", **next(settings)),
            *(_component(control, next(settings)) for control in self.declared.values()),
            gr.Checkbox(label="All faces of the photo", elem_id="every", **next(settings)),
            gr.Checkbox(label="Put the faces back into the photo", elem_id="paste", **next(settings)),
            gr.Checkbox(label="The picture is a face already", elem_id="cut", **next(settings)),
            gr.Dropdown(label="A tilted face is translated", elem_id="rotation", **next(settings)),
        ]

    def settings(self, weights: str) -> list[dict[str, Any]]:
        """Return what each control shows for weights."""
        known = self.known[weights]
        has = {_kind(control): control for control in known["controls"]}
        turned = [(AS_IT_IS, ""), *((ROTATIONS[name], name) for name in known["rotations"])]
        return [
            {"choices": known["to"], "value": known["to"][-1:], "visible": len(known["to"]) > 1},
            {"choices": known["to"], "value": [], "visible": known["source"]},
            *({**_shown(has.get(kind, one)), "visible": kind in has} for kind, one in self.declared.items()),
            {"value": False},
            {"value": True},
            {"value": False},
            {"choices": turned, "value": "", "visible": False},
        ]

    def read(self, weights: str, values: Sequence[Any]) -> Controls:
        """Return what the values of all controls say; a control that the weights lack, or as learned, is left out."""
        known = self.known[weights]
        to, source, *own, every, paste, cut, rotation = values
        given = {}
        for control in known["controls"]:
            value = own[[*self.declared].index(_kind(control))]
            if _ticked(control):
                value = control["choices"][bool(value)]
            if value != control["default"]:
                given[control["name"]] = value
        return Controls(
            weights,
            tuple(to or ()),
            ("+".join(source) or "none") if known["source"] else None,
            given,
            bool(every),
            bool(paste),
            not cut,
            rotation or None if cut else None,
        )


def _kind(control: dict[str, Any]) -> Kind:
    return control["name"], bool(control["choices"])


def _ticked(control: dict[str, Any]) -> bool:
    return control["name"] in TICKED and len(control["choices"]) == 2


def _shown(control: dict[str, Any]) -> dict[str, Any]:
    """Return the limits and the value as it was learned."""
    if _ticked(control):
        return {"value": False}
    if control["choices"]:
        limits: dict[str, Any] = {"choices": list(control["choices"])}
    else:
        step = 1 if isinstance(control["default"], int) else 0.05
        limits = {"minimum": control["low"], "maximum": control["high"], "step": step}
    return {"value": control["default"], "info": control["help"], **limits}


def _component(control: dict[str, Any], settings: dict[str, Any]) -> Any:
    name = control["name"]
    if _ticked(control):
        return gr.Checkbox(label=TICKED[name], elem_id=f"control-{name}", **settings)
    label = name.replace("_", " ").capitalize()
    kind = gr.Dropdown if control["choices"] else gr.Slider
    return kind(label=label, elem_id=f"control-{name}", **settings)
