"""StyleGAN2 turned to drawings: fine-tuned with parts frozen and the layout of its faces kept."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout
from ..nets.stylegan2 import Discriminator, Generator
from ..ops.losses import l2
from ..recipe_api.base import term
from .stylegan2 import WIDTHS, StyleGANScene
from .stylegan2_photos import DrawsPhotos, PhotoParams


class StructureScene(StyleGANScene):
    """As for StyleGAN2, with `source`: the generator as it was at the start, frozen."""

    @term("G", 1.0)
    def structure(self) -> Tensor:
        """The fine-tuned generator lays faces out as its source does: L2 of the RGB images of low resolution.

        Both draw from the same w and the same noise maps (Back 2021, Cartoon-StyleGAN, as its text describes it).
        """
        g, levels = self.nets.g, self.params.structure_levels
        w = self.styles
        noise = [torch.randn(len(w), 1, *x.shape[2:], device=w.device, dtype=w.dtype) for x in g.noises]
        with torch.no_grad():
            wanted = self.nets.source.rgb(w, noise, until=levels)
        drawn = g.rgb(w, noise, until=levels)
        return torch.stack([l2(x, y) for x, y in zip(drawn, wanted, strict=True)]).mean()


class TuneParams(PhotoParams):
    """Parameters of fine-tuning."""

    freeze_mapping: bool = Field(False, description="the layers from z to w do not train (FreezeSG)")
    freeze_g: int = Field(0, ge=0, description="resolutions of G, from 4 px up, that do not train (FreezeG)")
    structure_levels: int = Field(3, ge=1, description="resolutions, from 4 px up, that the structure loss compares")


class FineTunes(DrawsPhotos):
    """What recipes share that fine-tune a trained generator `g`, whatever judges it; `source` is `g` at the start."""

    exports = ("g", "source")
    inherits: ClassVar[tuple[str, ...]] = WIDTHS

    def nets(self) -> dict[str, nn.Module]:
        nets = super().nets()
        p, g = self.params, cast(Generator, nets["g"])
        low = [f"layers.{number}." for number in range(max(0, 2 * p.freeze_g - 1))]
        low += [f"to_rgb.{level}." for level in range(p.freeze_g)]
        g.frozen = (*(("mapping.",) if p.freeze_mapping else ()), *(("const", *low) if p.freeze_g else ()))
        return {**nets, "source": self.generator()}

    def start(self, nets: Any, layout: Layout) -> None:
        """Keep the generator as it is before the first step."""
        nets.source.load_state_dict(nets.g.state_dict())


class FreezeParams(TuneParams):
    """Parameters of stylegan2-freeze."""

    freeze_d: int = Field(0, ge=0, description="blocks of D, from the image down, that do not train (FreezeD)")


class StyleGAN2Freeze(FineTunes):
    """A trained StyleGAN2 fine-tuned to another folder (Back 2021, Cartoon-StyleGAN): `--init` names its run.

    Layers of low resolution, the mapping and the discriminator's first blocks (Mo et al. 2020, FreezeD) can be
    frozen, and a structure loss holds the layout, so that one latent gives one face in both generators.
    """

    Scene = StructureScene
    Params = FreezeParams
    presets = {
        "stylegan2-freeze-g": {"params": {"freeze_g": 3}, "losses": {"structure": 0}},
        "stylegan2-freeze-sg": {"params": {"freeze_g": 3, "freeze_mapping": True}, "losses": {"structure": 0}},
        "stylegan2-freeze-d": {"params": {"freeze_d": 3}, "losses": {"structure": 0}},
        "stylegan2-structure": {"params": {"freeze_mapping": True}},
    }

    def nets(self) -> dict[str, nn.Module]:
        nets = super().nets()
        d = cast(Discriminator, nets["d"])
        d.frozen_blocks = min(self.params.freeze_d, len(d.blocks))
        return nets
