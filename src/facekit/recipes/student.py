"""A small fast generator taught by pairs that a slow strong teacher made."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout
from ..data.pairs import open_pairs
from ..nets import pretrained
from ..nets.patchgan import PatchDiscriminator
from ..nets.projected import FeatureHead
from ..nets.student import Student
from ..nets.vgg import channels
from ..ops import losses
from ..ops.stability import unsteadiness
from ..recipe_api import base
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view
from ..recipe_api.schedules import warmup_flat_linear
from ..storage.card import Data
from .projected import LAYERS, Trunk
from .ugatit_face import Parts

DETAILS = ("eyes", "mouth")  # what part_match looks at


class StudentScene(Scene):
    """Photos `a` with their drawings `b`; `ab` draws, `d` judges patches of px or of features."""

    @view
    def fake(self) -> Tensor:
        """The student's drawing of each photo, [N, 3, S, S]."""
        return self.nets.ab(self.a)

    @view
    def distance(self) -> Tensor:
        """The absolute difference of drawing and partner at the best of all shifts, per px: [N, S', S'].

        A teacher that draws a px beside the photo must not teach a blur: with `params.shift` pixels of reach the
        partner is moved to where it fits best, image by image.
        """
        reach, size = self.params.shift, self.fake.shape[-1]
        fake, wanted = losses.wide(self.fake), losses.wide(self.b)
        if not reach:
            return (fake - wanted).abs().mean(1)
        inner = fake[..., reach : size - reach, reach : size - reach]
        moves = [(top, left) for top in range(2 * reach + 1) for left in range(2 * reach + 1)]
        edge = size - 2 * reach
        apart = torch.stack([(inner - wanted[..., t : t + edge, s : s + edge]).abs().mean(1) for t, s in moves])
        best = apart.mean((2, 3)).argmin(0)  # [N]
        return apart[best, torch.arange(len(best), device=best.device)]

    @view
    def features(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Frozen VGG features of the drawings and of their partners."""
        with torch.no_grad():
            wanted = self.helpers.trunk(self.b)
        return self.helpers.trunk(self.fake), wanted

    @term("G", 1.0)
    def match(self) -> Tensor:
        """The drawing is its partner: mean absolute difference, at the best small shift."""
        return self.distance.mean()

    @term("G", 0.5)
    def perceptual(self) -> Tensor:
        """It looks alike to VGG: direction of features in every place (Zhang et al. 2018, eq. 1, without weights)."""
        fake, wanted = self.features
        return torch.stack([losses.direction_distance(fake[name], wanted[name]) for name in fake]).mean()

    @term("G", 0.05)
    def adversarial(self) -> Tensor:
        """Its patches pass for the teacher's: least squares (Mao et al. 2017, eq. 9)."""
        return self.judged(0, True)

    @term("G", 0.0)
    def part_match(self) -> Tensor:
        """Eyes and mouth match: `match` where the segmenter sees them in the photo."""
        classes = [number for number, name in enumerate(self.helpers.parts.classes) if name in DETAILS]
        with torch.no_grad():
            seen = self.helpers.parts(self.a)[:, classes].sum(1, keepdim=True)
            seen = F.interpolate(seen, self.distance.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        return (self.distance * seen).sum() / seen.sum().clamp(min=1)

    @term("G", 1.0)
    def colour(self) -> Tensor:
        """It has its partner's colours in about their places: mean absolute difference of means over 16 x 16 cells."""
        fake, wanted = (F.adaptive_avg_pool2d(losses.wide(x), 16) for x in (self.fake, self.b))
        return losses.l1(fake, wanted)

    @term("G", 0.0)
    def smooth(self) -> Tensor:
        """Neighbouring px differ little: total variation (Chen et al. 2020, AnimeGANv2)."""
        return losses.variation(self.fake)

    @term("G", 0.5)
    def stable(self) -> Tensor:
        """A slightly moved photo gives the same drawing, moved: what keeps a video from flickering."""
        return unsteadiness(self.nets.ab, self.a, self.fake)

    @term("D")
    def judge(self) -> Tensor:
        """Tell the teacher's patches from the student's: least squares."""
        return self.judged(1, True) + self.judged(0, False)

    def judged(self, side: int, real: bool) -> Tensor:
        """Return the loss of calling drawings (`side` 0) or their partners (1) real or not, the mean over heads."""
        if self.params.judge == "patches":
            return losses.lsgan(self.nets.d((self.fake, self.b)[side]), real)
        heads = self.nets.d.items()
        return torch.stack([losses.lsgan(head(self.features[side][name]), real) for name, head in heads]).mean()


class StudentParams(base.Params):
    """Parameters of student."""

    width: int = Field(32, ge=4, multiple_of=4, description="channels at half the resolution; 8 times at a sixteenth")
    blocks: int = Field(3, ge=0, description="residual blocks at a sixteenth of the resolution")
    d_width: int = Field(32, ge=4, description="channels of the discriminator's first layer; 4 times of its heads")
    judge: Literal["patches", "features"] = Field(
        "patches",
        description="what the discriminator sees: px, or VGG's features through small heads (Sauer et al. 2021)",
    )
    shift: int = Field(0, ge=0, le=4, description="px by which pairs may be misaligned; costs (2 n + 1)^2 comparisons")
    vgg: str = Field("download", description="file with VGG19's first layers; download: torchvision's ImageNet weights")
    preprocessing: Literal["torchvision", "caffe"] = Field("torchvision", description="what these weights expect")
    segnet: str = Field("segnet", description="weights that label face parts, for part_match")


class StudentRecipe(Recipe):
    """A small fast generator taught by pairs: a photo and what a teacher drew of it, in files of one name.

    What AnimeGANv3 and other fast face filters do: any slow method draws, a small net learns its answers (distillation;
    Hinton et al. 2015). Not a system of the five papers.
    """

    Scene = StudentScene
    Params = StudentParams
    phases = (Phase("G", ("ab",)), Phase("D", ("d",), reuse=("fake", "features")))
    presets = {
        "student": {},
        "student-small": {"params": {"width": 16}},
        "student-large": {"params": {"width": 48, "blocks": 4}},
    }
    defaults = {
        "data": {"size": 256, "batch": 8},
        "optim": {"lr": 1e-3, "betas": [0.5, 0.99]},
        "run": {"steps": 20000, "ema": 0.998, "save_every": 1000},
    }
    sizes = (32, 16)
    exports = ("ab",)
    directions = ("b",)
    multiple = 16

    def open(self, data: Data) -> Layout:
        return open_pairs(data)

    def load_size(self, size: int) -> int:
        """Crop from 1.06 times the size: the faces are framed already."""
        return round(size * 1.06)

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        judge: nn.Module = PatchDiscriminator(p.d_width)
        if p.judge == "features":
            judge = nn.ModuleDict({name: FeatureHead(channels(name), 4 * p.d_width, 1) for name in LAYERS})
        return {"ab": Student(p.width, p.blocks), "d": judge}

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        p, found = self.params, dict[str, nn.Module]()
        if "perceptual" in terms or (p.judge == "features" and {"judge", "adversarial"} & set(terms)):
            found["trunk"] = Trunk(pretrained.vgg("vgg19", LAYERS, p.vgg, p.preprocessing))
        if "part_match" in terms:
            found["parts"] = Parts(load(p.segnet))
        return found

    def lr_factor(self, clock: Progress) -> float:
        """Rise over 100 steps, stay, fall to zero over the last half of the run."""
        return warmup_flat_linear(clock)

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        return nets.ab(x)
