"""StarGAN, and what Rao et al. add to it for expressions: decoder control, a mask, the contextual loss."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..errors import CardError
from ..nets import pretrained as helpers
from ..nets.blocks import initialise
from ..nets.expression import AttentionNetwork, ControlledGenerator, MaskedGenerator
from ..nets.stargan import StarGANDiscriminator, StarGANGenerator
from ..nets.vgg import EXPECTED, Preprocessing, layer_names
from ..ops.contextual import contextual, points
from ..ops.losses import gradient_penalty, l1, variation, wasserstein_d, wasserstein_g, wide
from ..recipe_api.base import Phase, Progress, term, view
from ..recipe_api.labelled import Labelled, LabelledParams, LabelledScene
from ..recipe_api.schedules import flat_then_linear
from ..runtime import console

CONTROLS = 64  # labels whose control information is computed at once


def misjudged(logits: Tensor, label: Tensor, single: bool) -> Tensor:
    """Return how far logits [N, K] are from labels [N, K]: cross-entropy where an image has one label.

    Where it has any number of them: binary cross-entropy, summed over the labels, mean over the images.
    """
    logits = wide(logits)
    if single:
        return F.cross_entropy(logits, label)
    return F.binary_cross_entropy_with_logits(logits, label, reduction="sum") / len(logits)


class StarGANScene(LabelledScene):
    """`g` translates images to labels, `d` judges images and predicts their labels."""

    @view
    def drawn(self) -> tuple[Tensor, Tensor]:
        """The translations to the target labels, and the mask of where they were drawn."""
        return self.nets.g(self.image, self.nets.g.control(self.target))

    @view
    def fake(self) -> Tensor:
        """The translations."""
        return self.drawn[0]

    @view
    def judged_real(self) -> tuple[Tensor, Tensor]:
        """What the discriminator makes of the images."""
        return self.nets.d(self.image)

    @view
    def judged_fake(self) -> tuple[Tensor, Tensor]:
        """What the discriminator makes of the translations."""
        return self.nets.d(self.fake)

    @view
    def between(self) -> Tensor:
        """A random point between each image and its translation, in 32 bits."""
        share = torch.rand(len(self.image), 1, 1, 1, device=self.image.device, dtype=wide(self.image).dtype)
        return torch.lerp(wide(self.fake), wide(self.image), share).detach().requires_grad_()

    @view
    def contexts(self) -> tuple[Tensor, Tensor]:
        """VGG's features of the translations and of the images, in the same places: [N, P, C]."""
        p = self.params
        with torch.no_grad():
            real = self.helpers.vgg(self.image)[p.layer]
        made, wanted = points(self.helpers.vgg(self.fake)[p.layer], real, most=p.positions)
        return made, wanted

    @term("D")
    def judge(self) -> Tensor:
        """Rate images above translations: mean D(fake) - mean D(real), as Wasserstein GANs do (Choi et al., eq. 8)."""
        return wasserstein_d(self.judged_real[0], self.judged_fake[0])

    @term("D")
    def classify_real(self) -> Tensor:
        """Predict an image's labels: cross-entropy (Choi et al., eq. 2; Rao et al., eq. 11)."""
        return misjudged(self.judged_real[1], self.x_label, self.params.single)

    @term("D", 10)
    def penalty(self) -> Tensor:
        """Between images and translations the gradient of D has length 1 (Gulrajani et al. 2017; Rao et al., eq. 10).

        As in the authors' code, it is the gradient of the sum of the patches, not of their mean.
        """
        with torch.autocast("cpu" if self.x.is_meta else self.x.device.type, enabled=False):
            return gradient_penalty(self.nets.d(self.between)[0].flatten(1).sum(1, keepdim=True), self.between)

    @term("G")
    def adversarial(self) -> Tensor:
        """The discriminator rates translations highly: -mean D."""
        return wasserstein_g(self.judged_fake[0])

    @term("G")
    def classify(self) -> Tensor:
        """A translation has its target's labels: cross-entropy (Choi et al., eq. 3; Rao et al., eq. 12)."""
        return misjudged(self.judged_fake[1], self.target, self.params.single)

    @term("G", 10)
    def cycle(self) -> Tensor:
        """Translating back to its own labels reconstructs the image: L1 (Choi et al., eq. 4)."""
        return l1(self.nets.g(self.fake, self.nets.g.control(self.x_label))[0], self.image)

    @term("G", 0)
    def contextual(self) -> Tensor:
        """A translation has its image's VGG features at any place: contextual loss (Rao et al., eq. 13)."""
        return contextual(*self.contexts, self.params.bandwidth)

    @term("G", 0)
    def mask_size(self) -> Tensor:
        """Little of the image changes: mean of the mask, 1 everywhere without params.mask (not in the paper)."""
        return wide(self.drawn[1]).mean()

    @term("G", 0)
    def mask_variation(self) -> Tensor:
        """The mask is smooth: mean squared difference of neighbouring px, halved (not in the paper)."""
        return variation(self.drawn[1])


