"""The net that enlarges translations to twice the size that their own net draws well."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout
from ..data.one_folder import open_one_folder
from ..errors import CardError
from ..nets import pretrained
from ..nets.patchgan import PatchDiscriminator
from ..nets.upscaler import Upscaler
from ..ops import augment, losses
from ..recipe_api import base
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view
from ..recipe_api.schedules import warmup_flat_linear
from ..storage.card import Data
from .projected import LAYERS, Trunk

GRAINS = (1, 2, 4)  # px of the smaller picture


class UpscalerScene(Scene):
    """Drawings `a`; `up` gets them back from half their resolution, `d` judges patches."""

    @view
    def low(self) -> Tensor:
        """The drawings from half their resolution, as a translation that was enlarged looks: soft and a little noisy.

        [N, 3, S, S]; each image with its own blur and noise, up to `params.blur` px and `params.noise` of -1..1. The
        noise has grains of several sizes, as nets that upsample leave them.
        """
        blurred = losses.wide(augment.blur(losses.wide(self.a), self.params.blur))
        half = F.interpolate(blurred, scale_factor=0.5, mode="bicubic", align_corners=False, antialias=True)
        for grain in GRAINS:
            edge = -(-half.shape[-1] // grain)
            grains = torch.randn(len(half), 3, edge, edge, device=half.device).repeat_interleave(grain, 2)
            strength = self.params.noise * torch.rand(len(half), 1, 1, 1, device=half.device)
            half = half + strength * grains.repeat_interleave(grain, 3)[..., : half.shape[2], : half.shape[3]]
        return enlarge(half)

    @view
    def fake(self) -> Tensor:
        """The drawings as the net gives them back, [N, 3, S, S]."""
        return losses.wide(self.nets.up(self.low))

    @view
    def features(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Frozen VGG features of what the net draws and of the drawings."""
        with torch.no_grad():
            wanted = self.helpers.trunk(self.a)
        return self.helpers.trunk(self.fake), wanted

    @term("G", 1.0)
    def match(self) -> Tensor:
        """It is the drawing: mean absolute difference."""
        return losses.l1(self.fake, losses.wide(self.a))

    @term("G", 0.5, every=2)
    def perceptual(self) -> Tensor:
        """It looks alike to VGG: direction of features in every place (Zhang et al. 2018, eq. 1, without weights)."""
        fake, wanted = self.features
        return torch.stack([losses.direction_distance(fake[name], wanted[name]) for name in fake]).mean()

    @term("G", 0.02)
    def adversarial(self) -> Tensor:
        """Its patches pass for drawn ones: least squares (Mao et al. 2017, eq. 9)."""
        return losses.lsgan(self.nets.d(self.fake), True)

    @term("D")
    def judge(self) -> Tensor:
        """Tell patches of drawings from enlarged ones: least squares."""
        return losses.lsgan(self.nets.d(self.a), True) + losses.lsgan(self.nets.d(self.fake.detach()), False)


def enlarge(x: Tensor) -> Tensor:
    """Return images [N, 3, H, W] at twice their size, by bicubic interpolation: what the net takes."""
    return F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False).clamp(-1, 1)


class UpscalerParams(base.Params):
    """Parameters of upscaler."""

    width: int = Field(32, ge=4, description="channels of the net")
    blocks: int = Field(4, ge=0, description="residual blocks of the net")
    d_width: int = Field(32, ge=4, description="channels of the discriminator's first layer")
    blur: float = Field(1.5, ge=0, le=4, description="blur of the training input, at most: sigma in px")
    noise: float = Field(0.04, ge=0, le=1, description="noise of the training input: sigma of each grain, at most")
    vgg: str = Field("download", description="file with VGG19's first layers; download: torchvision's ImageNet weights")
    preprocessing: Literal["torchvision", "caffe"] = Field("torchvision", description="what these weights expect")


class UpscalerRecipe(Recipe):
    """What makes translations larger than their net draws them, with sharp edges; learns from one folder of drawings.

    Single-image super-resolution by two (Lim et al. 2017, EDSR) with perceptual and adversarial losses (Ledig et al.
    2017, SRGAN), from input that was blurred and made noisy. Not a system of the five papers.
    """

    Scene = UpscalerScene
    Params = UpscalerParams
    phases = (Phase("G", ("up",)), Phase("D", ("d",), reuse=("fake",)))
    presets = {"upscaler": {}}
    defaults = {
        "data": {"size": 128, "batch": 8},
        "optim": {"lr": 5e-4, "betas": [0.5, 0.99]},
        "run": {"steps": 10000, "ema": 0.998, "save_every": 1000},
    }
    sizes = (32, 2)
    exports = ("up",)
    directions = ()
    controls = ()

    def open(self, data: Data) -> Layout:
        return open_one_folder(data)

    def load_size(self, size: int) -> int:
        """Crop a quarter of the picture: what is learnt is local, and whole faces would take longer."""
        return 2 * size

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {"a": torch.empty(batch, 3, size, size)}

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        return {"up": Upscaler(p.width, p.blocks), "d": PatchDiscriminator(p.d_width)}

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        p = self.params
        if "perceptual" not in terms:
            return {}
        return {"trunk": Trunk(pretrained.vgg("vgg19", LAYERS, p.vgg, p.preprocessing))}

    def lr_factor(self, clock: Progress) -> float:
        """Rise over 100 steps, stay, fall to zero over the last half of the run."""
        return warmup_flat_linear(clock)

    def previews(self) -> dict[str, str]:
        """Show held-out drawings."""
        return {"a": "a"}

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        """Return what the net and what interpolation makes of a drawing's half."""
        half = F.interpolate(x, scale_factor=0.5, mode="bicubic", align_corners=False, antialias=True)
        return {"upscaled": self.doubled(nets, half), "interpolated": enlarge(half)}

    def doubled(self, nets: Any, x: Tensor) -> Tensor:
        """Return images [N, 3, H, W] in [-1, 1] at twice their size, with sharp edges."""
        return nets.up(enlarge(x)).clamp(-1, 1)

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Raise CardError: it enlarges what other weights draw."""
        raise CardError("an upscaler translates nothing", "facekit translate IN OUT --upscaler RUN")
