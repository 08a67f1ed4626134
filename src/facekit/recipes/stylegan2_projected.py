"""StyleGAN2 with discriminators on frozen features: faces out of noise on little hardware."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..nets.projected import FeatureHead
from ..nets.vgg import channels
from ..ops import augment, losses
from ..recipe_api.base import Phase, Progress, term, view
from .projected import LAYERS, TrunkParams, open_trunk
from .stylegan2 import PathMean, StyleGAN2, StyleGANParams, StyleGANScene

WHOLE = 128  # px at which whole images are judged, at most


class ProjectedStyleScene(StyleGANScene):
    """Real images `a`; `g` draws from noise, heads on the frozen trunk judge wholes and parts."""

    def whole(self, x: Tensor) -> dict[str, Tensor]:
        """Return features of whole images, augmented."""
        x = F.avg_pool2d(x, max(1, x.shape[-1] // WHOLE))
        return self.helpers.trunk(augment.cutout(augment.colour(augment.shift(x))))

    def parts(self, x: Tensor) -> dict[str, Tensor]:
        """Return features of a part of each image, a quarter of it, augmented."""
        return self.helpers.trunk(augment.colour(augment.crop(x, self.recipe.size // 2), 0.5))

    def heard(self, heads: str, features: dict[str, Tensor]) -> list[Tensor]:
        """Return every head's output."""
        return [head(features[name]) for name, head in self.nets[heads].items()]

    @view
    def fake_whole(self) -> dict[str, Tensor]:
        """Features of the drawn faces as a whole."""
        return self.whole(self.fake)

    @view
    def fake_parts(self) -> dict[str, Tensor]:
        """Features of parts of the drawn faces."""
        return self.parts(self.fake)

    @term("G")
    def adversarial(self) -> Tensor:
        """The drawn faces pass for real, as a whole: hinge, on frozen features (Sauer et al. 2021)."""
        return sum(losses.hinge_g(d) for d in self.heard("whole_heads", self.fake_whole)) / len(LAYERS)  # type: ignore[return-value]

    @term("G")
    def adversarial_parts(self) -> Tensor:
        """Parts of the drawn faces pass for parts of real ones: hinge, on frozen features."""
        return sum(losses.hinge_g(d) for d in self.heard("part_heads", self.fake_parts)) / len(LAYERS)  # type: ignore[return-value]

    @term("D")
    def judge(self) -> Tensor:
        """Tell real from drawn as a whole: hinge."""
        return self.hinge("whole_heads", self.whole(self.a), self.fake_whole)

    @term("D")
    def judge_parts(self) -> Tensor:
        """Tell parts of real faces from parts of drawn ones: hinge."""
        return self.hinge("part_heads", self.parts(self.a), self.fake_parts)

    def hinge(self, heads: str, real: dict[str, Tensor], fake: dict[str, Tensor]) -> Tensor:
        """Sum the hinge losses of the heads."""
        pairs = zip(self.heard(heads, real), self.heard(heads, fake), strict=True)
        return sum(losses.hinge_d(r, f) for r, f in pairs)  # type: ignore[return-value]

    r1 = None  # type: ignore[assignment]  # frozen features and spectral norm keep the heads smooth


class ProjectedStyleParams(StyleGANParams, TrunkParams):
    """Parameters of stylegan2-projected."""

    head_width: int = Field(64, ge=4, description="channels of the discriminator heads")


class ProjectedStyleGAN2(StyleGAN2):
    """StyleGAN2 with the discriminators of Projected GANs (Sauer et al. 2021): learns faster on little hardware.

    Small heads see the frozen features of an ImageNet VGG, under differentiable augmentation, of the whole image and of
    parts. There is no R1; path length is off, because both slow learning down. `params.augment` is not used.
    """

    Scene = ProjectedStyleScene
    Params = ProjectedStyleParams
    phases = (
        Phase("D", ("whole_heads", "part_heads")),
        Phase("G", ("g",), precompute=("fake",)),
    )
    presets = {"stylegan2-projected": {}}
    defaults = {
        "data": {"size": 64, "batch": 16},
        "params": {"style_width": 128, "mapping_layers": 4, "multiplier": 0.25, "width": 128, "mixing": 0.0},
        "losses": {"path_length": 0},
        "optim": {"lr": 2e-3, "betas": [0.0, 0.99]},
        "run": {"steps": 20000, "ema": 0.998, "save_every": 1000},
    }
    sizes = (64, 1)

    def nets(self) -> dict[str, nn.Module]:
        width = self.params.head_width
        return {
            "g": self.generator(),
            "whole_heads": nn.ModuleDict({n: FeatureHead(channels(n), width, 3, n == "relu3_1") for n in LAYERS}),
            "part_heads": nn.ModuleDict({n: FeatureHead(channels(n), width, 1) for n in LAYERS}),
            "path": PathMean(),
        }

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        return {"trunk": open_trunk(self.params)}

    def lr_factor(self, clock: Progress) -> float:
        """Rise over 100 steps, then stay."""
        return min(1.0, (clock.step + 1) / 100)
