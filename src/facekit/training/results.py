"""The results that the card of a finished run records: environment, length, and a digest of the images."""

from __future__ import annotations

from typing import Any

import torch

from ..runtime import distributed
from ..storage import card, content, provenance
from .plan import Plan
from .state import TrainState


def results(state: TrainState, plan: Plan, steps: int, first: int, seconds: float) -> dict[str, Any]:
    """Return versions, device, length and parameter counts of a run; its last start began at step `first`."""
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in state.nets.items()}
    per_step = plan.card.data.batch * plan.card.run.accumulate * distributed.size()
    cuda = state.device.type == "cuda"
    return {
        **provenance.collect("torch"),
        "device": torch.cuda.get_device_name(state.device) if cuda else state.device.type,
        "processes": distributed.size(),
        "steps": steps,
        "images_per_domain": steps * per_step,
        "last_start": {"from_step": first, "seconds": round(seconds, 1)},
        "parameters": {name: number for name, number in count.items() if number},
    }


def inputs(plan: Plan) -> dict[str, Any]:
    """Return the number of training images and a digest of their names and sizes, by domain."""
    files = {side: [[p.name, content.stat(p).st_size] for p in paths] for side, paths in plan.layout.train.items()}
    return {side: {"images": len(rows), "digest": card.digest({"files": rows})} for side, rows in files.items()}
