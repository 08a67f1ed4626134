"""One-direction translation with discriminators on frozen features; learns within an hour on a CPU."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from skimage import data
from torch import Tensor, nn

from ..nets import pretrained as helpers
from ..nets.projected import FeatureHead, Projection
from ..nets.unet import ResidualUNet
from ..nets.vgg import EXPECTED, VGG, Preprocessing, channels
from ..ops import augment, losses
from ..ops.stability import unsteadiness
from ..recipe_api import base
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view
from ..storage import images

LAYERS = ("relu2_2", "relu3_1")
LEVELS = {"relu1_2": 0.87, "relu2_2": 0.82, "relu3_1": 0.84}  # root mean square on faces, over that on one known photo


class Trunk(nn.Module):
    """Frozen features of images [N, 3, H, W] in [-1, 1], of about unit size on faces whatever the weights are."""

    def __init__(self, vgg: VGG):
        super().__init__()
        self.vgg = vgg
        photo = images.to_tensor(images.resize(Image.fromarray(data.astronaut()), 128))[None]
        with torch.no_grad():
            found = vgg(photo.to(next(vgg.parameters()).device))
        for name, x in found.items():
            self.register_buffer(name, LEVELS[name] * x.square().mean().sqrt(), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: y / self.get_buffer(name) for name, y in self.vgg(x).items()}


class ProjectedScene(Scene):
    """Photos `a`, drawings `b`; `ab` draws. Everything is judged through the frozen trunk."""

    @view
    def lit(self) -> Tensor:
        """The photos in changed light, [N, 3, S, S]."""
        return augment.lighting(self.a, self.params.lighting)

    @view
    def fake(self) -> Tensor:
        """The translation, [N, 3, S, S]."""
        return self.nets.ab(self.lit).float()

    @view
    def fake_and_source(self) -> dict[str, Tensor]:
        """Features of the translation at half size, and of its photo under the same augmentation after it."""
        both = F.avg_pool2d(torch.cat([self.fake, self.a]), 2)
        seen = self.changed(both, together=2).chunk(2)
        made, source = (self.features(part) for part in seen)
        return {name: torch.cat([made[name], source[name]]) for name in made}

    @view
    def fake_whole(self) -> dict[str, Tensor]:
        """Features of the translation at half size."""
        return {name: x.chunk(2)[0] for name, x in self.fake_and_source.items()}

    @view
    def real_whole(self) -> dict[str, Tensor]:
        """Features of the drawings at half size."""
        return self.features(self.changed(F.avg_pool2d(self.b, 2)))

    @view
    def fake_parts(self) -> dict[str, Tensor]:
        """Features of a part of each translation at full size."""
        return self.features(augment.colour(augment.crop(self.fake, self.recipe.size // 2), 0.5))

    @view
    def real_parts(self) -> dict[str, Tensor]:
        """Features of a part of each drawing at full size."""
        return self.features(augment.colour(augment.crop(self.b, self.recipe.size // 2), 0.5))

    def changed(self, x: Tensor, together: int = 1) -> Tensor:
        """Shift, recolour and blank at random."""
        x = augment.colour(augment.shift(x, together=together), together=together)
        return augment.cutout(x, together=together)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Return the frozen trunk's features of images."""
        return self.helpers.trunk(x)

    def judged(self, heads: str, features: dict[str, Tensor]) -> list[Tensor]:
        """Return every head's output."""
        return [head(features[name]) for name, head in self.nets[heads].items()]

    @term("G")
    def whole(self) -> Tensor:
        """The translation as a whole passes for a drawing: hinge, on features at half size (Sauer et al. 2021)."""
        return sum(losses.hinge_g(d) for d in self.judged("whole_heads", self.fake_whole)) / 2  # type: ignore[return-value]

    @term("G")
    def parts(self) -> Tensor:
        """Parts of the translation pass for parts of drawings: hinge, on features at full size."""
        return sum(losses.hinge_g(d) for d in self.judged("part_heads", self.fake_parts)) / 3  # type: ignore[return-value]

    @term("G", 0.25)
    def contrast(self) -> Tensor:
        """Each place of the translation shows that place of its photo: PatchNCE on relu3_1 (Park et al. 2020)."""
        query, key = self.nets.projection(self.fake_and_source["relu3_1"]).flatten(2).transpose(1, 2).chunk(2)
        places = augment.order(query.shape[1], query.device)[:128]
        return losses.patch_nce(query[:, places], key[:, places], tau=0.07)

    @term("G", 0.0)
    def colour(self) -> Tensor:
        """The translation has about the photo's colours in about their places: L1 of means over 8 x 8 cells.

        Of lightness, that of the whole picture counts in full, and how a cell differs from it by `params.lightness`:
        light and shadow fall on one face, and drawings are flat.
        """
        apart = F.adaptive_avg_pool2d(self.fake.float() - self.lit, 8)
        grey = apart.mean(1, keepdim=True)
        return (apart - (1 - self.params.lightness) * (grey - grey.mean((2, 3), True))).abs().mean()

    @term("G", 0.0)
    def stable(self) -> Tensor:
        """A slightly moved photo gives the same drawing, moved: what keeps a video from flickering; on half a batch."""
        half = slice(0, max(1, len(self.a) // 2))
        return unsteadiness(self.nets.ab, self.lit[half], self.fake[half])

    @term("D")
    def judge_whole(self) -> Tensor:
        """Tell drawings from translations as a whole: hinge."""
        return self.hinge("whole_heads", self.real_whole, self.fake_whole)

    @term("D")
    def judge_parts(self) -> Tensor:
        """Tell parts of drawings from parts of translations: hinge."""
        return self.hinge("part_heads", self.real_parts, self.fake_parts)

    def hinge(self, heads: str, real: dict[str, Tensor], fake: dict[str, Tensor]) -> Tensor:
        """Sum the hinge losses of the heads."""
        pairs = zip(self.judged(heads, real), self.judged(heads, fake), strict=True)
        return sum(losses.hinge_d(r, f) for r, f in pairs)  # type: ignore[return-value]


class TrunkParams(base.Params):
    """Parameters of the frozen trunk."""

    vgg: str = Field("download", description="file with VGG19's first layers; download: torchvision's ImageNet weights")
    preprocessing: Preprocessing = Field("torchvision", description=EXPECTED)


def open_trunk(params: TrunkParams, layers: Sequence[str] = LAYERS) -> Trunk:
    """Return the trunk with the weights that `params` name, and `layers` of those in LEVELS.

    Raises MissingError where they cannot be had, CardError where they expect another preprocessing.
    """
    return Trunk(helpers.vgg("vgg19", layers, params.vgg, params.preprocessing))


class ProjectedParams(TrunkParams):
    """Parameters of projected-cut."""

    width: int = Field(128, ge=8, multiple_of=8, description="channels of the generator at a quarter of the size")
    blocks: int = Field(4, ge=0, description="residual blocks at an eighth of the size")
    head_width: int = Field(128, ge=4, description="channels of the discriminator heads")
    lighting: float = Field(1.0, ge=0, le=1, description="how much the photos' light is varied")
    lightness: float = Field(1.0, ge=0, le=1, description="how much of the photo's light and shadow `colour` asks for")


class ProjectedCUT(Recipe):
    """One-direction translation: CUT (Park et al. 2020) with the discriminators of Projected GANs (Sauer et al. 2021).

    It learns fastest on little hardware. Small discriminator heads see the frozen features of an ImageNet VGG, under
    differentiable augmentation, of the whole image in half size and of parts in full size; PatchNCE on the same
    features keeps the layout of the photo.
    """

    Scene = ProjectedScene
    Params = ProjectedParams
    phases = (
        Phase("G", ("ab", "projection")),
        Phase("D", ("whole_heads", "part_heads"), reuse=("fake_whole", "fake_parts")),
    )
    presets = {"projected-cut": {}}
    defaults = {
        "data": {"size": 128, "batch": 4},
        "optim": {"lr": 4e-4, "betas": [0.0, 0.99]},
        "run": {"steps": 20000, "ema": 0.998, "save_every": 1000},
    }
    sizes = (64, 16)
    exports = ("ab",)
    directions = ("b",)
    multiple = 8

    def load_size(self, size: int) -> int:
        """Crop from 1.12 times the size."""
        return round(size * 1.12)

    def nets(self) -> dict[str, nn.Module]:
        width = self.params.head_width
        return {
            "ab": ResidualUNet(self.params.width, self.params.blocks),
            "projection": Projection(channels("relu3_1")),
            "whole_heads": nn.ModuleDict({n: FeatureHead(channels(n), width, 3, n == "relu3_1") for n in LAYERS}),
            "part_heads": nn.ModuleDict({n: FeatureHead(channels(n), width, 1) for n in LAYERS}),
        }

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        return {"trunk": open_trunk(self.params)}

    def lr_factor(self, clock: Progress) -> float:
        """Rise over 50 steps, stay, fall to zero over the last 40 % of the run."""
        return min(1.0, (clock.step + 1) / 50, max(0.02, (clock.steps - clock.step) / (0.4 * clock.steps)))

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        return nets.ab(x)
