"""A thin encoder and decoder trained by squared error against a partner image: Eki's second method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout, open_layout, spread
from ..data.pairs import open_pairs, with_partners
from ..errors import InputError
from ..ops.losses import wide
from ..recipe_api import base
from ..recipe_api.base import Phase, Recipe, Scene, term, view
from ..runtime import console
from ..storage import images

SMALL = 16  # px at which faces are compared for nearest-neighbour pairs
BLOCK = 1024  # faces compared at a time
MEASURED = 64  # images per domain that `finish` looks at


class ThinNet(nn.Sequential):
    """Three layers down by 2 each and three up again; [N, 3, H, W] to [N, 3, H, W], H and W multiples of 8.

    The paper says "a thin layer network" and no more: this is the plainest such.
    """

    def __init__(self, width: int = 32):
        w = width
        super().__init__(
            nn.Conv2d(3, w, 4, stride=2, padding=1),  # S/2
            nn.ReLU(),
            nn.Conv2d(w, 2 * w, 4, stride=2, padding=1),  # S/4
            nn.ReLU(),
            nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1),  # S/8
            nn.ReLU(),
            nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1),  # S/4
            nn.ReLU(),
            nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1),  # S/2
            nn.ReLU(),
            nn.ConvTranspose2d(w, 3, 4, stride=2, padding=1),  # S
            nn.Tanh(),
        )


def nearest(a: Sequence[Path], b: Sequence[Path]) -> dict[Path, Path]:
    """Return the face of b that correlates most with each of a, in grey at SMALL px: alike in pose and light."""
    (a_paths, x), (b_paths, y) = _small(a), _small(b)
    found: dict[Path, Path] = {}
    for start in range(0, len(x), BLOCK):
        best = (x[start : start + BLOCK] @ y.T).argmax(1)
        found |= {a_paths[start + i]: b_paths[j] for i, j in enumerate(best)}
    return found


def _small(paths: Sequence[Path]) -> tuple[list[Path], np.ndarray]:
    """Return the files that can be decoded, and their grey values less the mean at length 1, [n, SMALL^2]."""
    kept, rows = [], []
    for path in paths:
        try:
            grey = images.resize(images.square(images.read(path)), SMALL).convert("L")
        except InputError as error:
            console.warn(f"{error.message}; left out")
            continue
        row = np.asarray(grey, np.float32).ravel()
        row = row - row.mean()
        kept.append(path)
        rows.append(row / max(float(np.linalg.norm(row)), 1e-6))
    if not rows:
        raise InputError("no image of a domain can be decoded", "check the files")
    return kept, np.stack(rows)


class PairedScene(Scene):
    """`ab` makes b of a, `ba` a of b; `a` and `b` are what the pairing gives."""

    @view
    def fake_b(self) -> Tensor:
        """What ab makes of a."""
        return self.nets.ab(self.a)

    @view
    def fake_a(self) -> Tensor:
        """What ba makes of b."""
        return self.nets.ba(self.b)

    @term("G")
    def match_b(self) -> Tensor:
        """The translation of a is its partner in b: mean squared error."""
        return (wide(self.fake_b) - wide(self.b)).square().mean()

    @term("G")
    def match_a(self) -> Tensor:
        """The translation of b is its partner in a: mean squared error."""
        return (wide(self.fake_a) - wide(self.a)).square().mean()


class PairedParams(base.Params):
    """Parameters of paired-cnn."""

    pairing: Literal["random", "nearest", "name"] = Field(
        "random",
        description="an image's partner: random, drawn again each epoch; the most similar, in grey at 16 px; "
        "the one of the same name",
    )
    width: int = Field(32, ge=1, description="channels of the first layer; twice and four times as many follow")


class PairedCNN(Recipe):
    """Paired CNN: Eki, "Automatic transformation from animated face image to real human face image", method 2.

    What it can do depends on the pairs alone. With true pairs (pairing `name`) it is plain supervised learning. With
    random partners squared error is least at the mean image of the other domain, whatever goes in: a longer run and
    a thicker net only come nearer to it. Nearest partners keep what they share, pose and light, and blur the rest.
    `finish` measures it: how much the translations of different faces differ, 0 where all come out the same.
    """

    Scene = PairedScene
    Params = PairedParams
    phases = (Phase("G", ("ab", "ba")),)
    presets = {"paired-cnn": {}}
    defaults = {
        "data": {"size": 128, "batch": 32},
        "optim": {"lr": 1e-3, "betas": [0.9, 0.999]},
        "run": {"epochs": 15, "save_every": 1000},
    }
    sizes = (8, 8)
    exports = ("ab", "ba")
    multiple = 8

    def open(self, data: Any) -> Layout | None:
        """Find pairs as the parameters say; raises InputError where no image has a partner of its name."""
        if self.params.pairing == "random":
            return None  # two folders, each shuffled by itself
        if self.params.pairing == "name":
            return open_pairs(data)
        layout = open_layout(data)
        a, b = layout.train["a"], layout.train["b"]
        partners = nearest(a, b)
        console.note(
            f"{len(partners)} of {len(a)} images of {layout.names['a']} have a nearest partner; "
            f"{len(set(partners.values()))} of {len(b)} images of {layout.names['b']} are one"
        )
        return with_partners(layout, partners)

    def nets(self) -> dict[str, nn.Module]:
        return {"ab": ThinNet(self.params.width), "ba": ThinNet(self.params.width)}

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        return nets["ab" if to == "b" else "ba"](x)

    @torch.no_grad()
    def finish(self, nets: Any, layout: Any, folder: Path) -> dict[str, Any]:
        """Measure how much translations differ from face to face, as a share of how much real faces of there differ."""
        device = next(nets.parameters())
        real = {side: self._read(layout.test[side]).to(device) for side in ("a", "b")}
        out: dict[str, Any] = {}
        for to, source in (("b", "a"), ("a", "b")):
            if min(len(real[to]), len(real[source])) > 1:
                made = torch.cat([self.translate(nets, x, to) for x in real[source].split(8)])
                out[f"variety_{to}"] = round((made.std(0).mean() / real[to].std(0).mean().clamp_min(1e-6)).item(), 4)
        return out

    def _read(self, paths: Sequence[Path]) -> Tensor:
        faces = []
        for path in spread(list(paths), MEASURED):
            try:
                faces.append(images.to_tensor(images.resize(images.square(images.read(path)), self.size)))
            except InputError as error:
                console.warn(f"{error.message}; left out of the measure")
        return torch.stack(faces) if faces else torch.empty(0, 3, self.size, self.size)
