"""An encoder that finds a photo's latent in a StyleGAN2 generator in one pass."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout
from ..nets.face_look import open_look
from ..nets.inversion import Inverted, invert
from ..nets.stylegan2_encoder import Encoder
from ..ops.losses import direction_distance, l2, wide
from ..recipe_api.base import Phase, Progress, Scene, term, view
from ..recipe_api.controls import BACKGROUND, KEEP, Control
from ..recipe_api.schedules import warmup_flat_linear
from .stylegan2 import WIDTHS
from .stylegan2_photos import BETWEEN, LOOK, SWAP_AT, DrawsPhotos, PhotoParams

REFINE_RATE = 0.02  # learning rate of the descent that starts at the encoder's styles


class EncoderScene(Scene):
    """Photos `a`; `encoder` learns to find their latents in `source`."""

    @view
    def parts(self) -> tuple[Tensor, Tensor]:
        """The photos' common style and what each layer differs from it."""
        return self.nets.encoder.parts(self.a)

    @view
    def drawn(self) -> Tensor:
        """What `source` draws of the photos' styles."""
        base, apart = self.parts
        return self.nets.source.synthesis(base[:, None] + apart, self.nets.source.noises)

    @term("E", 1.0)
    def match(self) -> Tensor:
        """The generator draws the photo: mean squared difference of px."""
        return l2(self.drawn, self.a)

    @term("E", 0.8)
    def perceptual(self) -> Tensor:
        """It looks alike to a face net: direction of features in every place (Zhang et al. 2018, eq. 1)."""
        look = self.helpers.look
        with torch.no_grad():
            wanted = look.maps(self.a)
        pairs = zip(look.maps(self.drawn), wanted, strict=True)
        return torch.stack([direction_distance(x, y) for x, y in pairs]).mean()

    @term("E", 0.1)
    def identity(self) -> Tensor:
        """It is the same face: 1 - cosine of the embeddings (Richardson et al. 2021, pSp, eq. 4)."""
        return (1 - self.helpers.look.identity(self.a, self.drawn)).mean()

    @term("E", 2e-4)
    def delta(self) -> Tensor:
        """Styles of the layers differ little, as the generator learned them (Tov et al. 2021, e4e, eq. 3)."""
        return wide(self.parts[1]).square().sum(2).mean()

    @term("E", 0.1)
    def latent(self) -> Tensor:
        """Of a drawn face the encoder finds the latent that it was drawn from: mean squared difference."""
        source = self.nets.source
        z = torch.randn(len(self.a), source.width, device=self.a.device, dtype=self.a.dtype)
        with torch.no_grad():
            w = source.mapping(z)
            image = source.synthesis(w, source.noises)
        return l2(self.nets.encoder(image), w[:, None].expand(-1, source.latents, -1))


class EncoderParams(PhotoParams):
    """Parameters of stylegan2-encoder."""

    photo_steps: int = Field(50, ge=0, description="gradient steps that refine what the encoder found in a photo")
    encoder_width: int = Field(256, ge=4, description="channels of the encoder's low-resolution layers, the maximum")


class StyleGAN2Encoder(DrawsPhotos):
    """Photos to the latents of a StyleGAN2 generator in one pass, refined by gradient descent: `--init` names its run.

    Trained on a fine-tuned run (stylegan2-structure, jojogan) its weights translate: the encoder finds the photo in
    that run's source, the fine-tuned generator draws it. After Richardson et al. 2021 (pSp) and Tov et al. 2021 (e4e).
    """

    Scene = EncoderScene
    Params = EncoderParams
    phases = (Phase("E", ("encoder",)),)
    presets = {"stylegan2-encoder": {}}
    defaults = {
        "data": {"size": 256, "batch": 8},
        "optim": {"lr": 1e-3, "betas": [0.9, 0.99]},
        "run": {"steps": 20000, "ema": 0.998, "save_every": 1000},
    }
    exports = ("encoder", "source", "g")
    inherits = WIDTHS
    starts_averaged = True
    controls: ClassVar[tuple[Control, ...]] = (
        BETWEEN,
        KEEP,
        BACKGROUND,
        SWAP_AT,
        Control("inversion_steps", 50, "gradient steps that refine what the encoder found", 0, 5000),
    )

    def nets(self) -> dict[str, nn.Module]:
        p, g = self.params, self.generator()
        encoder = Encoder(self.size, p.style_width, g.latents, p.multiplier, p.encoder_width)
        source = self.generator()
        nn.init.ones_(source.const)  # until run.init or `start` gives it weights
        return {"encoder": encoder, "source": source, "g": g}

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        return {"look": open_look(load(LOOK).nets["face"])}

    def start(self, nets: Any, layout: Layout) -> None:
        """Take the mean latent; a base that was not fine-tuned is its own source."""
        if bool((nets.source.const == 1).all()):
            nets.source.load_state_dict(nets.g.state_dict())
        nets.encoder.mean.copy_(nets.source.mean_w()[0])

    def lr_factor(self, clock: Progress) -> float:
        """Rise over 100 steps, stay, fall to zero over the last half of the run."""
        return warmup_flat_linear(clock)

    @torch.no_grad()
    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        """Return the photo as the fine-tuned generator draws it, and as its source does, without refinement."""
        styles = nets.encoder(x)
        return {
            "translation": nets.g.synthesis(styles, nets.g.noises).clamp(-1, 1),
            "found": nets.source.synthesis(styles, nets.source.noises).clamp(-1, 1),
        }

    def invert(self, nets: Any, x: Tensor, steps: int) -> Inverted:
        with torch.no_grad():
            styles = nets.encoder(x)
        return invert(nets.source, x, self.look(x.device).maps, steps, lr=REFINE_RATE, start=styles)
