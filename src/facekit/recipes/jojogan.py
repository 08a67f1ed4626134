"""JoJoGAN: a style from one drawing, or a few."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout
from ..data.one_folder import open_one_folder
from ..data.reader import Reader, Sample
from ..errors import CardError, InputError
from ..nets.inversion import invert
from ..nets.stylegan2 import Discriminator
from ..ops.losses import l1
from ..recipe_api import checkpoint
from ..recipe_api.base import Phase, Scene, term, view
from ..runtime import console
from ..storage import images
from ..storage.card import Data
from .projected import LAYERS, TrunkParams, open_trunk
from .stylegan2 import WIDTHS
from .stylegan2_photos import DrawsPhotos, PhotoParams

MOST = 10  # references
FIRST_MIXED = 7 / 18  # of the layers of a 1024 px generator, those from 7 on are mixed
COLOUR_KEEPING = (9, 11, 15, 16, 17)  # of 18: the layers to mix where the photo's colours shall stay
STAGES = (1, 3, 4, 5)  # blocks of D whose features are compared
LOOKED = ("relu1_2", *LAYERS)  # layers of the trunk in their place: the first holds colours


def mixed_layers(latents: int, preserve_colour: bool) -> list[int]:
    """Return which of the layers take random styles."""
    if preserve_colour:
        return sorted({min(latents - 1, round(index * latents / 18)) for index in COLOUR_KEEPING})
    return list(range(round(FIRST_MIXED * latents), latents))


def check_faces(paths: list[Path]) -> None:
    """Raise InputError for a reference without a face: in faces that a generator draws, it could not be found."""
    from ..faces.detectors import EMBEDDED, find_detector, find_faces

    detector = find_detector(EMBEDDED)
    for path in paths:
        try:
            find_faces(detector, np.asarray(images.read(path)))
        except InputError as error:
            hint = "facekit align cuts faces out; --set params.find_face=false takes the reference as it is"
            raise InputError(f"{path}: {error}", hint) from error


@dataclass(frozen=True)
class ReferenceReader(Reader):
    """Reads a reference together with its number."""

    numbers: dict[Path, int] = field(default_factory=dict)

    def read(self, path: Path, size: int) -> Sample:
        return {**super().read(path, size), "number": np.asarray(self.numbers[path])}


class References(nn.Module):
    """The references' styles, [R, L, D]."""

    styles: Tensor

    def __init__(self, count: int, latents: int, width: int):
        super().__init__()
        self.register_buffer("styles", torch.zeros(count, latents, width))


class JoJoScene(Scene):
    """References `a` with their `number`s; `g` learns to draw them, `d` or the frozen trunk only looks."""

    recipe: JoJoGAN

    @view
    def styles(self) -> Tensor:
        """The references' styles, with those of the upper layers mixed with random ones: [N, L, D]."""
        g, p = self.nets.g, self.params
        own = self.nets.references.styles[self.number].to(self.a.dtype)
        other = g.mapping(torch.randn(len(own), g.width, device=own.device, dtype=own.dtype))[:, None]
        mixed = torch.zeros(g.latents, device=own.device, dtype=torch.bool)
        mixed[mixed_layers(g.latents, p.preserve_colour)] = True
        return torch.where(
            mixed[None, :, None], torch.lerp(other.expand_as(own).to(own.dtype), own, p.alpha), own
        ).detach()

    @term("G")
    def features(self) -> Tensor:
        """The drawing looks like its reference: mean L1 of features (Chong and Forsyth 2022, eq. 3).

        Those of D, as in the paper, or, where the base has no D, those of the VGG that judged it.
        """
        maps = self.recipe.maps(self.nets, self.helpers)
        drawn = maps(self.nets.g.synthesis(self.styles))
        with torch.no_grad():
            wanted = maps(self.a)
        return torch.stack([l1(drawn[stage], wanted[stage]) for stage in self.recipe.compared(len(drawn))]).mean()


class JoJoParams(PhotoParams, TrunkParams):
    """Parameters of jojogan."""

    look: Literal["discriminator", "trunk"] = Field(
        "discriminator",
        description="whose features compare: those of the base's discriminator, or those of the VGG that judged it; "
        "without a value, what the base has",
    )
    preserve_colour: bool = Field(False, description="keep the photo's colours: mix only layers that hold texture")
    alpha: float = Field(0.0, ge=0, le=1, description="how much of its own style the reference keeps in mixed layers")
    inversion_steps: int = Field(500, ge=1, description="gradient steps that find the references' latents")
    find_face: bool = Field(True, description="refuse a reference in which no face is found")
    references: int = Field(1, ge=1, le=MOST, description="number of references; taken from the folder")


