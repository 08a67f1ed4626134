"""Face2Anime (Girkin and Streltsov): CycleGAN with up to four more losses, one term each."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..nets import pretrained as helpers
from ..nets.blocks import Residual
from ..nets.face_embedding import Face
from ..nets.patchgan import PatchDiscriminator
from ..nets.resnet import ResnetGenerator
from ..nets.vgg import BLOCKS
from ..nets.xgan import MapClassifier, reversed_gradient
from ..ops.losses import direction_distance, gradient_penalty, l1, lsgan, wasserstein_d, wasserstein_g, wide
from ..recipe_api.base import Phase, term, view
from .cyclegan import CycleGAN, CycleParams, CycleScene

VGG_LAYERS = ("relu1_2", "relu2_2", "relu3_2", "relu4_2")


class Recogniser(nn.Module):
    """A frozen recognition net: images [N, 3, H, W] in [-1, 1] to features at several depths, shallow first.

    `source` is whatever `embedding.Face` takes (a net of recipe facefeat trained on drawings, an .onnx model), or
    `vgg19:FILE`, `vgg16:FILE`, `vgg19:download`. Of a net of any build the last feature map of each resolution is
    taken, and its embedding.
    """

    def __init__(self, source: str, load: Any):
        super().__init__()
        kind, _, file = source.partition(":")
        self.net: nn.Module
        if kind in BLOCKS and file:
            self.net = helpers.vgg(kind, VGG_LAYERS, file)
        else:
            self.net = Face(source, load)

    def forward(self, x: Tensor) -> list[Tensor]:
        alone = any(getattr(module, "alone", False) for module in self.modules())  # it takes one image at a time
        looks = [self.look(part) for part in (x.split(1) if alone else [x])]
        return [torch.cat(parts) for parts in zip(*looks, strict=True)]

    def look(self, x: Tensor) -> list[Tensor]:
        """Return the features of images that the net takes at once."""
        found: dict[torch.Size, Tensor] = {}

        def note(module: nn.Module, given: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.ndim == 4:
                found[out.shape[2:]] = out

        handles = [module.register_forward_hook(note) for module in self.net.modules()]
        try:
            out = self.net(wide(x))
        finally:
            for handle in handles:
                handle.remove()
        return list(out.values()) if isinstance(out, dict) else [*found.values(), out]


def halves(net: ResnetGenerator, share: float) -> tuple[nn.Sequential, nn.Sequential]:
    """Cut a generator in two, the encoder e and the rest: e ends after `share` of the residual blocks."""
    blocks = [index for index, layer in enumerate(net.layers) if isinstance(layer, Residual)]
    cut = blocks[0] + int(share * len(blocks))
    return net.layers[:cut], net.layers[cut:]


class Face2AnimeScene(CycleScene):
    """The scene of cyclegan, its generators cut into encoder and decoder; `domains` classifies their codes.

    e_AB and e_BA of the paper are the first halves of `ab` and `ba`; `wa` and `wb` are the Wasserstein critics.
    """

    def encode(self, net: nn.Module, x: Tensor) -> Tensor:
        """Return a generator's code of images: [N, 4 width, S/4, S/4]."""
        return halves(net, self.params.encoder_share)[0](x)  # type: ignore[arg-type]

    def decode(self, net: nn.Module, code: Tensor) -> Tensor:
        """Return the image that a generator makes of a code."""
        return halves(net, self.params.encoder_share)[1](code)  # type: ignore[arg-type]

    @view
    def code_a(self) -> Tensor:
        """e_AB(a)."""
        return self.encode(self.nets.ab, self.a)

    @view
    def code_b(self) -> Tensor:
        """e_BA(b)."""
        return self.encode(self.nets.ba, self.b)

    @view
    def towards_b(self) -> tuple[Tensor, Tensor]:
        """ab of a, by its code, and of b where the identity term needs it."""
        net = self.nets.ab
        return self.decode(net, self.code_a), net(self.b) if self.active("identity") else self.b

    @view
    def towards_a(self) -> tuple[Tensor, Tensor]:
        """ba of b, by its code, and of a where the identity term needs it."""
        net = self.nets.ba
        return self.decode(net, self.code_b), net(self.a) if self.active("identity") else self.a

    @view
    def code_fake_b(self) -> Tensor:
        """e_BA of the translation of a."""
        return self.encode(self.nets.ba, self.fake_b)

    @view
    def code_fake_a(self) -> Tensor:
        """e_AB of the translation of b."""
        return self.encode(self.nets.ab, self.fake_a)

    @term("G", 10)
    def cycle(self) -> Tensor:
        """Translating back reconstructs the image: L1, as in CycleGAN; the semantic term uses the same codes."""
        back_a, back_b = self.decode(self.nets.ba, self.code_fake_b), self.decode(self.nets.ab, self.code_fake_a)
        return l1(back_a, self.a) + l1(back_b, self.b)

    @term("G")
    def semantic(self) -> Tensor:
        """A translation has the code of its image: |e_AB(a) - e_BA(G_AB(a))|, and mirrored; L1 (L_sem)."""
        of_a, of_b = (c.detach() if self.params.detach else c for c in (self.code_a, self.code_b))
        return l1(self.code_fake_b, of_a) + l1(self.code_fake_a, of_b)

    @term("G")
    def domain(self) -> Tensor:
        """Codes of both domains look alike: D(e_AB(a))^2 + (D(e_BA(b)) - 1)^2, with its gradient reversed (L_dom).

        The paper prints that the classifier maximises this and the encoders minimise it. The loss is least where the
        classifier is right, so it is the other way round: here the classifier minimises, the encoders maximise.
        """
        codes = reversed_gradient(torch.cat([self.code_a, self.code_b]), self.params.reversal)
        of_a, of_b = self.nets.domains(codes).chunk(2)
        return lsgan(of_a, False) + lsgan(of_b, True)

    @term("G")
    def perceptual(self) -> Tensor:
        """A recognition network sees the same in a translation and its image: distance of features at many depths."""
        with torch.no_grad():
            real = self.helpers.recogniser(torch.cat([self.a, self.b]))
        made = self.helpers.recogniser(torch.cat([self.fake_b, self.fake_a]))
        if self.params.compare == "target":
            real = [x.roll(len(self.a), 0) for x in real]
        apart = [direction_distance(m, r) for m, r in zip(made, real, strict=True)]
        return 2 * torch.stack(apart).mean()  # of both directions

    @term("G", 0)
    def wasserstein(self) -> Tensor:
        """The critics rate both translations highly: -mean D (Arjovsky et al. 2017)."""
        return wasserstein_g(self.nets.wb(self.fake_b)) + wasserstein_g(self.nets.wa(self.fake_a))

    @term("D", 0)
    def critic(self) -> Tensor:
        """Rate real images above translations: mean D(fake) - mean D(real), for both domains."""
        return self.rated(self.nets.wa, self.a, self.fake_a) + self.rated(self.nets.wb, self.b, self.fake_b)

    def rated(self, net: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return minus the critic's estimate of the distance, real and fake in one pass."""
        return wasserstein_d(*net(torch.cat([real, fake])).chunk(2))

    @term("D", 0)
    def penalty(self) -> Tensor:
        """Between real and translated images the critics' gradients have length 1 (Gulrajani et al. 2017)."""
        return self.penalty_between(self.nets.wa, self.a, self.fake_a) + self.penalty_between(
            self.nets.wb, self.b, self.fake_b
        )

    def penalty_between(self, net: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the gradient penalty at a random point between each pair, in 32 bits."""
        with torch.autocast("cpu" if real.is_meta else real.device.type, enabled=False):
            share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=wide(real).dtype)
            x = torch.lerp(wide(fake), wide(real), share).detach().requires_grad_()
            return gradient_penalty(net(x), x)


class Face2AnimeParams(CycleParams):
    """Parameters of face2anime."""

    blocks: int = Field(9, ge=1, description="residual blocks: 9 at 256 px, 6 at 128 px")
    encoder_share: float = Field(0.5, ge=0, le=1, description="share of the residual blocks that belong to the encoder")
    detach: bool = Field(False, description="the semantic loss moves the translation's code only")
    reversal: float = Field(0.01, ge=0, description="strength of the domain loss's gradient reversal, lambda")
    recogniser: str = Field(
        "facefeat", description="perceptual features: a face net by name, run folder or file; .onnx; vgg19:download"
    )
    compare: Literal["source", "target"] = Field(
        "source", description="what the perceptual loss compares a translation with: its image, or one of its target"
    )
    critic_steps: int = Field(1, ge=1, description="steps of the discriminators and critics per step of the generators")


class Face2Anime(CycleGAN):
    """Face2Anime: Girkin, Streltsov (a proposal): CycleGAN plus semantic, domain, perceptual, Wasserstein.

    Each loss is a term. The Wasserstein critic is three of them (`wasserstein`, `critic`, `penalty`), to be dropped
    together; they have weight 0 in the preset face2anime and take the place of LSGAN in face2anime-critic.
    """

    Scene = Face2AnimeScene
    Params = Face2AnimeParams
    phases = (
        Phase("G", ("ab", "ba", "domains")),
        Phase("D", ("da", "db", "wa", "wb"), reuse=("fake_a", "fake_b")),
    )
    presets = {
        "face2anime": {},
        "face2anime-critic": {
            "losses": {
                "adversarial": 0,
                "judge_a": 0,
                "judge_b": 0,
                "wasserstein": 1,
                "critic": 1,
                "penalty": 10,
            },
        },
    }

    def __init__(self, params: Any = None, size: int = 256):
        super().__init__(params, size)
        if self.params.critic_steps > 1:
            first, second = type(self).phases
            turn = Phase(first.name, first.nets, every=self.params.critic_steps)
            self.phases = (turn, second)  # type: ignore[misc]

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        return {
            **super().nets(),
            "domains": MapClassifier(4 * p.width, p.d_width),
            "wa": PatchDiscriminator(p.d_width),
            "wb": PatchDiscriminator(p.d_width),
        }

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        if "perceptual" not in terms:
            return {}
        return {"recogniser": Recogniser(self.params.recogniser, load)}
