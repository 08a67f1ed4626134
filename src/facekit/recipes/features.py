"""Features of drawings and photos, learned without labels, in which `score-fid` compares sets of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout
from ..data.one_folder import open_one_folder
from ..errors import CardError, InputError
from ..nets import face_embedding
from ..nets.feature_net import FeatureNet, ProjectionHead
from ..nets.lightcnn import resized
from ..ops import augment
from ..ops.losses import wide
from ..recipe_api import base
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view
from ..recipe_api.schedules import warmup_cosine
from ..runtime import console
from ..storage import images
from ..storage.card import Data


def cropped(x: Tensor, edge: int, least: float) -> Tensor:
    """Cut from each image a square of at least `least` of its edge, at random, resized to `edge` px: [N, 3, E, E]."""
    share, across, down = torch.rand(3, len(x), device=x.device, dtype=x.dtype)
    share = least + (1 - least) * share
    rows = torch.zeros(len(x), 2, 3, device=x.device, dtype=x.dtype)
    rows[:, 0, 0] = rows[:, 1, 1] = share
    rows[:, 0, 2], rows[:, 1, 2] = (1 - share) * (2 * across - 1), (1 - share) * (2 * down - 1)
    grid = F.affine_grid(rows, [len(x), 3, edge, edge], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def crop_edge(size: int) -> int:
    """Return the edge in px of the crops that the net learns from, of images of `size` px."""
    return size * 3 // 4


class FeatureScene(Scene):
    """A batch of images `a`, each seen twice: in two crops, in two lights."""

    @view
    def seen(self) -> Tensor:
        """Both views of all images, the first of each, then the second: [2N, 3, E, E].

        Nothing is blurred and light varies little: features that ignored sharpness or colour could not score them.
        """
        x = torch.cat([self.a, self.a.flip(3)])
        return augment.lighting(cropped(x, crop_edge(x.shape[2]), self.params.crop), self.params.lighting)

    @term("F")
    def contrast(self) -> Tensor:
        """Two views of an image agree more than those of different images: NT-Xent (Chen et al. 2020, eq. 1)."""
        z = F.normalize(wide(self.nets.head(self.nets.features(self.seen))), dim=1)
        count = len(self.a)
        alike = (z[:, None] * z[None]).sum(2) / self.params.temperature  # a matmul would be one of 16 bits in autocast
        itself = torch.eye(2 * count, dtype=torch.bool, device=z.device)
        partner = torch.arange(2 * count, device=z.device).roll(count)
        return F.cross_entropy(alike.masked_fill(itself, -torch.inf), partner)


class FeatureParams(base.Params):
    """Parameters of features."""

    width: int = Field(
        32, ge=2, multiple_of=2, description="channels at a quarter of the edge; 9 times as many features"
    )
    head: int = Field(64, ge=2, description="length of the vectors in which views are compared while training")
    crop: float = Field(0.5, gt=0, le=1, description="smallest crop, of the image's edge")
    lighting: float = Field(0.4, ge=0, le=1, description="how much the light is varied")
    temperature: float = Field(0.2, gt=0, description="of the loss: lower looks at the most similar images alone")


class Features(Recipe):
    """Image features without labels: a small residual net trained by SimCLR (Chen et al. 2020); translates nothing.

    One folder holds photos and drawings together. `score-fid` gives the net whole images at `data.size`; it learns from
    crops in three quarters of that, so that faces look as large to it there (Touvron et al. 2019, FixRes).
    """

    Scene = FeatureScene
    Params = FeatureParams
    phases = (Phase("F", ("features", "head")),)
    presets = {"features": {}}
    defaults = {
        "data": {"size": 64, "batch": 64},
        "optim": {"lr": 2e-3, "betas": [0.9, 0.999]},
        "run": {"steps": 5000, "ema": 0.998, "save_every": 250},
    }
    sizes = (32, 4)
    exports = ("features",)
    directions = ()

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        return {"features": FeatureNet(p.width), "head": ProjectionHead(9 * p.width, p.head)}

    def open(self, data: Data) -> Layout:
        return open_one_folder(data)

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {"a": torch.empty(batch, 3, size, size)}

    def lr_factor(self, clock: Progress) -> float:
        """Rise over the first 5 % of the run, then fall along a cosine to 0."""
        return warmup_cosine(clock)

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Raise CardError: there is nothing to translate to."""
        raise CardError("image features translate nothing", "give weights of a recipe that translates")

    def describe(self, nets: Any, x: Tensor) -> Tensor:
        """Return the features [N, 9 width] of images [N, 3, H, W] in [-1, 1], of any size."""
        return nets.features(resized(x, self.size))

    @torch.no_grad()
    def finish(self, nets: Any, layout: Layout, folder: Path) -> dict[str, Any]:
        """Measure on held-out images: the share whose changed copy is nearer than that of any other image."""
        parameter, found = next(nets.parameters()), []
        for path in layout.test["a"]:
            try:
                found.append(images.to_tensor(images.resize(images.square(images.read(path)), self.size)))
            except InputError as error:
                console.warn(f"{error.message}; not scored")
        if len(found) < 2:
            return {}
        x = torch.stack(found).to(parameter)
        torch.manual_seed(0)
        changed = augment.lighting(cropped(x.flip(3), crop_edge(self.size), 0.75), 0.4)
        known = face_embedding.known_again(self.describe(nets, x), self.describe(nets, changed))
        return {"images": len(x), "known_again": round(known, 4)}