class JoJoGAN(DrawsPhotos):
    """A style from one to ten drawings (Chong and Forsyth 2022, JoJoGAN), in minutes: `--init` names a StyleGAN2 run.

    The references are inverted; their upper layers mixed with random styles give many faces that should all look like
    the reference, and the whole generator is fine-tuned to draw it for each. Drawing and reference are compared by
    features of the base's discriminator, as in the paper. A base of stylegan2-projected has none: the frozen VGG that
    judged it takes its place, in the inversion and in the loss. That is our substitute, not the paper's.
    """

    Scene = JoJoScene
    Params = JoJoParams
    phases = (Phase("G", ("g",)),)
    presets = {"jojogan": {}}
    defaults = {
        "data": {"size": 256, "batch": 4, "flip": False},
        "optim": {"lr": 2e-3, "betas": [0.0, 0.99]},
        "run": {"steps": 300, "ema": 0.0, "save_every": 100},
    }
    inherits = (*WIDTHS, "look", "vgg", "preprocessing")
    starts_averaged = True
    exports = ("g", "source")

    @classmethod
    def inherited(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the base's widths, its trunk, and which of the two it has to look through."""
        return {"look": "trunk" if "vgg" in params else "discriminator", **super().inherited(params)}

    def open(self, data: Data) -> Layout:
        layout = open_one_folder(data.model_copy(update={"holdout": 0}))
        paths = layout.train["a"]
        if len(paths) > MOST:
            raise InputError(f"{len(paths)} references", f"give a folder of 1 to {MOST}, or train stylegan2-structure")
        if self.params.find_face:
            check_faces(paths)
        if data.flip:
            raise CardError("a mirrored reference has another latent", "--set data.flip=false")
        reader = ReferenceReader("a", {path: number for number, path in enumerate(paths)})
        return replace(layout, readers={"a": reader}, params={"references": len(paths)})

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {**super().blank(batch, size), "number": torch.zeros(batch, dtype=torch.long)}

    def nets(self) -> dict[str, nn.Module]:
        p, g = self.params, self.generator()
        g.frozen = ("mapping.",)  # styles are given: nothing reaches it
        references = References(p.references, g.latents, g.width)
        looks = {} if p.look == "trunk" else {"d": Discriminator(self.size, p.multiplier, p.width)}
        return {"g": g, **looks, "references": references, "source": self.generator()}

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        return {"trunk": open_trunk(self.params, LOOKED)} if self.params.look == "trunk" else {}

    def maps(self, nets: Any, helpers: Any) -> Callable[[Tensor], list[Tensor]]:
        """Return what gives the feature maps of images by which they are compared."""
        if self.params.look == "trunk":
            return lambda x: list(helpers.trunk(x).values())
        return nets.d.features

    def compared(self, count: int) -> list[int]:
        """Return which of `count` feature maps the loss compares: the paper's blocks of D, or all of the trunk."""
        return [stage for stage in STAGES if stage < count] if self.params.look == "discriminator" else [*range(count)]

    def start(self, nets: Any, layout: Layout) -> None:
        """Find the references' latents in the generator that the run starts from.

        Raises CardError if it came without a trained discriminator, and `params.look` asks for one.
        """
        if self.params.look == "discriminator":
            if not nets.d.last_bias.any():  # all zero until D learns
                raise CardError(
                    "jojogan compares by the features of the base's discriminator, and this base holds none",
                    "start from the run folder of a stylegan2, or compare by an ImageNet VGG: --set params.look=trunk",
                )
            nets.d.requires_grad_(False)
        nets.source.load_state_dict(nets.g.state_dict())
        place = nets.g.const
        tensors = [images.to_tensor(images.resize(images.square(images.read(p)), self.size)) for p in layout.train["a"]]
        pictures = torch.stack(tensors).to(place.device, place.dtype)
        console.note(f"jojogan: inverting {len(pictures)} reference(s), {self.params.inversion_steps} steps")
        helpers = nn.ModuleDict(self.helpers(checkpoint.load_model, ("features",))).to(place.device, place.dtype)
        found = invert(nets.g, pictures, self.maps(nets, helpers), self.params.inversion_steps)
        nets.references.styles.copy_(found.styles)
        far = ", ".join(f"{value:.3f}" for value in found.distance.tolist())
        console.note(f"jojogan: remaining distance {far}")
