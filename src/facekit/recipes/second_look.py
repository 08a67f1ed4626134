"""The detector's second net alone, trained on faces as it is shown them: landmarks, and whether there is a face."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..data.dataset import Layout
from ..data.face_boxes import COLUMNS, WEIGHT, find_false
from ..data.face_closeups import CloseupReader
from ..recipe_api.base import Phase, view
from ..storage.card import Data
from .detector import Detector, DetectorScene


class SecondLookScene(DetectorScene):
    """A batch of closeups `a` and the face of each, `a_faces` [N, 1, COLUMNS]."""

    score = box = landmarks = kind = None  # type: ignore[assignment]  # losses of the first net

    @view
    def chosen(self) -> tuple[Tensor, Tensor, Tensor]:
        """The closeups' numbers [N], their faces [N, COLUMNS], and how much each counts: 0 for none."""
        rows = self.a_faces[:, 0]
        return torch.arange(len(rows), device=rows.device), rows, rows[:, WEIGHT]


class SecondLook(Detector):
    """The net of `detector` that looks at each face again, after Dollar, Welinder and Perona 2010 (cascaded pose)."""

    Scene = SecondLookScene
    phases = (Phase("D", ("points",)),)
    presets = {"second-look": {}}
    defaults = {
        "data": {"size": 256, "batch": 64},
        "optim": {"lr": 2e-3, "betas": [0.9, 0.999]},
        "run": {"steps": 20000, "save_every": 500, "ema": 0.998},
    }
    sizes = (96, 32)
    inherits = ("width",)
    starts_averaged = True

    def open(self, data: Data) -> Layout:
        layout = super().open(data)
        known = layout.readers["a"]
        reader = CloseupReader("a", known.faces, known.grounds, find_false(Path(str(data.root))))
        return replace(layout, train={"a": balanced(layout.train["a"])}, readers={"a": reader})

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {"a": torch.empty(batch, 3, size, size), "a_faces": torch.empty(batch, 1, COLUMNS)}


def balanced(pictures: list[Path]) -> list[Path]:
    """Return the pictures, those of smaller folders several times: a folder counts as the root of how many it holds."""
    sets: dict[Path, list[Path]] = {}
    for path in pictures:
        sets.setdefault(path.parent, []).append(path)
    most = max(map(len, sets.values()))
    return [path for found in sets.values() for path in found * round((most / len(found)) ** 0.5)]
