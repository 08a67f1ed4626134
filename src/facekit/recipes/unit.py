"""UNIT: two variational auto-encoders with one latent space, and discriminators at three scales."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import CardError
from ..nets import pretrained as helpers
from ..nets.unit import MultiScaleDiscriminator, UNITGenerator
from ..nets.vgg import EXPECTED, Preprocessing
from ..ops.losses import kl, l1, lsgan, normalised_l2
from ..recipe_api import base
from ..recipe_api.adversarial import lsgan_d
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view


class UNITScene(Scene):
    """A batch of `a` and one of `b`; `g` holds both auto-encoders; `da` judges domain a, `db` domain b."""

    @view
    def mean_a(self) -> Tensor:
        """The latents' means of a: [N, 4 width, S/4, S/4]."""
        return self.nets.g.encode(self.a, "a")

    @view
    def mean_b(self) -> Tensor:
        """The latents' means of b."""
        return self.nets.g.encode(self.b, "b")

    @view
    def latent_a(self) -> Tensor:
        """A draw for each image of a: its mean plus N(0, 1)."""
        return noisy(self.mean_a)

    @view
    def latent_b(self) -> Tensor:
        """A draw for each image of b."""
        return noisy(self.mean_b)

    @view
    def fake_b(self) -> Tensor:
        """The translation of a: its latents through b's decoder."""
        return self.nets.g.decode(self.latent_a, "b")

    @view
    def fake_a(self) -> Tensor:
        """The translation of b."""
        return self.nets.g.decode(self.latent_b, "a")

    @view
    def mean_fake_b(self) -> Tensor:
        """The latents' means of the translation of a."""
        return self.nets.g.encode(self.fake_b, "b")

    @view
    def mean_fake_a(self) -> Tensor:
        """The latents' means of the translation of b."""
        return self.nets.g.encode(self.fake_a, "a")

    @view
    def back_a(self) -> Tensor:
        """a, translated and back."""
        return self.nets.g.decode(noisy(self.mean_fake_b), "a")

    @view
    def back_b(self) -> Tensor:
        """b, translated and back."""
        return self.nets.g.decode(noisy(self.mean_fake_a), "b")

    @term("D")
    def judge_a(self) -> Tensor:
        """Tell real a from translations: LSGAN, summed over three scales, without a half."""
        return lsgan_d(self.nets.da, self.a, self.fake_a)

    @term("D")
    def judge_b(self) -> Tensor:
        """Tell real b from translations: LSGAN, summed over three scales, without a half."""
        return lsgan_d(self.nets.db, self.b, self.fake_b)

    @term("G")
    def adversarial(self) -> Tensor:
        """Both translations pass for real at every scale: LSGAN."""
        judged = [*self.nets.da(self.fake_a), *self.nets.db(self.fake_b)]
        return sum(lsgan(said, True) for said in judged)  # type: ignore[return-value]

    @term("G", 10)
    def reconstruction(self) -> Tensor:
        """Each domain's decoder reconstructs the image from its latents: L1."""
        again_a, again_b = self.nets.g.decode(self.latent_a, "a"), self.nets.g.decode(self.latent_b, "b")
        return l1(again_a, self.a) + l1(again_b, self.b)

    @term("G", 0.01)
    def prior(self) -> Tensor:
        """The latents lie around 0: KL to N(0, 1)."""
        return kl(self.mean_a) + kl(self.mean_b)

    @term("G", 10)
    def cycle(self) -> Tensor:
        """Translating back reconstructs the image: L1."""
        return l1(self.back_a, self.a) + l1(self.back_b, self.b)

    @term("G", 0.01)
    def cycle_prior(self) -> Tensor:
        """The translations' latents lie around 0: KL to N(0, 1)."""
        return kl(self.mean_fake_a) + kl(self.mean_fake_b)


def noisy(mean: Tensor) -> Tensor:
    """Draw latents from N(mean, 1); only training does."""
    return mean + torch.randn_like(mean)


