"""StyleGAN2: faces out of noise, learned from one folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout
from ..data.one_folder import open_one_folder
from ..errors import CardError, InputError
from ..nets import stylegan2_layout
from ..nets.stylegan2 import Discriminator, Generator
from ..ops import augment, losses
from ..ops.ada import Augmentation
from ..recipe_api import base
from ..recipe_api.base import Phase, Recipe, Scene, term, view
from ..runtime import distributed
from ..storage.card import Data

PATH_DECAY = 0.01
PATH_SHARE = 2  # the path length is measured on a batch this many times smaller

WIDTHS = ("style_width", "mapping_layers", "multiplier", "width")  # what a fine-tuned run has from its base


class PathMean(nn.Module):
    """The running mean of path lengths; a buffer, so that a resumed run goes on with it."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, lengths: Tensor) -> Tensor:
        """Take lengths [N] into the mean and return the new mean, with a gradient to this process's lengths."""
        with torch.no_grad():
            everywhere = distributed.gather(lengths.detach()).mean()
        new = self.mean + PATH_DECAY * (lengths.mean() - lengths.mean().detach() + everywhere - self.mean)
        self.mean.copy_(new.detach())
        return new


class StyleGANScene(Scene):
    """Real images `a`; `g` draws from noise, `d` judges."""

    def latents(self, count: int) -> Tensor:
        """Draw styles [count, L, D]; with probability `mixing` two latents share them (style mixing, 2019)."""
        g = self.nets.g
        z = torch.randn(2, count, g.width, device=self.a.device, dtype=self.a.dtype)
        w = g.mapping(z.flatten(0, 1)).unflatten(0, (2, count))
        layer = torch.arange(g.latents, device=z.device)
        cut = torch.randint(1, g.latents, (), device=z.device)
        mixed = torch.rand((), device=z.device) < self.params.mixing
        second = (layer >= cut) & mixed
        return torch.where(second[None, :, None], w[1][:, None], w[0][:, None])

    @view
    def styles(self) -> Tensor:
        """The styles of the batch's drawn faces, [N, L, D]."""
        return self.latents(len(self.a))

    @view
    def fake(self) -> Tensor:
        """The drawn faces, [N, 3, S, S]."""
        return self.nets.g.synthesis(self.styles)

    def changed(self, x: Tensor) -> Tensor:
        """Augment what the discriminator sees, as `params.augment` says."""
        if self.params.augment == "diffaugment":
            return augment.cutout(augment.colour(augment.shift(x)), 0.5, 1.0)
        return self.nets.ada(x) if self.params.augment == "ada" else x

    def judged(self, x: Tensor) -> Tensor:
        """Return the logits of images, after augmentation: [N, 1]."""
        return self.nets.d(self.changed(x))

    @term("G")
    def adversarial(self) -> Tensor:
        """The drawn faces pass for real: softplus(-D(G(z))) (Goodfellow et al. 2014, the non-saturating loss)."""
        return losses.binary(self.judged(self.fake), True)

    @term("G", 2.0, every=4)
    def path_length(self) -> Tensor:
        """A step in w changes the image by the same amount everywhere (Karras et al. 2020, eq. 4)."""
        with torch.autocast("cpu" if self.a.is_meta else self.a.device.type, enabled=False):
            styles = self.latents(max(1, len(self.a) // PATH_SHARE))
            if not styles.requires_grad:  # the mapping is frozen
                styles.requires_grad_()
            image = self.nets.g.synthesis(styles)
            noise = torch.randn_like(image) / (image.shape[2] * image.shape[3]) ** 0.5
            (slope,) = torch.autograd.grad((image * noise).sum(), styles, create_graph=True)
            lengths = slope.square().sum(2).mean(1).sqrt()
        return (lengths - self.nets.path(lengths)).square().mean()

    @term("D")
    def judge(self) -> Tensor:
        """Tell real from drawn: softplus(D(G(z))) + softplus(-D(x))."""
        real = self.judged(self.a)
        if self.params.augment == "ada":
            self.nets.ada.adapt(distributed.gather(real.detach()), len(real) * distributed.size())
        return losses.binary(real, True) + losses.binary(self.judged(self.fake.detach()), False)

    @term("D", 5.0, every=16)
    def r1(self) -> Tensor:
        """D is flat on real images: the squared norm of its gradient (Mescheder et al. 2018, eq. 9; gamma is 10)."""
        with torch.autocast("cpu" if self.a.is_meta else self.a.device.type, enabled=False):
            x = self.a.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.judged(x).sum(), x, create_graph=True)
        return slope.square().sum((1, 2, 3)).mean()


class StyleGANParams(base.Params):
    """Parameters of stylegan2."""

    style_width: int = Field(512, ge=4, description="length of the latents z and w")
    mapping_layers: int = Field(8, ge=1, description="layers from z to w")
    multiplier: float = Field(2.0, gt=0, description="channels of the layers above 32 px; 2 is config F, 1 is half")
    width: int = Field(512, ge=4, description="channels of the low-resolution layers, the maximum")
    mixing: float = Field(0.9, ge=0, le=1, description="probability of style mixing")
    augment: Literal["none", "diffaugment", "ada"] = Field("none", description="augmentation of what D sees")
    ada_target: float = Field(0.6, ge=-1, le=1, description="target for the mean sign of D on real images")
    ada_images: int = Field(500_000, ge=1, description="real images over which p can go from 0 to 1")


class StyleGAN2(Recipe):
    """Faces out of noise (Karras et al. 2020, StyleGAN2, config F), from one folder: `facekit sample` draws.

    R1 and path length are lazy terms; each is added to the loss of its step, where the authors take a step of its own
    with adjusted Adam constants. Small folders want `params.augment` (ADA, Karras et al. 2020; or DiffAugment, Zhao et
    al. 2020).
    """

    Scene: ClassVar[type[Scene]] = StyleGANScene
    Params: ClassVar[type[base.Params]] = StyleGANParams
    phases: ClassVar[tuple[Phase, ...]] = (Phase("D", ("d",)), Phase("G", ("g",), precompute=("fake",)))
    presets = {
        "stylegan2": {},
        "stylegan2-small": {
            "data": {"size": 64, "batch": 8},
            "params": {"style_width": 128, "mapping_layers": 4, "multiplier": 0.25, "width": 128,
                       "augment": "diffaugment"},
            "run": {"steps": 50000},
        },
    }  # fmt: skip
    defaults = {
        "data": {"size": 256, "batch": 16},
        "optim": {"lr": 2e-3, "betas": [0.0, 0.99]},
        "run": {"steps": 800000, "ema": 0.998, "save_every": 2000},
    }
    sizes = (8, 1)
    exports: ClassVar[tuple[str, ...]] = ("g",)
    directions: ClassVar[tuple[str, ...]] = ()

    def check(self, size: int) -> None:
        """Raise CardError for a size that is no power of 2."""
        super().check(size)
        if size & (size - 1):
            near = 1 << size.bit_length() - 1
            raise CardError(f"StyleGAN2 needs data.size to be a power of 2, not {size}", f"--size {near} or {2 * near}")

    def generator(self) -> Generator:
        """Build the generator."""
        p = self.params
        return Generator(self.size, p.style_width, p.mapping_layers, p.multiplier, p.width)

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        nets: dict[str, nn.Module] = {
            "g": self.generator(),
            "d": Discriminator(self.size, p.multiplier, p.width),
            "path": PathMean(),
        }
        if p.augment == "ada":
            nets["ada"] = Augmentation(p.ada_target, p.ada_images)
        return nets

    def from_public(self, state: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """Take G and D from a checkpoint in the layout of rosinality/stylegan2-pytorch, G averaged if it is there."""
        if not stylegan2_layout.is_public_layout(state):
            return None
        g = stylegan2_layout.generator(state.get("g_ema", state.get("g", state)))
        d = stylegan2_layout.discriminator(state.get("d", {}))
        return {**{f"g.{key}": x for key, x in g.items()}, **{f"d.{key}": x for key, x in d.items()}}

    def open(self, data: Data) -> Layout:
        layout = open_one_folder(data)
        if len(layout.train["a"]) == 1:
            raise InputError(
                f"{data.a or data.root} has one image to train on, and would only repeat it",
                "give a folder of hundreds; a style from one drawing: facekit train jojogan --a DRAWING --init RUN",
            )
        return layout

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {"a": torch.empty(batch, 3, size, size)}

    def previews(self) -> dict[str, str]:
        """Show drawn faces beside real ones."""
        return {"drawn": "a"}

    @torch.no_grad()
    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        """Return a drawn face, with and without truncation; its latent depends on the photo beside it alone."""
        seed = int(x.double().abs().sum().item() * 1000) % 2**31
        z = torch.randn(1, nets.g.width, generator=torch.Generator().manual_seed(seed)).to(x)
        w, mean = nets.g.mapping(z), nets.g.mean_w()
        return {
            "drawn": nets.g.synthesis(w, nets.g.noises).clamp(-1, 1),
            "truncated 0.7": nets.g.synthesis(mean.lerp(w, 0.7), nets.g.noises).clamp(-1, 1),
        }

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Raise CardError: faces come from noise here."""
        raise CardError("stylegan2 draws faces from noise", "facekit sample RUN OUT")
