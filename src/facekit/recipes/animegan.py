"""AnimeGAN and AnimeGANv2: texture from grey drawings, colours and content from the photo."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ..errors import CardError, MissingError
from ..nets import pretrained as helpers
from ..nets.animegan import AnimeDiscriminator, AnimeGenerator, AnimeGenerator2, AnimeLite, load_port
from ..nets.vgg import EXPECTED, Preprocessing
from ..ops import losses
from ..ops.losses import gram, grey, l1, lsgan
from ..recipe_api import base
from ..recipe_api.base import Progress, term, view
from ..recipe_api.edge_promoting import Smoothed, SmoothedScene


class AnimeScene(SmoothedScene):
    """The scene of animegan: its losses."""

    @view
    def fake_features(self) -> Tensor:
        """VGG's features of the translation."""
        return self.features(self.fake)

    def features(self, x: Tensor) -> Tensor:
        """Return VGG19's features of images: conv4_4 before its ReLU, or `layer`."""
        return self.helpers.vgg(x)[self.params.layer]

    def judged(self, x: Tensor, real: bool) -> Tensor:
        """Return LSGAN's loss on images of one kind; 0 in the warm-up."""
        return lsgan(self.nets.d(x), real) if self.warm else self.a.new_zeros(())

    @term("D", 360)
    def judge_drawing(self) -> Tensor:
        """A drawing is real: LSGAN."""
        return self.judged(self.b, True)

    @term("D", 360)
    def judge_fake(self) -> Tensor:
        """A translation is fake: LSGAN."""
        return self.judged(self.fake, False) if self.warm else self.a.new_zeros(())

    @term("D", 360)
    def judge_grey(self) -> Tensor:
        """A drawing in grey is fake, so the translation must have colours: LSGAN."""
        return self.judged(grey(self.b), False)

    @term("D", 240)
    def judge_smooth(self) -> Tensor:
        """A drawing with smoothed edges, in grey, is fake: LSGAN."""
        return self.judged(grey(self.b_smooth), False)

    @term("G", 300)
    def adversarial(self) -> Tensor:
        """The translation passes for a drawing: LSGAN."""
        return self.judged(self.fake, True) if self.warm else self.a.new_zeros(())

    @term("G", 1.5)
    def content(self) -> Tensor:
        """The translation keeps its photo's content: L1 of VGG19's conv4_4."""
        with torch.no_grad():
            photo = self.features(self.a)
        return l1(self.fake_features, photo)

    @term("G", 2.5)
    def style(self) -> Tensor:
        """The translation has the texture of grey drawings: L1 of Gram matrices."""
        if not self.warm:
            return self.a.new_zeros(())
        with torch.no_grad():
            drawn = gram(self.features(grey(self.b)))
        return l1(gram(self.fake_features), drawn)

    @term("G", 15)
    def colour(self) -> Tensor:
        """The translation has its photo's colours: L1 on Y, Huber on U and V."""
        return losses.colour(self.fake, self.a) if self.warm else self.a.new_zeros(())

    @term("G", 1)
    def variation(self) -> Tensor:
        """The translation is smooth: total variation (AnimeGANv2)."""
        return losses.variation(self.fake) if self.warm else self.a.new_zeros(())


class AnimeParams(base.Params):
    """Parameters of animegan."""

    net: Literal["v1", "v2", "v2-lite"] = Field("v2", description="generator and norm of the discriminator")
    smooth: str | None = Field(None, description="output of smooth-edges for domain b; if absent, smoothed on reading")
    width: int = Field(32, ge=4, multiple_of=2, description="channels of the generator at full size; v1 has 64")
    d_width: int = Field(32, ge=1, description="channels of the discriminator's first layer")
    align_corners: bool = Field(True, description="v2: how it doubles the size; the public port's weights expect true")
    details: Literal["tensorflow", "pytorch"] = Field(
        "tensorflow",
        description="norm epsilons and v1's halving: the authors' code; or PyTorch's, for the port",
    )
    weights: str | None = Field(None, description="v2: start from this file of the PyTorch port's weights")
    warmup: float = Field(10 / 101, ge=0, lt=1, description="share of the run that learns the content term only")
    warmup_rate: float = Field(10.0, gt=0, description="the warm-up's learning rate, over the generator's")
    vgg: str = Field("download", description="file with VGG19 up to `layer`; download: torchvision's ImageNet weights")
    layer: str = Field("conv4_4", description="of VGG19, for content and style; conv before its ReLU, relu after it")
    preprocessing: Preprocessing = Field("torchvision", description=EXPECTED)

    @model_validator(mode="before")
    @classmethod
    def port_details(cls, values: Any) -> Any:
        """Weights of the port come with PyTorch's details."""
        port = isinstance(values, dict) and values.get("weights")
        return {"details": "pytorch", **values} if port else values


