"""U-GAT-IT with losses on face parts and face features, so that eyes, nose and mouth land where they belong."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..errors import CardError
from ..nets.face_embedding import Face
from ..ops.losses import cosine_distance, wide
from ..recipe_api.base import Phase, Progress, term, view
from .ugatit import UGATIT, UGATITParams, UGATITScene


class Parts(nn.Module):
    """A segmenter as a frozen helper: images [N, 3, H, W] in [-1, 1] to shares of classes [N, C, S, S].

    S is the size that it was trained at; other sizes are resized to it, differentiably.
    """

    def __init__(self, model: Any):
        super().__init__()
        if not hasattr(model.recipe, "probabilities"):
            raise CardError(f"{model.path} finds no face parts", "give weights of the recipe segnet")
        self.nets, self.probabilities, self.size = model.nets, model.recipe.probabilities, model.card.data.size
        self.classes: tuple[str, ...] = tuple(model.recipe.params.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = wide(x)  # a warp of 16-bit places would be coarse
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        return self.probabilities(self.nets, x)


class UGATITFaceScene(UGATITScene):
    """The scene of ugatit and two terms; xs, xt and G1, G2 of Kang 2020 are a, b and ab, ba.

    Readings of its equations 4 and 5 (docs/papers.md): `source` compares a translation with its input, `paper` is the
    equation as printed, `text` compares a translation with a sample of its target, as the paper's words say.
    """

    @view
    def real_parts(self) -> tuple[Tensor, Tensor]:
        """The parts of a and of b, without gradient."""
        with torch.no_grad():
            a, b = self.helpers.parts(torch.cat([self.a, self.b])).chunk(2)
        return a, b

    @view
    def made_parts(self) -> tuple[Tensor, Tensor]:
        """The parts of the translations of a and of b."""
        of_b, of_a = self.helpers.parts(torch.cat([self.fake_b, self.fake_a])).chunk(2)
        return of_b, of_a

    @view
    def real_features(self) -> tuple[Tensor, Tensor]:
        """The face features of a and of b, without gradient."""
        with torch.no_grad():
            a, b = self.helpers.face(torch.cat([self.a, self.b])).chunk(2)
        return a, b

    @view
    def made_features(self) -> tuple[Tensor, Tensor]:
        """The face features of the translations of a and of b."""
        of_b, of_a = self.helpers.face(torch.cat([self.fake_b, self.fake_a])).chunk(2)
        return of_b, of_a

    @property
    def alpha_decay(self) -> float:
        """How much the translations' parts count: rises to 1 over the first `ramp` of the run (a reading)."""
        return min(1.0, self.progress / self.params.ramp) if self.params.ramp else 1.0

    @term("G", 1)
    def segmentation(self) -> Tensor:
        """Face parts lie where they lay: L1 on the segmenter's class shares (eq. 4)."""
        p, (of_b, of_a), (a, b) = self.params, self.made_parts, self.real_parts
        if p.reading == "paper":
            first, second = self.apart(of_b, of_a), self.apart(a, b)
        elif p.reading == "text":
            first = p.towards_b * self.apart(of_b, b) + p.towards_a * self.apart(of_a, a)
            second = first.new_zeros(())
        else:
            first = p.towards_b * self.apart(of_b, a) + p.towards_a * self.apart(of_a, b)
            second = first.new_zeros(())
            if p.reconstruction and self.alpha_decay < 1:
                back_a, back_b = self.helpers.parts(torch.cat([self.back_a, self.back_b])).chunk(2)
                both = p.towards_b * self.apart(back_a, a) + p.towards_a * self.apart(back_b, b)
                second = p.reconstruction * both
        return self.alpha_decay * first + (1 - self.alpha_decay) * second

    def apart(self, made: Tensor, source: Tensor) -> Tensor:
        """mean(|made - source|), where the segmenter is sure of the source: its highest share is at least `gate`."""
        distance = (wide(made) - wide(source)).abs().mean(1)
        if not self.params.gate:
            return distance.mean()
        sure = (source.amax(1) >= self.params.gate).to(distance.dtype)
        return (distance * sure).sum() / sure.sum().clamp_min(1)

    @term("G", 1)
    def feature(self) -> Tensor:
        """The face stays the same person's: 1 - cosine of face features (eq. 5)."""
        p, (of_b, of_a), (a, b) = self.params, self.made_features, self.real_features
        if p.reading == "paper":
            return cosine_distance(of_b, of_a)
        of_target = (b, a) if p.reading == "text" else (a, b)
        towards_b, towards_a = cosine_distance(of_b, of_target[0]), cosine_distance(of_a, of_target[1])
        return (p.towards_b * towards_b + p.towards_a * towards_a) / 2


