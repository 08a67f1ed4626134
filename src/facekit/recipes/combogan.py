"""ComboGAN: many domains, an encoder, a decoder and a discriminator each; two domains learn at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout, spread
from ..errors import CardError
from ..nets.combogan import ComboDecoder, ComboDiscriminator, ComboEncoder
from ..nets.image_pool import ImagePool
from ..ops.losses import lsgan, wide
from ..recipe_api.base import Phase, Progress, term, view
from ..recipe_api.labelled import SHOWN, Labelled, LabelledParams, LabelledScene, open_labelled
from ..recipe_api.schedules import flat_then_linear
from ..storage.card import Data, suggest

DEPTHS = (1, 2, 3, 5)  # how much each depth of a discriminator counts
Two = tuple[Tensor, ...]


def depth_lsgan(judged: Sequence[Tensor], real: bool) -> Tensor:
    """LSGAN over the depths of a discriminator, weighted 1, 2, 3, 5 over 4 times their sum (as the authors' code)."""
    parts = [weight * lsgan(depth, real) for weight, depth in zip(DEPTHS, judged, strict=True)]
    return torch.stack(parts).sum() / (len(DEPTHS) * sum(DEPTHS))


def smooth_l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean of d^2 / 2 where d = |x - y| is below 1, of d - 1/2 elsewhere (Girshick 2015, eq. 3)."""
    return F.smooth_l1_loss(wide(x), wide(y))


def halved(x: Tensor) -> Tensor:
    """Return images at half their edges: means of 3 x 3 px."""
    return F.avg_pool2d(x, 3, stride=2)


def chosen_pair(seed: int, count: int) -> tuple[int, int]:
    """Return the two of `count` domains that learn in the step of a seed."""
    first, second = np.random.default_rng(seed).permutation(count)[:2].tolist()
    return first, second


class ComboScene(LabelledScene):
    """A batch of every domain, `x0`, `x1`, ..., of which a step looks at two; the nets stand in the domains' order.

    The views are pairs: their first is of the pair's first domain, their second of its second.
    """

    recipe: ComboGAN

    @view
    def pair(self) -> tuple[int, int]:
        """Two domains at random, from the step's seed: the same in both phases and in every process."""
        return chosen_pair(self.seed, self.recipe.labels)

    @view
    def x(self) -> Tensor:
        """The images of the pair's domains, [2 N, 3, S, S]."""
        return torch.cat([getattr(self, f"x{k}") for k in self.pair])

    @view
    def real(self) -> Two:
        """The images of each domain."""
        return self.image.chunk(2)

    @view
    def code(self) -> Two:
        """What each domain's encoder makes of its images."""
        return self.each(self.nets.encoders, self.real)

    @view
    def fake(self) -> Two:
        """The translations into each domain, of the images of the other."""
        return self.each(self.nets.decoders, self.code[::-1])

    @view
    def fake_code(self) -> Two:
        """What each domain's encoder makes of the translations into it."""
        return self.each(self.nets.encoders, self.fake)

    @view
    def again(self) -> Two:
        """The images of each domain, translated and back."""
        return self.each(self.nets.decoders, self.fake_code[::-1])

    def each(self, nets: Any, inputs: Iterable[Tensor]) -> Two:
        """Return what the nets of the two domains make of an input each."""
        return tuple(nets[k](x) for k, x in zip(self.pair, inputs, strict=True))

    @term("G")
    def adversarial(self) -> Tensor:
        """Both translations pass for real: LSGAN at every depth."""
        first, second = (depth_lsgan(self.nets.judges[k](x), True) for k, x in zip(self.pair, self.fake, strict=True))
        return first + second

    @term("G", 10)
    def cycle(self) -> Tensor:
        """Translating back reconstructs the image: smooth L1."""
        return both(self.again, self.real)

    @term("G", 0)
    def identity(self) -> Tensor:
        """A domain's own encoder and decoder give the image, at half the edges: smooth L1."""
        own = self.each(self.nets.decoders, self.code)
        return both(map(halved, own), map(halved, self.real))

    @term("G", 0)
    def latent(self) -> Tensor:
        """The code of a translation is that of its image: smooth L1, from nothing at the start to all at the end."""
        return self.progress * both(self.fake_code[::-1], [code.detach() for code in self.code])

    @term("G", 0)
    def forward(self) -> Tensor:
        """A translation looks like its image, at half the edges: smooth L1; the authors suggest a weight of 0.2."""
        return both(map(halved, self.fake), map(halved, self.real[::-1]))

    @term("D")
    def judge(self) -> Tensor:
        """Tell both domains' images from translations, half as fast: LSGAN at every depth."""
        pooled = self.each(self.nets.pools, self.fake)
        first, second = (self.judged(*found) for found in zip(self.pair, self.real, pooled, strict=True))
        return first + second

    def judged(self, domain: int, real: Tensor, fake: Tensor) -> Tensor:
        """Return half of a discriminator's loss, real and fake in one pass."""
        depths = [depth.chunk(2) for depth in self.nets.judges[domain](torch.cat([real, fake]))]
        on_real, on_fake = zip(*depths, strict=True)
        return (depth_lsgan(on_real, True) + depth_lsgan(on_fake, False)) / 2


def both(made: Iterable[Tensor], wanted: Iterable[Tensor]) -> Tensor:
    """Return the sum of the two domains' smooth L1."""
    first, second = (smooth_l1(x, y) for x, y in zip(made, wanted, strict=True))
    return first + second


class ComboParams(LabelledParams):
    """Parameters of combogan."""

    width: int = Field(64, ge=1, description="channels of the encoders and decoders at full size (ngf)")
    encoder_blocks: int = Field(4, ge=0, description="residual blocks of an encoder")
    decoder_blocks: int = Field(5, ge=0, description="residual blocks of a decoder")
    d_width: int = Field(64, ge=1, description="channels of the discriminators' first layer (ndf)")
    pool: int = Field(50, ge=0, description="earlier translations that each discriminator also sees")


class ComboGAN(Labelled):
    """ComboGAN: Anoosheh et al., "Unrestrained scalability for image domain translation" (2018), after their code.

    A translation is one domain's encoder and the other's decoder, so that n domains need n of each. The blocks that
    domains may share in that code are left out: its default is none, and they cannot distinguish the domains (an
    instance norm removes constant planes). The lr falls by the step, not by the epoch. For n labels
    the authors advise 50 n epochs at the full rate and 50 n falling: `run.epochs` of 100 n.
    """

    Scene = ComboScene
    Params = ComboParams
    phases = (
        Phase("G", ("encoders", "decoders")),
        Phase("D", ("judges",), reuse=("image", "fake")),
    )
    presets = {"combogan": {}}
    defaults = {
        "data": {"size": 256, "batch": 1},
        "optim": {"lr": 2e-4, "betas": [0.5, 0.999]},
        "run": {"epochs": 200, "save_every": 5000},
    }
    sizes = (16, 4)  # four halvings leave more than one px to normalise
    exports = ("encoders", "decoders")

    def check(self, size: int) -> None:
        """An image must be of one domain."""
        super().check(size)
        if not self.params.single:
            raise CardError("combogan needs exactly one label per image", "--set params.single=true, or use stargan")

    def load_size(self, size: int) -> int:
        """286 for 256."""
        return round(size * 286 / 256)

    def open(self, data: Data) -> Layout:
        """Find the images of each label: domain "x0" are those of the first of `params.labels`, and so on."""
        even = self.params.model_copy(update={"balance": True})  # a step takes as many of one domain as of the other
        found = open_labelled(data, even)
        of_label = found.readers["x"].labels.by_label(list(dict.fromkeys(found.train["x"])))
        train = {f"x{k}": paths for k, paths in enumerate(of_label.values())}
        return replace(found, train=train, previews={label: found.previews[label] for label in of_label})

    def step_domains(self, seed: int) -> list[str]:
        """The two domains that the step looks at: images of the others are not decoded."""
        return [f"x{k}" for k in chosen_pair(seed, self.labels)]

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {f"x{k}": torch.empty(batch, 3, size, size) for k in range(self.labels)}

    def nets(self) -> dict[str, nn.Module]:
        p, each = self.params, range(self.labels)
        return {
            "encoders": nn.ModuleList(ComboEncoder(p.width, p.encoder_blocks) for _ in each),
            "decoders": nn.ModuleList(ComboDecoder(p.width, p.decoder_blocks) for _ in each),
            "judges": nn.ModuleList(ComboDiscriminator(p.d_width) for _ in each),
            "pools": nn.ModuleList(ImagePool(p.pool, self.size) for _ in each),
        }

    def lr_factor(self, clock: Progress) -> float:
        """Flat for half of the run, then falling in a line to 0."""
        return flat_then_linear(clock.progress)

    def translate(self, nets: Any, x: Tensor, to: str, source: Sequence[str] | None = None) -> Tensor:
        """Translate x to the label `to`; `source` is the label of each image.

        Raises CardError where there is no `source` or it is not one of the labels, ValueError for too few or too many.
        """
        if source is None:
            raise CardError(
                "these weights need to know what the faces are", f"--from {' or '.join(self.params.labels)}"
            )
        made, decoder = torch.empty_like(x), nets.decoders[self.number(to)]
        for label in dict.fromkeys(source):
            places = [i for i, own in zip(range(len(x)), source, strict=True) if own == label]
            made[places] = decoder(nets.encoders[self.number(label)](x[places]))
        return made

    def number(self, label: str) -> int:
        """Return which of the domains a label is; raises CardError for one that there is not."""
        known = self.params.labels
        if label not in known:
            raise CardError(f"no label {label!r}{suggest(label, known)}", f"there are {', '.join(known)}")
        return known.index(label)

    def previews(self) -> dict[str, str]:
        """Each label, shown on faces of the one before it."""
        known = self.params.labels
        return {known[k]: known[k - 1] for k in spread(range(len(known)), SHOWN)}

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        source = self.params.labels[self.number(to) - 1]
        made = self.translate(nets, x, to, [source] * len(x))
        return {"translation": made, "and back": self.translate(nets, made, source, [to] * len(x))}