class AnimeGAN(Smoothed):
    """AnimeGAN: Chen, Liu, Chen (2020) and AnimeGANv2, as in the authors' code; one preset per style.

    The authors' weights of content and style go with VGG's Caffe weights on pixels of 0..255; others have another
    scale.
    """

    Scene = AnimeScene
    Params = AnimeParams
    older_defaults = {"details": "pytorch"}
    presets = {
        "animegan": {
            "params": {"net": "v1", "width": 64, "warmup": 0.0495, "warmup_rate": 1.25},
            "losses": {
                "judge_drawing": 300,
                "judge_fake": 300,
                "judge_grey": 300,
                "judge_smooth": 30,
                "style": 3,
                "colour": 10,
                "variation": 0,
            },
            "data": {"batch": 6},
            "optim": {"lr": 8e-5, "phases": {"D": {"lr": 1.6e-4}}},
        },
        "animegan-shinkai": {
            "params": {"net": "v1", "width": 64, "warmup": 0.0495, "warmup_rate": 1.25},
            "losses": {
                "judge_drawing": 300,
                "judge_fake": 300,
                "judge_grey": 300,
                "judge_smooth": 30,
                "content": 1.1,
                "style": 3,
                "colour": 10,
                "variation": 0,
            },
            "data": {"batch": 6},
            "optim": {"lr": 8e-5, "phases": {"D": {"lr": 1.6e-4}}},
        },
        "animegan2": {},
        "animegan2-paprika": {
            "losses": {
                "judge_drawing": 300,
                "judge_fake": 300,
                "judge_grey": 300,
                "judge_smooth": 1.5,
                "content": 2,
                "style": 0.6,
                "colour": 50,
                "variation": 0.1,
            },
        },
        "animegan2-shinkai": {
            "losses": {
                "judge_drawing": 510,
                "judge_fake": 510,
                "judge_grey": 510,
                "judge_smooth": 300,
                "content": 1.2,
                "style": 2,
                "colour": 10,
            },
        },
        "animegan2-lite": {"params": {"net": "v2-lite"}, "data": {"batch": 20}},
    }
    defaults = {
        "data": {"size": 256, "batch": 12, "flip": False},
        "optim": {"lr": 2e-5, "betas": [0.5, 0.999], "phases": {"D": {"lr": 4e-5}}},
        "run": {"epochs": 101, "save_every": 5000},
    }

    def __init__(self, params: Any = None, size: int = 256):
        super().__init__(params, size)
        self.multiple = 8 if self.params.net == "v2-lite" else 4  # as often as the net halves
        self.sizes = (32, self.multiple)

    def check(self, size: int) -> None:
        """Weights to start from are of v2 at full width."""
        super().check(size)
        p = self.params
        if p.weights and (p.net != "v2" or p.width != 32):
            raise CardError(f"params.weights are of net v2 at width 32, not {p.net} at {p.width}", "leave one out")

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        tensorflow = p.details == "tensorflow"
        d = AnimeDiscriminator(p.d_width, p.net == "v1", tensorflow)
        if p.net == "v1":
            return {"ab": AnimeGenerator(p.width, tensorflow), "d": d}
        if p.net == "v2-lite":
            return {"ab": AnimeLite(p.width, tensorflow), "d": d}
        ab = AnimeGenerator2(p.width, p.align_corners, tensorflow)
        if p.weights and not next(ab.parameters()).is_meta:
            wrong = load_port(ab, helpers.read_weights(Path(p.weights)))
            if wrong:
                raise MissingError(
                    f"{p.weights} is not of the public port's generator: {wrong} is missing or of another shape",
                    "give a file that its state_dict() was saved to",
                )
        return {"ab": ab, "d": d}

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        if not {"content", "style"} & set(terms):
            return {}
        p = self.params
        return {"vgg": helpers.vgg("vgg19", (p.layer,), p.vgg, p.preprocessing)}

    def lr_factor(self, clock: Progress) -> float:
        """Two levels: the warm-up's, then constant."""
        return self.params.warmup_rate if clock.progress < self.params.warmup else 1.0
