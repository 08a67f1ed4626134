"""Photos through StyleGAN2: found in the latents of one generator, drawn by another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..errors import CardError
from ..nets.face_look import FaceLook, open_look
from ..nets.inversion import Inverted, invert
from ..nets.stylegan2 import Generator
from ..nets.stylegan2_blend import between, swap_layers
from ..recipe_api import checkpoint
from ..recipe_api.controls import BACKGROUND, KEEP, Control
from ..storage.card import Domains
from .stylegan2 import StyleGAN2, StyleGANParams

LOOK = "facefeat"  # shipped weights by which photo and drawing are compared
BETWEEN = Control("strength", 1.0, "0 draws as the generator of photos, 1 as the fine-tuned one", 0, 2)
SWAP_AT = Control("swap_at", 0, "px from which on layers draw as the fine-tuned generator; 0: all", 0, 1024)
STEPS = Control("inversion_steps", 200, "gradient steps that look for the photo's latent", 0, 5000)


class PhotoParams(StyleGANParams):
    """Parameters of what draws photos."""

    photo_steps: int = Field(200, ge=0, description="gradient steps that look for the latent of a photo to translate")


class DrawsPhotos(StyleGAN2):
    """What recipes share that translate photos with a generator `g` that was fine-tuned from `source`.

    The photo is inverted in `source`, and its latent drawn by `g`. `strength` goes between the weights of both.
    """

    directions = ("a",)
    multiple = 0
    controls: ClassVar[tuple[Control, ...]] = (BETWEEN, KEEP, BACKGROUND, SWAP_AT, STEPS)
    _look: FaceLook | None = None

    def targets(self, domains: Domains) -> dict[str, str]:
        """Return the name of the folder that the generator was fine-tuned to."""
        return {domains.a: "a"}

    def check_controls(self, values: Mapping[str, Any]) -> None:
        """Raise CardError for a `swap_at` that the generator has no layers of."""
        sizes = [0, *(2**level for level in range(2, self.size.bit_length()))]
        if values.get("swap_at", 0) not in sizes:
            raise CardError(
                f"the generator has no layers of {values['swap_at']} px", f"one of {', '.join(map(str, sizes[1:]))}"
            )

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        """Return drawn faces for what `previews` names; the translation of photos, which takes longer, for a target."""
        return super().preview(nets, x, to) if to == "drawn" else {"translation": self.translate(nets, x, to)}

    def look(self, device: torch.device) -> FaceLook:
        """Return what compares photos and drawings."""
        if self._look is None:
            self._look = open_look(checkpoint.load_model(LOOK, device).nets["face"])
        return self._look.to(device)

    def invert(self, nets: Any, x: Tensor, steps: int) -> Inverted:
        """Find the latents of photos x [N, 3, S, S]."""
        return invert(nets.source, x, self.look(x.device).maps, steps)

    def drawer(self, nets: Any, strength: float, swap_at: int) -> Generator:
        """Return the generator that draws."""
        made: Generator = nets.g
        if strength != 1:
            made = between(nets.source, nets.g, strength)
        return swap_layers(between(nets.source, nets.g, 0), made, swap_at) if swap_at else made

    def translate(
        self,
        nets: Any,
        x: Tensor,
        to: str,
        strength: float = 1.0,
        swap_at: int = 0,
        inversion_steps: int | None = None,
        notes: list[dict[str, Any]] | None = None,
    ) -> Tensor:
        """Draw photos x [N, 3, S, S].

        `strength` 0 draws them as `source` does, 1 as `g`; layers below `swap_at` px are those of `source`. `notes`
        gets, for each photo, the remaining `distance` of the inversion and the `identity` of what `source` draws (a
        cosine).
        """
        drawer = self.drawer(nets, strength, swap_at)
        with torch.inference_mode(False), torch.enable_grad():
            photo = x.clone()
            steps = self.params.photo_steps if inversion_steps is None else inversion_steps
            found = self.invert(nets, photo, steps)
        with torch.no_grad():
            if notes is not None:
                again = nets.source.synthesis(found.styles, found.noises)
                same = self.look(x.device).identity(photo, again)
                pairs = zip(found.distance.tolist(), same.tolist(), strict=True)
                notes += [{"distance": round(far, 4), "identity": round(near, 4)} for far, near in pairs]
            return drawer.synthesis(found.styles, found.noises).clamp(-1, 1)
