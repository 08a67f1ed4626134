"""The difference of two domains' mean images, added to a face: Eki's first method."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import InputError
from ..ops.losses import wide
from ..recipe_api import base
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term
from ..reports import contact_sheet
from ..runtime import console
from ..storage import images

SHARES = 10  # snapshots of a run


class Difference(nn.Module):
    """The vector D [1, 3, S, S], what it was at each tenth of the run, and how many steps it has learnt.

    The last snapshot is always D itself, and so are those of tenths that are still to come.
    """

    snapshots: Tensor
    tenth: Tensor
    steps: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(1, 3, size, size))
        self.register_buffer("snapshots", torch.zeros(SHARES, 3, size, size))
        self.register_buffer("tenth", torch.zeros((), dtype=torch.long))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def record(self) -> None:
        """Copy D into the snapshots of this tenth of the run and of those to come."""
        ahead = torch.arange(SHARES, device=self.vector.device) >= self.tenth
        self.snapshots.copy_(torch.where(ahead[:, None, None, None], self.vector, self.snapshots))
        self.steps += 1


def descent(parameters: list[Any]) -> torch.optim.Optimizer:
    """Plain gradient descent; `lr_factor` gives the rate."""
    return torch.optim.SGD(parameters, lr=1.0)


class DifferenceScene(Scene):
    """A batch of `a` and one of `b`, of which only the means count."""

    @term("V")
    def difference(self) -> Tensor:
        """The vector is mean(b) - mean(a): half the squared distance (average), or minus the product (literal).

        Plain gradient descent on the first is the moving average D + rate ((m_b - m_a) - D), on the second the paper's
        own rule D + rate (m_b - m_a), which grows with every step.
        """
        net = self.nets.difference
        if not net.tenth.is_meta:
            net.tenth.fill_(min(SHARES - 1, int(self.progress * SHARES + 1e-6)))
        apart = (wide(self.b).mean(0) - wide(self.a).mean(0)).detach()
        if self.params.mode == "literal":
            return -(net.vector[0] * apart).mean()
        return 0.5 * (net.vector[0] - apart).square().mean()


class DifferenceParams(base.Params):
    """Parameters of difference-vector."""

    mode: Literal["average", "literal"] = Field(
        "average", description="moving average of the differences, or the paper's sum of them"
    )
    rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of each step's difference: 0.01 for average; 0.0001 for literal, with which 10,000 steps "
        "add up to one difference",
    )
    strength: float = Field(1.0, description="how much of the vector is added when images are translated")
    snapshot: int = Field(SHARES, ge=1, le=SHARES, description="which tenth of the run the vector is taken from")


class DifferenceVector(Recipe):
    """Difference vector: Eki, "Automatic transformation from animated face image to real human face image", method 1.

    One picture, mean(b) - mean(a), is added to every face (to a, it is subtracted). What two domains differ by in the
    mean is colour, brightness and a soft shadow of where eyes, hair and background lie; no face is redrawn, whatever
    the length of the run: the paper also found a blur with two spots at the eyes. It is a baseline, and shows how the
    domains' means differ. It needs aligned faces, as `facekit align` crops them.
    """

    Scene = DifferenceScene
    Params = DifferenceParams
    phases = (Phase("V", ("difference",), optimizer=descent),)
    presets = {"difference-vector": {}}
    defaults = {
        "data": {"size": 128, "batch": 100},
        "run": {"steps": 10000, "save_every": 1000},
    }
    sizes = (8, 4)  # any size that other methods take
    exports = ("difference",)
    multiple = 0

    def nets(self) -> dict[str, nn.Module]:
        return {"difference": Difference(self.size)}

    def lr_factor(self, clock: Progress) -> float:
        """The share of a step's difference, times the numbers of D over which the term is a mean.

        The moving average of the first steps is their plain mean: 1, 1/2, 1/3 and so on.
        """
        p, numbers = self.params, 3 * self.size**2
        if p.mode == "literal":
            return numbers * (p.rate or 1e-4)
        return numbers * max(1 / (clock.step + 1), p.rate or 0.01)

    def after(self, nets: Any, phase: str) -> None:
        """Record the vector."""
        nets["difference"].record()

    def translate(
        self, nets: Any, x: Tensor, to: str, strength: float | None = None, snapshot: int | None = None
    ) -> Tensor:
        """Return x + strength * D cut to [-1, 1], or x - strength * D towards a; the card's values if absent."""
        p = self.params
        strength = p.strength if strength is None else strength
        vector = nets["difference"].snapshots[(snapshot or p.snapshot) - 1].to(x.dtype)
        return (x + (strength if to == "b" else -strength) * vector).clamp(-1, 1)

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        vector = nets["difference"].snapshots[self.params.snapshot - 1].to(x.dtype)
        half = self.translate(nets, x, to, self.params.strength / 2)
        shown = vector.clamp(-1, 1).expand_as(x)
        return {"translation": self.translate(nets, x, to), "at half": half, "the vector": shown}

    @torch.no_grad()
    def finish(self, nets: Any, layout: Any, folder: Path) -> dict[str, Any]:
        """Draw the ten snapshots, alone and on held-out faces, into `snapshots.png`; measure how far they moved."""
        found = nets["difference"].snapshots
        rows = [[images.to_image(vector) for vector in found]]
        for path in layout.previews["a"][:4]:
            try:
                face = images.resize(images.square(images.read(path)), self.size)
            except InputError as error:
                console.warn(f"{error.message}; left out of the snapshots")
                continue
            x = images.to_tensor(face)[None].to(found)
            made = [self.translate(nets, x, "b", snapshot=number + 1)[0] for number in range(SHARES)]
            rows.append([images.to_image(y) for y in made])
        titles = [f"{10 * (number + 1)} %" for number in range(SHARES)]
        contact_sheet.save_sheet(folder / "snapshots.png", rows, titles=titles, size=min(self.size, 128))
        size = found.abs().mean((1, 2, 3)).tolist()
        return {"mean_size_by_tenth": [round(value, 4) for value in size]}
