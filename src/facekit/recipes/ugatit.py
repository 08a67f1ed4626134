"""U-GAT-IT: attention from an auxiliary classifier, and normalisation that learns how much of a layer to keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ..nets.blocks import clip_rho_
from ..nets.ugatit import Attended, UGATITDiscriminator, UGATITGenerator
from ..ops.losses import binary, l1, lsgan
from ..recipe_api import base
from ..recipe_api.adversarial import judge_both
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view


class UGATITScene(Scene):
    """A batch of `a` and one of `b`; per domain a local (`la`, `lb`) and a global (`ga`, `gb`) discriminator."""

    @view
    def towards_b(self) -> tuple[Attended, Attended]:
        """ab of a (translation) and of b (identity)."""
        return self.both(self.nets.ab, self.a, self.b)

    @view
    def towards_a(self) -> tuple[Attended, Attended]:
        """ba of b (translation) and of a (identity)."""
        return self.both(self.nets.ba, self.b, self.a)

    def both(self, net: nn.Module, x: Tensor, same: Tensor) -> tuple[Attended, Attended]:
        """Return net(x) and, for the generators' turn, net(same), in one pass: every norm is per image."""
        if not (self.active("identity") or self.active("cam")):
            made = net(x)
            return made, made
        parts = [part.chunk(2) for part in net(torch.cat([x, same]))]
        return Attended(*(part[0] for part in parts)), Attended(*(part[1] for part in parts))

    @view
    def fake_b(self) -> Tensor:
        """The translation of a."""
        return self.towards_b[0].out

    @view
    def fake_a(self) -> Tensor:
        """The translation of b."""
        return self.towards_a[0].out

    @view
    def back_a(self) -> Tensor:
        """a, translated and back."""
        return self.nets.ba(self.fake_b).out

    @view
    def back_b(self) -> Tensor:
        """b, translated and back."""
        return self.nets.ab(self.fake_a).out

    @term("D")
    def judge_a(self) -> Tensor:
        """Tell real a from translations, by patches and by the attention's classifier: LSGAN (eq. 2, 5)."""
        return self.judged(self.judges("a"), self.a, self.fake_a)

    @term("D")
    def judge_b(self) -> Tensor:
        """Tell real b from translations, by patches and by the attention's classifier: LSGAN (eq. 2, 5)."""
        return self.judged(self.judges("b"), self.b, self.fake_b)

    def judges(self, domain: str) -> list[nn.Module]:
        """Return the discriminators of a domain: the global one, if there is one, and the local one."""
        return [self.nets[name] for name in (f"g{domain}", f"l{domain}") if name in self.nets]

    def judged(self, nets: Sequence[nn.Module], real: Tensor, fake: Tensor) -> Tensor:
        """Sum LSGAN's losses over nets, patches and classifiers, real and fake in one pass."""
        total = torch.zeros((), device=real.device)
        for net in nets:
            patches, classifier, _ = judge_both(net, real, fake)
            for on_real, on_fake in (patches, classifier):
                total = total + lsgan(on_real, True) + lsgan(on_fake, False)
        return total

    @term("G")
    def adversarial(self) -> Tensor:
        """Both translations pass for real, by patches and classifiers: LSGAN (eq. 2, 5)."""
        said = [net(self.fake_a) for net in self.judges("a")] + [net(self.fake_b) for net in self.judges("b")]
        return sum(lsgan(j.out, True) + lsgan(j.cam, True) for j in said)  # type: ignore[return-value]

    @term("G", 10)
    def cycle(self) -> Tensor:
        """Translating back reconstructs the image: L1 (eq. 3)."""
        return l1(self.back_a, self.a) + l1(self.back_b, self.b)

    @term("G", 10)
    def identity(self) -> Tensor:
        """An image of the target domain stays as it is: L1 (eq. 4)."""
        return l1(self.towards_a[1].out, self.a) + l1(self.towards_b[1].out, self.b)

    @term("G", 1000)
    def cam(self) -> Tensor:
        """The generators' classifiers distinguish images to translate (1) from images of the target (0) (eq. 5)."""
        passes = (self.towards_a, self.towards_b)
        return sum(binary(there.cam, True) + binary(same.cam, False) for there, same in passes)  # type: ignore[return-value]


class UGATITParams(base.Params):
    """Parameters of ugatit."""

    width: int = Field(64, ge=1, description="channels of the generators at full size")
    blocks: int = Field(4, ge=1, description="residual blocks before and after the attention")
    d_width: int = Field(64, ge=1, description="channels of the discriminators' first layer")
    light: bool = Field(False, description="gamma and beta from the mean of the features: a 26th of the weights")


class UGATIT(Recipe):
    """U-GAT-IT: Kim, Kim, Kang, Lee (ICLR 2020, arXiv 1907.10830), as in the authors' PyTorch code."""

    Scene = UGATITScene
    Params = UGATITParams
    phases = (
        Phase("D", ("la", "ga", "lb", "gb")),
        Phase("G", ("ab", "ba"), precompute=("fake_a", "fake_b")),
    )
    presets = {"ugatit": {}, "ugatit-light": {"params": {"light": True}}}
    defaults = {
        "data": {"size": 256, "batch": 1},
        "optim": {"lr": 1e-4, "betas": [0.5, 0.999], "weight_decay": 1e-4},
        "run": {"steps": 1000000, "save_every": 5000},
    }
    sizes = (96, 4)  # the global discriminator halves five times
    exports = ("ab", "ba")

    def __init__(self, params: Any = None, size: int = 256):
        super().__init__(params, size)
        self.multiple = 4 if self.params.light else 0

    def load_size(self, size: int) -> int:
        """30 px more than the crop, at every size."""
        return size + 30

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        generators = {name: UGATITGenerator(p.width, p.blocks, self.size, p.light) for name in ("ab", "ba")}
        layers = {"la": 5, "ga": 7, "lb": 5, "gb": 7}
        return {**generators, **{name: UGATITDiscriminator(p.d_width, n) for name, n in layers.items()}}

    def lr_factor(self, clock: Progress) -> float:
        """Flat for half of the steps, then linearly to 0."""
        flat = clock.steps // 2
        return 1.0 if clock.step < flat else (clock.steps - clock.step - 1) / max(clock.steps - flat, 1)

    def after(self, nets: Any, phase: str) -> None:
        """Keep every rho in [0, 1]."""
        if phase == "G":
            clip_rho_(nets.ab)
            clip_rho_(nets.ba)

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        return (nets.ab if to == "b" else nets.ba)(x).out

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        out, _, heatmap = (nets.ab if to == "b" else nets.ba)(x)
        return {"translation": out, "attention": overlay(x, heatmap)}


def overlay(x: Tensor, heatmap: Tensor) -> Tensor:
    """Lay a heat-map [N, 1, h, w], each scaled to its own range, over images x [N, 3, H, W]: dark blue to red."""
    low, high = heatmap.amin((1, 2, 3), keepdim=True), heatmap.amax((1, 2, 3), keepdim=True)
    heat = nn.functional.interpolate((heatmap - low) / (high - low + 1e-8), x.shape[2:], mode="bilinear")
    ramp = [(1.5 - (4 * heat - centre).abs()).clamp(0, 1) * 2 - 1 for centre in (3.0, 2.0, 1.0)]
    return 0.5 * x + 0.5 * torch.cat(ramp, 1)
