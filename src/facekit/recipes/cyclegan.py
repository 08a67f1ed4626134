"""CycleGAN: two generators, two discriminators, and cycle consistency."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from ..nets.image_pool import ImagePool
from ..nets.patchgan import PatchDiscriminator
from ..nets.resnet import ResnetGenerator
from ..ops.losses import l1, lsgan
from ..recipe_api import base
from ..recipe_api.adversarial import lsgan_d, translate_both
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view


class CycleScene(Scene):
    """A batch of `a` and one of `b`; `ab` translates a to b, `ba` back; `da` judges domain a, `db` domain b."""

    @view
    def towards_b(self) -> tuple[Tensor, Tensor]:
        """ab of a and of b, in one pass where the identity term needs the second."""
        return translate_both(self.nets.ab, self.a, self.b, self.active("identity"))

    @view
    def towards_a(self) -> tuple[Tensor, Tensor]:
        """ba of b and of a, in one pass where the identity term needs the second."""
        return translate_both(self.nets.ba, self.b, self.a, self.active("identity"))

    @view
    def fake_b(self) -> Tensor:
        """The translation of a."""
        return self.towards_b[0]

    @view
    def fake_a(self) -> Tensor:
        """The translation of b."""
        return self.towards_a[0]

    @term("G")
    def adversarial(self) -> Tensor:
        """Both translations pass for real: LSGAN (Zhu et al. 2017, eq. 1, section 4)."""
        return lsgan(self.nets.db(self.fake_b), True) + lsgan(self.nets.da(self.fake_a), True)

    @term("G", 10)
    def cycle(self) -> Tensor:
        """Translating back reconstructs the image: L1 (eq. 2)."""
        return l1(self.nets.ba(self.fake_b), self.a) + l1(self.nets.ab(self.fake_a), self.b)

    @term("G", 5)
    def identity(self) -> Tensor:
        """An image that is of the domain already stays as it is: L1 (section 5.2); weight 10 times lambda 0.5."""
        return l1(self.towards_b[1], self.b) + l1(self.towards_a[1], self.a)

    @term("D")
    def judge_a(self) -> Tensor:
        """Tell real a from translations, half as fast: LSGAN."""
        return lsgan_d(self.nets.da, self.a, self.nets.pool_a(self.fake_a)) / 2

    @term("D")
    def judge_b(self) -> Tensor:
        """Tell real b from translations, half as fast: LSGAN."""
        return lsgan_d(self.nets.db, self.b, self.nets.pool_b(self.fake_b)) / 2


class CycleParams(base.Params):
    """Parameters of cyclegan."""

    width: int = Field(64, ge=1, description="channels of the generators at full size (ngf)")
    blocks: int = Field(9, ge=0, description="residual blocks: 9 at 256 px, 6 at 128 px")
    d_width: int = Field(64, ge=1, description="channels of the discriminators' first layer (ndf)")
    antialias: bool = Field(False, description="blur where the generators halve and double, as CUT's do")
    only: Literal["a", "b"] | None = Field(None, description="translate to this domain only: keep one generator")
    pool: int = Field(50, ge=0, description="earlier translations that the discriminators also see")


class CycleGAN(Recipe):
    """CycleGAN: Zhu, Park, Isola, Efros, "Unpaired image-to-image translation" (ICCV 2017), as in the authors' code."""

    Scene = CycleScene
    Params = CycleParams
    phases = (
        Phase("G", ("ab", "ba")),
        Phase("D", ("da", "db"), reuse=("fake_a", "fake_b")),
    )
    presets = {"cyclegan": {}}
    defaults = {
        "data": {"size": 256, "batch": 1},
        "optim": {"lr": 2e-4, "betas": [0.5, 0.999]},
        "run": {"epochs": 200, "save_every": 5000},
    }
    sizes = (32, 4)  # two halvings, and more than one px for the discriminator to normalise
    exports = ("ab", "ba")

    def __init__(self, params: Any = None, size: int = 256):
        super().__init__(params, size)
        if self.params.only:
            self.directions = (self.params.only,)  # type: ignore[misc]
            self.exports = ("ab" if self.params.only == "b" else "ba",)  # type: ignore[misc,assignment]

    def load_size(self, size: int) -> int:
        """286 for 256."""
        return round(size * 286 / 256)

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        return {
            "ab": ResnetGenerator(p.width, p.blocks, antialias=p.antialias),
            "ba": ResnetGenerator(p.width, p.blocks, antialias=p.antialias),
            "da": PatchDiscriminator(p.d_width),
            "db": PatchDiscriminator(p.d_width),
            "pool_a": ImagePool(p.pool, self.size),
            "pool_b": ImagePool(p.pool, self.size),
        }

    def lr_factor(self, clock: Progress) -> float:
        """Flat for half of the epochs, then falling by the epoch: 1 - max(0, e + 1 - flat) / (decay + 1)."""
        flat = clock.epochs // 2
        return 1 - max(0, clock.epoch + 1 - flat) / (clock.epochs - flat + 1)

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        return nets.ab(x) if to == "b" else nets.ba(x)

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        made = self.translate(nets, x, to)
        if self.params.only:
            return {"translation": made}
        return {"translation": made, "and back": self.translate(nets, made, "a" if to == "b" else "b")}