class StarGANParams(LabelledParams):
    """Parameters of stargan and expression."""

    control: Literal["planes", "adain"] = Field(
        "planes", description="how labels come in: planes beside the image, or mapped into the decoder's norms"
    )
    mask: bool = Field(False, description="an attention mask limits where the image changes")
    width: int = Field(64, ge=1, description="channels of the generator at full size")
    blocks: int = Field(6, ge=0, description="residual blocks of the generator")
    control_width: int = Field(256, ge=1, description="length of the control information, N (adain)")
    mapping_width: int = Field(512, ge=1, description="neurons of the mapping network's layers (adain)")
    d_width: int = Field(64, ge=1, description="channels of the discriminator's first layer")
    d_layers: int = Field(6, ge=3, description="halvings of the discriminator; 2^d_layers divides the size")
    d_init: Literal["torch", "he"] = Field(
        "torch",
        description="initialisation of the discriminator: torch (the authors'), or he: learns labels sooner",
    )
    critic_steps: int = Field(5, ge=1, description="steps of the discriminator per step of the generator")
    schedule: Literal["linear", "stargan_literal"] = Field(
        "linear", description="of the rate's second half: to 0, as said; or by 0.1 %, as the authors' code does"
    )
    vgg: str = Field("download", description="file with VGG19 up to `layer`; download: ImageNet weights (contextual)")
    layer: str = Field("relu4_2", description="of VGG19, whose features are compared (contextual)")
    preprocessing: Preprocessing = Field("torchvision", description=EXPECTED)
    bandwidth: float = Field(
        0.5, gt=0, description="h: bandwidth of the similarity; smaller: only close matches count (contextual)"
    )
    positions: int = Field(
        65 * 65, ge=2, description="maximum number of positions compared; more are sampled at random (contextual)"
    )


