"""ArtifyGAN: CartoonGAN with fewer convolutions and more blocks, batch norm, VGG16 and the log losses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..nets import pretrained as helpers
from ..nets.cartoon import ArtifyDiscriminator, ArtifyGenerator
from ..nets.image_pool import ImagePool
from ..nets.vgg import EXPECTED, Preprocessing
from ..ops.losses import l1
from ..recipe_api import base
from ..recipe_api.base import Progress, term
from .cartoongan import CartoonGAN, CartoonScene


class ArtifyScene(CartoonScene):
    """The scene of cartoongan; the content term uses VGG16."""

    def features(self, x: Tensor) -> Tensor:
        """Return VGG's features of images at their own size."""
        return self.helpers.vgg(x)[self.params.layer]

    @term("G", 1e-5)
    def content(self) -> Tensor:
        """The translation shows its photo: L1 of VGG16 features (eq. 2), conv4_3 before its ReLU.

        Summed over an image's features with `content_sum`, else their mean.
        """
        with torch.no_grad():
            photo = self.features(self.a)
        mean = l1(self.features(self.fake), photo)
        return mean * photo[0].numel() if self.params.content_sum else mean


class ArtifyParams(base.Params):
    """Parameters of artifygan."""

    smooth: str | None = Field(None, description="output of smooth-edges for domain b; if absent, smoothed on reading")
    width: int = Field(64, ge=1, description="channels of the generator at full size")
    blocks: int = Field(10, ge=0, description="residual blocks")
    kernel: Literal[3, 7] = Field(7, description="kernel size of the first layer, px")
    d_width: int = Field(32, ge=1, description="channels of the discriminator's first layer")
    pool: int = Field(0, ge=0, description="earlier translations that the discriminator also sees")
    gan: Literal["lsgan", "log"] = Field("log", description="log as the paper prints; squares as in CartoonGAN's code")
    content_sum: bool = Field(True, description="sum the content term over an image's features; else their mean")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the run that learns the content term only")
    lr_end: float = Field(1.0, gt=0, le=1, description="what the learning rate falls to by the end, exponentially")
    vgg: str = Field("download", description="file with VGG16 up to `layer`; download: torchvision's ImageNet weights")
    layer: str = Field("conv4_3", description="of VGG16, whose content is kept; conv before its ReLU, relu after it")
    preprocessing: Preprocessing = Field("torchvision", description=EXPECTED)


class ArtifyGAN(CartoonGAN):
    """ArtifyGAN: Bismi et al., "Animated face image generation using GANs", its three training rounds.

    The weight w of the content term: the rounds' w of 10, 0 and 1e-5 gave content without style, style without content,
    and both. That fits a sum over features, not their mean: at 256 px 1e-5 times the sum is 5.2 times the mean. With
    `content_sum` off set w to 1 to 10. Watch w times `content` against `adversarial` in the log.
    """

    Scene = ArtifyScene
    Params = ArtifyParams
    presets = {
        "artifygan-r1": {
            "params": {"blocks": 8},
            "losses": {"content": 10},
            "optim": {"lr": 5e-3},
            "run": {"epochs": 240},
        },
        "artifygan-r2": {
            "params": {"kernel": 3, "lr_end": 0.01},
            "losses": {"content": 0},
            "optim": {"lr": 0.1},
        },
        "artifygan-r3": {},
    }
    defaults = {
        "data": {"size": 256, "batch": 16},
        "optim": {"lr": 1e-3, "betas": [0.5, 0.999]},
        "run": {"epochs": 210, "save_every": 5000},
    }

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        return {
            "ab": ArtifyGenerator(p.width, p.blocks, p.kernel),
            "d": ArtifyDiscriminator(p.d_width),
            "pool": ImagePool(p.pool, self.size),
        }

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        if "content" not in terms:
            return {}
        p = self.params
        return {"vgg": helpers.vgg("vgg16", (p.layer,), p.vgg, p.preprocessing)}

    def lr_factor(self, clock: Progress) -> float:
        """Constant, or falling exponentially to `lr_end`."""
        return self.params.lr_end**clock.progress
