"""A classifier of labelled faces, which scores how often translations to a label have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from ..data.dataset import Layout
from ..errors import CardError, InputError
from ..nets.classifier import FaceClassifier
from ..ops import augment
from ..ops.losses import wide
from ..recipe_api.base import Phase, Progress, term, view
from ..recipe_api.labelled import Labelled, LabelledParams, LabelledScene
from ..recipe_api.schedules import warmup_cosine
from ..runtime import console
from ..storage import images
from ..storage.card import Domains


class ClassifierScene(LabelledScene):
    """A batch of faces and the network's answers."""

    @view
    def shown(self) -> Tensor:
        """The images as the net sees them: changed at random, in some a square blanked (Zhong et al. 2020)."""
        return augment.cutout(self.image, 0.4, self.params.erase) if self.params.erase else self.image

    @view
    def wanted(self) -> Tensor:
        """The labels [N, K], smoothed (Szegedy et al. 2016): `smooth` of each answer is given to all labels alike."""
        smooth = self.params.smooth
        return self.x_label * (1 - smooth) + smooth / (self.x_label.shape[1] if self.params.single else 2)

    @view
    def logits(self) -> Tensor:
        """The network's logits, [N, K]."""
        return wide(self.nets.face(self.shown))

    @term("C")
    def cross_entropy(self) -> Tensor:
        """The labels: cross-entropy over all of them; where an image may have several, binary for each of them."""
        if self.params.single:
            return F.cross_entropy(self.logits, self.wanted)
        return F.binary_cross_entropy_with_logits(self.logits, self.wanted)


class ClassifierParams(LabelledParams):
    """Parameters of classifier."""

    balance: bool = Field(True, description="show images of rare labels as often as others; false where not `single`")
    augment: float = Field(1.0, ge=0, description="random small turns, scales, shifts and colours; 1: up to 10 degrees")
    erase: float = Field(0.5, ge=0, le=1, description="share of images in which a square is blanked")
    smooth: float = Field(0.1, ge=0, lt=1, description="label smoothing")
    dropout: float = Field(0.3, ge=0, lt=1, description="share of features that are left out at random")
    colour: bool = Field(False, description="use colours, as hair needs; else brightness only")
    width: int = Field(32, ge=1, description="channels at half size; four times as many at the end")
    blocks: int = Field(1, ge=1, description="residual blocks at each of four sizes")

    @model_validator(mode="before")
    @classmethod
    def balanced_if_single(cls, values: Any) -> Any:
        """Several labels of an image cannot be balanced by showing it more often."""
        return {"balance": values.get("single", True), **values} if isinstance(values, dict) else values


class Classifier(Labelled):
    """A classifier of labelled faces (expressions, attributes): a small ResNet (He et al. 2016); translates nothing."""

    Scene = ClassifierScene
    Params = ClassifierParams
    phases = (Phase("C", ("face",)),)
    presets = {"classifier": {}}
    defaults = {
        "data": {"size": 64, "batch": 32, "split": [8, 1, 1]},
        "optim": {"lr": 2e-3, "betas": [0.9, 0.999]},
        "run": {"steps": 3000, "ema": 0.998, "save_every": 500},
    }
    sizes = (32, 1)
    exports = ("face",)

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        return {"face": FaceClassifier(self.labels, p.width, p.blocks, p.colour, p.dropout)}

    def lr_factor(self, clock: Progress) -> float:
        """Rise over the first 5 % of the run, then fall along a cosine to 0."""
        return warmup_cosine(clock)

    def targets(self, domains: Domains) -> dict[str, str]:
        return {}

    def previews(self) -> dict[str, str]:
        return {}

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Raise CardError: there is nothing to translate to."""
        raise CardError("a classifier translates nothing", "give weights of a recipe that translates")

    def probabilities(self, nets: Any, x: Tensor) -> Tensor:
        """Return how likely images x ([N, 3, H, W] in [-1, 1], of any size) have each of `params.labels`: [N, K].

        Where an image has one label, rows sum to 1.
        """
        if x.shape[2:] != (self.size, self.size):
            x = F.interpolate(wide(x), (self.size, self.size), mode="bicubic", antialias=True).clamp(-1, 1)
        logits = wide(nets.face(x))
        return logits.softmax(1) if self.params.single else logits.sigmoid()

    @torch.no_grad()
    def finish(self, nets: Any, layout: Layout, folder: Path) -> dict[str, Any]:
        """Return the accuracy on the test images: of all, of each label, and the mean of these.

        A label's accuracy is the share of its images that get it. Where images may have several, an answer is right
        for each label apart, and a label's accuracy is the mean over images with it and without it: 0.5 is chance.
        """
        reader, parameter = layout.readers["x"], next(nets.parameters())
        rows, truth = [], []
        for path in layout.test["x"]:
            try:
                sample = reader.read(path, self.size)
            except InputError as error:
                console.warn(f"{error.message}; not scored")
                continue
            rows.append(self.probabilities(nets, images.from_bytes(sample["x"][None]).to(parameter))[0].cpu())
            truth.append(torch.from_numpy(sample["x_label"]).bool())
        return {"test_images": len(rows), **self.scores(torch.stack(rows), torch.stack(truth))} if rows else {}

    def scores(self, likely: Tensor, truth: Tensor) -> dict[str, Any]:
        """Return accuracies of probabilities [N, K] against labels (bool [N, K]), as `finish` says."""
        said = F.one_hot(likely.argmax(1), self.labels).bool() if self.params.single else likely > 0.5
        right = (said == truth).double()
        per_label = {}
        for k, label in enumerate(self.params.labels):
            has = truth[:, k]
            parts = [right[side, k].mean() for side in ((has,) if self.params.single else (has, ~has)) if side.any()]
            if parts:
                per_label[label] = round(float(torch.stack(parts).mean()), 4)
        every = right.all(1) if self.params.single else right
        mean = sum(per_label.values()) / len(per_label)
        return {
            "accuracy": round(float(every.double().mean()), 4),
            "mean_accuracy": round(mean, 4),
            "label_accuracy": per_label,
        }