class UGATITFaceParams(UGATITParams):
    """Parameters of ugatit-face."""

    reading: Literal["source", "paper", "text"] = Field(
        "source", description="what equations 4 and 5 compare a translation with: its input, as printed, its target"
    )
    segnet: str = Field("segnet", description="segmenter of face parts: a name, run folder or file")
    face: str = Field(
        "facefeat", description="face features: a name, run folder or file; an .onnx file; lightcnn-29v2:FILE"
    )
    ramp: float = Field(0.2, ge=0, le=1, description="share of the run over which the parts' loss rises to its weight")
    reconstruction: float = Field(0.0, ge=0, description="weight of the cycle's part loss while the other rises")
    towards_a: float = Field(1.0, ge=0, description="weight of both losses for translations to a")
    towards_b: float = Field(1.0, ge=0, description="weight of both losses for translations to b")
    gate: float = Field(0.0, ge=0, lt=1, description="parts count only where the segmenter is this sure of the input")
    single_scale_d: bool = Field(False, description="one discriminator per domain, without the global one")
    lr_decay: Literal["ugatit", "fifths", "fifths-linear", "fifths-to-a-fifth"] = Field(
        "ugatit", description="ugatit's, or each fifth of the run: x 0.8, - 20 % of the start, x 0.2"
    )


class UGATITFace(UGATIT):
    """U-GAT-IT with face-part and face-feature losses (Kang 2020); readings of its unclear equations as options."""

    Scene = UGATITFaceScene
    Params = UGATITFaceParams
    presets = {
        "ugatit-face": {},
        "ugatit-face-light": {"params": {"light": True}},
        "ugatit-face-paper": {
            "data": {"size": 112, "batch": 8, "split": [8, 1, 1]},
            "params": {"lr_decay": "fifths"},
            "optim": {"lr": 1e-3},
            "run": {"steps": 100000},
        },
        "ugatit-face-safe": {
            "data": {"size": 112, "batch": 8, "split": [8, 1, 1]},
            "params": {"lr_decay": "fifths"},
            "optim": {"lr": 1e-4},
            "run": {"steps": 100000},
        },
    }

    def __init__(self, params: Any = None, size: int = 256):
        super().__init__(params, size)
        if self.params.single_scale_d:
            self.phases = (Phase("D", ("la", "lb")), *type(self).phases[1:])  # type: ignore[misc]

    def nets(self) -> dict[str, nn.Module]:
        every = super().nets()
        return {k: v for k, v in every.items() if not (self.params.single_scale_d and k in ("ga", "gb"))}

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        found: dict[str, nn.Module] = {}
        if "segmentation" in terms:
            found["parts"] = Parts(load(self.params.segnet))
        if "feature" in terms:
            found["face"] = Face(self.params.face, load)
        return found

    def lr_factor(self, clock: Progress) -> float:
        """ugatit's, or "decay 20 % each fifth" in one of its three readings."""
        fifth = min(4, 5 * clock.step // max(clock.steps, 1))
        decays = {"fifths": 0.8**fifth, "fifths-linear": 1 - 0.2 * fifth, "fifths-to-a-fifth": 0.2**fifth}
        return decays[self.params.lr_decay] if self.params.lr_decay in decays else super().lr_factor(clock)
