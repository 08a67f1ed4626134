"""CycleGAN conditioned on how far each face is turned: the improvement that Eki left unfinished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..data import roll as rolled
from ..errors import InputError
from ..nets import angle
from ..nets.image_pool import ImagePool
from ..nets.patchgan import PatchDiscriminator
from ..ops.losses import l1, lsgan
from ..recipe_api.adversarial import lsgan_d
from ..recipe_api.base import Phase, term, view
from .cyclegan import CycleGAN, CycleParams, CycleScene

Turned = tuple[Tensor, Tensor]  # images [N, 3, S, S] and their angles [N], degrees clockwise


class AngleScene(CycleScene):
    """CycleGAN's scene, where each net also takes the angle of the image that it is given or that it judges.

    A translation has its source's angle: that goes back into the second net of the cycle, and beside the translation
    into the discriminator and its pool. Every image is first turned at random, and its angle with it.
    """

    recipe: CycleGANAngle

    @view
    def turned_a(self) -> Turned:
        """The images of a and their angles, both turned by up to `turn` degrees."""
        return self.turn(self.__dict__["a"], self.a_roll)

    @view
    def turned_b(self) -> Turned:
        """The images of b and their angles, both turned by up to `turn` degrees."""
        return self.turn(self.__dict__["b"], self.b_roll)

    def turn(self, x: Tensor, roll: Tensor) -> Turned:
        """Turn each image by its own random angle."""
        if not self.params.turn:
            return x, roll
        degrees = (torch.rand_like(roll) * 2 - 1) * self.params.turn
        return angle.turned(x, degrees), roll + degrees

    @property
    def a(self) -> Tensor:
        """The images of a as the nets see them."""
        return self.turned_a[0]

    @property
    def b(self) -> Tensor:
        """The images of b as the nets see them."""
        return self.turned_b[0]

    @view
    def towards_b(self) -> tuple[Tensor, Tensor]:
        """ab of a and of b, in one pass where the identity term needs the second."""
        return self.of_both(self.nets.ab, self.turned_a, self.turned_b)

    @view
    def towards_a(self) -> tuple[Tensor, Tensor]:
        """ba of b and of a, in one pass where the identity term needs the second."""
        return self.of_both(self.nets.ba, self.turned_b, self.turned_a)

    def of_both(self, net: nn.Module, x: Turned, same: Turned) -> tuple[Tensor, Tensor]:
        """Return net of x and of `same`, each at its own angle."""
        if not self.active("identity"):
            return net(*x), same[0]
        made, kept = net(torch.cat([x[0], same[0]]), torch.cat([x[1], same[1]])).chunk(2)
        return made, kept

    def seen(self, x: Tensor, roll: Tensor) -> Tensor:
        """Return what a discriminator sees: images with their angle's channel, [N, 4, S, S]; mode none has none."""
        code = self.recipe.code
        return torch.cat([x, code(roll, *x.shape[2:]).to(x)], 1) if code else x

    @term("G")
    def adversarial(self) -> Tensor:
        """Both translations pass for real at their sources' angles: LSGAN (Zhu et al. 2017, eq. 1, section 4)."""
        on_b = self.nets.db(self.seen(self.fake_b, self.turned_a[1]))
        on_a = self.nets.da(self.seen(self.fake_a, self.turned_b[1]))
        return lsgan(on_b, True) + lsgan(on_a, True)

    @term("G", 10)
    def cycle(self) -> Tensor:
        """Translating back at the same angle reconstructs the image: L1 (eq. 2)."""
        back_a = self.nets.ba(self.fake_b, self.turned_a[1])
        back_b = self.nets.ab(self.fake_a, self.turned_b[1])
        return l1(back_a, self.a) + l1(back_b, self.b)

    @term("D")
    def judge_a(self) -> Tensor:
        """Tell real a from translations, each with its angle, half as fast: LSGAN."""
        fake = self.nets.pool_a(self.seen(self.fake_a, self.turned_b[1]))
        return lsgan_d(self.nets.da, self.seen(*self.turned_a), fake) / 2

    @term("D")
    def judge_b(self) -> Tensor:
        """Tell real b from translations, each with its angle, half as fast: LSGAN."""
        fake = self.nets.pool_b(self.seen(self.fake_b, self.turned_a[1]))
        return lsgan_d(self.nets.db, self.seen(*self.turned_b), fake) / 2