class UNITParams(base.Params):
    """Parameters of unit."""

    width: int = Field(64, ge=1, description="channels of the generators at full size (dim)")
    blocks: int = Field(4, ge=0, description="residual blocks of each encoder and each decoder")
    d_width: int = Field(64, ge=1, description="channels of the discriminators' first layer")
    tie_latent_layers: int = Field(
        0, ge=0, description="residual blocks on each side of the latents that both domains share; 0: as the code, none"
    )


class UNIT(Recipe):
    """UNIT: Liu, Breuel, Kautz, "Unsupervised image-to-image translation networks" (2017), as in the authors' code.

    That code is their rewrite of 2018: no layers are shared, and the domains meet in the latent space only. The paper
    of 2017 ties the blocks around it: `tie_latent_layers`.
    """

    Scene = UNITScene
    Params = UNITParams
    phases = (
        Phase("D", ("da", "db")),
        Phase("G", ("g",)),
    )
    presets = {"unit": {}}
    defaults = {
        "data": {"size": 256, "batch": 1},
        "optim": {"lr": 1e-4, "betas": [0.5, 0.999], "weight_decay": 1e-4},
        "run": {"steps": 1000000, "save_every": 5000},
    }
    sizes = (64, 4)  # the coarsest discriminator halves four times
    exports = ("g",)

    def check(self, size: int) -> None:
        """No more blocks can be tied than there are."""
        super().check(size)
        p = self.params
        if p.tie_latent_layers > p.blocks:
            raise CardError(
                f"params.tie_latent_layers is {p.tie_latent_layers}, of {p.blocks} blocks", "tie fewer, or raise blocks"
            )

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        return {
            "g": UNITGenerator(p.width, p.blocks, p.tie_latent_layers),
            "da": MultiScaleDiscriminator(p.d_width),
            "db": MultiScaleDiscriminator(p.d_width),
        }

    def lr_factor(self, clock: Progress) -> float:
        """Halved every 100,000 steps."""
        return 0.5 ** (clock.step // 100000)

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Decode the latents' means: noise is for training only."""
        return nets.g.decode(nets.g.encode(x, "a" if to == "b" else "b"), to)

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        source = "a" if to == "b" else "b"
        mean = nets.g.encode(x, source)
        made = nets.g.decode(mean, to)
        return {
            "translation": made,
            "and back": nets.g.decode(nets.g.encode(made, to), source),
            "reconstruction": nets.g.decode(mean, source),
        }


class UNITVGGScene(UNITScene):
    """UNIT's scene and its perceptual loss."""

    @term("G")
    def perceptual(self) -> Tensor:
        """A translation shows what its image shows: squared distance of VGG16's relu5_3, instance-normalised.

        The authors' VGG16 has no pooling between conv4_3 and conv5_1: relu5_3 has 1/8 of the image's resolution.
        """
        with torch.no_grad():
            of_a, of_b = self.helpers.vgg(torch.cat([self.a, self.b]))[self.params.layer].chunk(2)
        made_b, made_a = self.helpers.vgg(torch.cat([self.fake_b, self.fake_a]))[self.params.layer].chunk(2)
        return normalised_l2(made_b, of_a) + normalised_l2(made_a, of_b)


class UNITVGGParams(UNITParams):
    """Parameters of unit-vgg."""

    vgg: str = Field("download", description="file with VGG16 up to `layer`; download: torchvision's ImageNet weights")
    layer: str = Field("relu5_3", description="of VGG16, that the perceptual loss compares")
    preprocessing: Preprocessing = Field("torchvision", description=EXPECTED)


class UNITVGG(UNIT):
    """UNIT with its perceptual loss on VGG16, as the authors' code trains games to streets (Liu et al. 2017)."""

    Scene = UNITVGGScene
    Params = UNITVGGParams
    presets = {"unit-vgg": {}}

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        if "perceptual" not in terms:
            return {}
        p = self.params
        return {"vgg": helpers.vgg("vgg16", (p.layer,), p.vgg, p.preprocessing, without=("pool4",))}