class StarGAN(Labelled):
    """StarGAN (Choi et al. 2018), and with control, mask and contextual loss the expressions of Rao et al.

    The paper's Table 1 has decoder control and mask each added to the baseline alone, then both without the contextual
    loss, then all: stargan, stargan-control, stargan-mask, expression with losses.contextual 0, expression.
    """

    Scene = StarGANScene
    Params: ClassVar[type[LabelledParams]] = StarGANParams
    phases = (
        Phase("D", ("d",)),
        Phase("G", ("g",), every=5, reuse=("image", "target"), precompute=("image", "target", "fake")),
    )
    presets = {
        "stargan": {},
        "stargan-control": {"params": {"control": "adain"}},
        "stargan-mask": {"params": {"mask": True}},
        "expression": {
            "params": {"control": "adain", "mask": True},
            "losses": {"cycle": 0, "contextual": 0.1},
        },
    }
    defaults = {
        "data": {"size": 128, "batch": 16},
        "optim": {"lr": 1e-4, "betas": [0.5, 0.999]},
        "run": {"steps": 200000, "save_every": 5000},
    }
    exports = ("g",)

    def __init__(self, params: Any = None, size: int = 128):
        super().__init__(params, size)
        first, second = type(self).phases
        self.phases = (first, replace(second, every=self.params.critic_steps))  # type: ignore[misc]
        self.masks = self.params.mask
        halved = 2**self.params.d_layers
        self.sizes = (max(halved, 2 * self.reduction), halved)

    @property
    def reduction(self) -> int:
        """How many px of an image, down and across, are one place of the VGG layer that is looked at."""
        names = layer_names("vgg19")
        above = names[: names.index(self.params.layer) + 1] if self.params.layer in names else []
        return 2 ** sum(name.startswith("pool") for name in above)

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        judge = StarGANDiscriminator(self.labels, self.size, p.d_width, p.d_layers)
        if p.d_init == "he":
            initialise(judge, nn.init.kaiming_normal_)
        painter: Any
        if p.control == "planes":
            painter = StarGANGenerator(self.labels, p.width, p.blocks)
        else:
            painter = ControlledGenerator(self.labels, p.width, p.blocks, p.control_width, p.mapping_width)
        return {
            "g": MaskedGenerator(painter, AttentionNetwork(p.width, p.blocks)) if p.mask else painter,
            "d": judge,
        }

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        if "contextual" not in terms:
            return {}
        p = self.params
        net = helpers.vgg("vgg19", (p.layer,), p.vgg, p.preprocessing)
        places = (self.size // self.reduction) ** 2
        if places > p.positions and next(net.parameters()).device.type != "meta":
            console.note(f"contextual: compares {p.positions} of the {places} places of {p.layer}, drawn at random")
        return {"vgg": net}

    def lr_factor(self, clock: Progress) -> float:
        """Flat for half of the run, then linearly to 0.

        "stargan_literal" is what the authors' code computes: a step of the linear fall, but at every 1000th only.
        """
        if self.params.schedule == "linear":
            return flat_then_linear(clock.progress)
        flat = clock.steps // 2
        return 1 - max(0, clock.step // 1000 - flat // 1000) / max(1, clock.steps - flat)

    def control(self, nets: Any, x: Tensor, to: str, strength: float, source: Sequence[str] | None = None) -> Tensor:
        """Return the control information of labels `to` for images x, blended with the mean of all labels'.

        Attributes are blended with those that the images have instead.
        """
        own = nets.g.control(self.vector(to, x, source))
        if self.needs_source:
            if source is None:
                hint = "--from Young+Male, --labels FILE or --classifier WEIGHTS; in Python: source=['Young+Male']"
                raise CardError("these weights keep the attributes that a face has, so they must know these", hint)
            has = x.new_tensor([self._row(labels.split("+")) for labels in source])
            return torch.lerp(nets.g.control(has), own, strength)
        return own if strength == 1 else torch.lerp(self._mean_control(nets, own), own, strength)

    def _mean_control(self, nets: Any, like: Tensor) -> Tensor:
        """Return the mean of all labels' control information, [1, N], a few labels at a time."""
        total = torch.zeros_like(like[:1])
        for some in torch.arange(self.labels, device=like.device).split(CONTROLS):
            total += nets.g.control(F.one_hot(some, self.labels).to(like)).sum(0, keepdim=True)
        return total / self.labels

    @property
    def needs_source(self) -> bool:
        """Attributes that are not asked for stay as they are: so they must be known."""
        return self.combines

    def translate(
        self, nets: Any, x: Tensor, to: str, strength: float = 1.0, source: Sequence[str] | None = None
    ) -> Tensor:
        """Translate x to a label; at a strength of 0 to the mean of all labels, over 1 beyond the label.

        With attributes, `to` are those to change, joined by +, and `source` those of each image, which stay otherwise:
        see `vector`. A strength of 0 then keeps the image's own.
        """
        return nets.g(x, self.control(nets, x, to, strength, source))[0]

    def seen_labels(self, nets: Any, x: Tensor) -> list[str]:
        """Return the labels that the discriminator sees in images x, where it is at hand: in training."""
        if "d" not in nets:
            return super().seen_labels(nets, x)
        seen = nets.d(x)[1] > 0
        return ["+".join(k for k, has in zip(self.params.labels, row, strict=True) if has) for row in seen]

    def mask(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Return where x changes, [N, 1, H, W] in [0, 1], the same for every label; CardError without params.mask."""
        if not self.params.mask:
            raise CardError("these weights have no attention mask", "train with --set params.mask=true")
        return nets.g.attention(x)

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        columns = super().preview(nets, x, to)
        if self.params.mask:
            columns["mask"] = self.mask(nets, x, to).expand_as(x) * 2 - 1
        return columns