class AngleParams(CycleParams):
    """Parameters of cyclegan-angle."""

    mode: Literal["ramp", "adain", "plane_zero_pad", "plane", "none"] = Field(
        "ramp",
        description="how the generator gets the angle: a ramp along the eye line; scale and shift in the residual "
        "blocks; a plane visible at the border; the paper's plane, which the generators cannot see; not at all",
    )
    turn: float = Field(20.0, ge=0, le=180, description="images and their angles are turned by up to so many degrees")
    restore: bool = Field(True, description="turn faces that `facekit align` levelled back to the roll in its manifest")


class CycleGANAngle(CycleGAN):
    """CycleGAN conditioned on each face's angle, after Eki's project report (docs/papers.md).

    The paper's own way, the angle as a constant fourth channel, is mode `plane`: reflecting padding and instance
    normalisation take the plane away in the generators, while the discriminators see it. The other modes reach
    the generators.

    `translate` takes a face for upright, angle 0, which is what `facekit align` and `facekit translate` on photos make
    it; `roll` says otherwise, as `facekit translate --rotation condition` does. The simple baseline (upright,
    translated and turned back) works with any weights: `--rotation upright`, and for faces in photos `--paste`.
    """

    Scene = AngleScene
    Params = AngleParams
    phases = (
        Phase("G", ("ab", "ba")),
        Phase("D", ("da", "db"), reuse=("fake_a", "fake_b", "turned_a", "turned_b")),
    )
    presets = {"cyclegan-angle": {}}

    @property
    def code(self) -> Callable[[Tensor, int, int], Tensor] | None:
        """What makes the discriminators' channel of an angle; none in mode none."""
        return {"none": None, "ramp": angle.ramp}.get(self.params.mode, angle.plane)

    def open(self, data: Any) -> Any:
        """Find the images and their angles; raises InputError where all would be upright."""
        layout = rolled.open_rolled(data, self.params.restore)
        if not self.params.turn and not any(any(reader.rolls.values()) for reader in layout.readers.values()):
            hint = "facekit align writes a manifest with them; or turn the faces at random: --set params.turn=20"
            raise InputError("no image has an angle, and params.turn is 0", hint)
        return layout

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {**super().blank(batch, size), "a_roll": torch.zeros(batch), "b_roll": torch.zeros(batch)}

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        channels = 4 if self.code else 3
        return {
            "ab": self.generator(),
            "ba": self.generator(),
            "da": PatchDiscriminator(p.d_width, channels),
            "db": PatchDiscriminator(p.d_width, channels),
            "pool_a": ImagePool(p.pool, self.size, channels),
            "pool_b": ImagePool(p.pool, self.size, channels),
        }

    def generator(self) -> nn.Module:
        """Build a generator of the mode; it maps images [N, 3, H, W] and degrees [N] to images."""
        p = self.params
        if p.mode == "adain":
            return angle.Styled(p.width, p.blocks)
        if p.mode == "none":
            return angle.Unangled(p.width, p.blocks)
        return angle.Channelled(p.width, p.blocks, self.code, zero_pad=p.mode == "plane_zero_pad")  # type: ignore[arg-type]

    def translate(self, nets: Any, x: Tensor, to: str, roll: Tensor | None = None) -> Tensor:
        """Translate faces that are turned by `roll` [N] degrees clockwise; upright ones if absent."""
        return (nets.ab if to == "b" else nets.ba)(x, x.new_zeros(x.shape[0]) if roll is None else roll)

    def translate_upright(self, nets: Any, x: Tensor, to: str, roll: Tensor) -> Tensor:
        """Turn square faces upright by their `roll` [N], translate them, and turn them back: the simple baseline."""
        return angle.turned(self.translate(nets, angle.turned(x, -roll), to), roll)

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        made = self.translate(nets, x, to)
        back = self.translate(nets, made, "a" if to == "b" else "b")
        roll = x.new_full((len(x),), max(self.params.turn, 1.0))
        tilted = self.translate(nets, angle.turned(x, roll), to, roll)
        return {"translation": made, "and back": back, f"turned by {round(roll[0].item())}": tilted}
