"""CartoonGAN: one direction; VGG's features keep the content, and smoothed drawings count as fake."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..nets import pretrained as helpers
from ..nets.cartoon import CartoonDiscriminator, CartoonGenerator
from ..nets.image_pool import ImagePool
from ..nets.vgg import EXPECTED, Preprocessing
from ..ops.losses import binary, l1, lsgan
from ..recipe_api import base
from ..recipe_api.base import Progress, term
from ..recipe_api.edge_promoting import Smoothed, SmoothedScene
from ..recipe_api.schedules import flat_then_linear


class CartoonScene(SmoothedScene):
    """The scene of cartoongan: its losses."""

    def judged(self, x: Tensor, real: bool) -> Tensor:
        """Return the discriminator's loss on images of one kind; batch norm must not mix kinds."""
        loss = lsgan if self.params.gan == "lsgan" else binary
        return loss(self.nets.d(x), real)

    def features(self, x: Tensor) -> Tensor:
        """Return VGG's features of images at 7/8 of the size: 224 px for 256."""
        small = [edge * 7 // 8 for edge in x.shape[2:]]
        return self.helpers.vgg(F.interpolate(x, small, mode="bilinear"))[self.params.layer]

    @term("D")
    def judge_drawing(self) -> Tensor:
        """A drawing is real: LSGAN, or the paper's log D."""
        return self.judged(self.b, True) if self.warm else self.a.new_zeros(())

    @term("D")
    def judge_smooth(self) -> Tensor:
        """A drawing with smoothed edges is fake: the edge-promoting part (eq. 3)."""
        return self.judged(self.b_smooth, False) if self.warm else self.a.new_zeros(())

    @term("D")
    def judge_fake(self) -> Tensor:
        """A translation is fake, also one of earlier steps."""
        return self.judged(self.nets.pool(self.fake), False) if self.warm else self.a.new_zeros(())

    @term("G")
    def adversarial(self) -> Tensor:
        """The translation passes for a drawing: LSGAN, or -log D."""
        return self.judged(self.fake, True) if self.warm else self.a.new_zeros(())

    @term("G", 10)
    def content(self) -> Tensor:
        """The translation keeps its photo's content: L1 of VGG19 features, conv4_4 before its ReLU (eq. 4)."""
        with torch.no_grad():
            photo = self.features(self.a)
        return l1(self.features(self.fake), photo)


class CartoonParams(base.Params):
    """Parameters of cartoongan."""

    smooth: str | None = Field(None, description="output of smooth-edges for domain b; if absent, smoothed on reading")
    width: int = Field(64, ge=1, description="channels of the generator at full size (ngf)")
    blocks: int = Field(8, ge=0, description="residual blocks: 8 in the paper and the authors' options")
    d_width: int = Field(32, ge=1, description="channels of the discriminator's first layer (ndf)")
    affine: bool = Field(True, description="instance norms learn a scale and a shift")
    padding: Literal["reflect", "zeros"] = Field("reflect", description="of the generator; zeros as znxlwm's code")
    norm_eps: float = Field(1e-5, gt=0, description="epsilon of its norms; 1e-9 in the port of the released weights")
    pool: int = Field(50, ge=0, description="earlier translations that the discriminator also sees")
    gan: Literal["lsgan", "log"] = Field("lsgan", description="squares as in the authors' code; log as in the paper")
    warmup: float = Field(20 / 220, ge=0, lt=1, description="share of the run that learns the content term only")
    warmup_rate: float = Field(20.0, gt=0, description="the warm-up's learning rate, over optim.lr")
    vgg: str = Field("download", description="file with VGG19 up to `layer`; download: torchvision's ImageNet weights")
    layer: str = Field("conv4_4", description="of VGG19, whose content is kept; conv before its ReLU, relu after it")
    preprocessing: Preprocessing = Field("torchvision", description=EXPECTED)


class CartoonGAN(Smoothed):
    """CartoonGAN: Chen, Lai, Liu, "GANs for photo cartoonization" (CVPR 2018), as in the authors' Torch code."""

    Scene = CartoonScene
    Params: ClassVar[type[base.Params]] = CartoonParams
    presets = {"cartoongan": {}, "cartoongan-16": {"params": {"blocks": 16}}}
    defaults = {
        "data": {"size": 256, "batch": 8},
        "optim": {"lr": 1e-5, "betas": [0.5, 0.999]},
        "run": {"epochs": 220, "save_every": 5000},
    }
    sizes = (32, 4)  # two halvings, and VGG's three leave something to compare

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        return {
            "ab": CartoonGenerator(p.width, p.blocks, p.affine, p.padding, p.norm_eps),
            "d": CartoonDiscriminator(p.d_width, p.affine),
            "pool": ImagePool(p.pool, self.size),
        }

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        if "content" not in terms:
            return {}
        p = self.params
        return {"vgg": helpers.vgg("vgg19", (p.layer,), p.vgg, p.preprocessing)}

    def lr_factor(self, clock: Progress) -> float:
        """Flat for half of the warm-up, then linearly to 0; the same again, from optim.lr, for the rest of the run."""
        p, t = self.params, clock.progress
        if t < p.warmup:
            return p.warmup_rate * flat_then_linear(t / p.warmup)
        return flat_then_linear((t - p.warmup) / (1 - p.warmup))
