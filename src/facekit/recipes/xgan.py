"""XGAN: two auto-encoders that share their inner layers, so that both domains have one embedding."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import CardError
from ..nets.face_embedding import Face
from ..nets.xgan import EmbeddingClassifier, SmallDiscriminator, XGANGenerator, reversed_gradient
from ..ops.losses import binary, cosine_distance, l1, l2, lsgan
from ..recipe_api import base
from ..recipe_api.adversarial import lsgan_d, translate_both
from ..recipe_api.base import Phase, Recipe, Scene, term, view


class XGANScene(Scene):
    """`g` holds both auto-encoders; `domains` classifies embeddings; `match` maps them to the teacher's.

    e_1, e_2 and d_1, d_2 of the paper are g.encode and g.decode for the domains a and b.
    """

    @view
    def code_a(self) -> Tensor:
        """e_1(a): [N, features]."""
        return self.nets.g.encode(self.a, "a")

    @view
    def code_b(self) -> Tensor:
        """e_2(b)."""
        return self.nets.g.encode(self.b, "b")

    @view
    def inner(self) -> tuple[Tensor, Tensor]:
        """What the shared decoder makes of both: batch normalisation sees them together, as it will its averages."""
        of_a, of_b = self.nets.g.shared_decoder(torch.cat([self.code_a, self.code_b])).chunk(2)
        return of_a, of_b

    @view
    def drawn_a(self) -> tuple[Tensor, Tensor]:
        """d_1(e_2(b)), and d_1(e_1(a)) where a term uses it."""
        return translate_both(self.nets.g.decoders["a"], self.inner[1], self.inner[0], self.active("reconstruction"))

    @view
    def drawn_b(self) -> tuple[Tensor, Tensor]:
        """d_2(e_1(a)), and d_2(e_2(b)) where a term uses it."""
        return translate_both(self.nets.g.decoders["b"], self.inner[0], self.inner[1], self.active("reconstruction"))

    @view
    def fake_b(self) -> Tensor:
        """The translation of a: d_2(e_1(a))."""
        return self.drawn_b[0]

    @view
    def fake_a(self) -> Tensor:
        """The translation of b: d_1(e_2(b))."""
        return self.drawn_a[0]

    @property
    def reversal(self) -> float:
        """How strongly the encoders oppose the classifier: constant, or rising from 0 (Ganin et al. 2016)."""
        p = self.params
        return p.reversal * (2 / (1 + math.exp(-10 * self.progress)) - 1 if p.schedule == "dann" else 1)

    @term("G")
    def reconstruction(self) -> Tensor:
        """Each auto-encoder reconstructs its image: mean squared error."""
        return l2(self.drawn_a[1], self.a) + l2(self.drawn_b[1], self.b)

    @term("G", 0.7)
    def domain(self) -> Tensor:
        """`domains` learns to distinguish embeddings of a and b, the encoders to confuse it: gradient reversal."""
        codes = reversed_gradient(torch.cat([self.code_a, self.code_b]), self.reversal)
        of_a, of_b = self.nets.domains(codes).chunk(2)
        return binary(of_a, False) + binary(of_b, True)

    @term("G", 0.5)
    def semantic(self) -> Tensor:
        """A translation has the embedding of its image: L1."""
        keep = self.params.detach
        of_a, of_b = (code.detach() if keep else code for code in (self.code_a, self.code_b))
        return l1(self.nets.g.encode(self.fake_b, "b"), of_a) + l1(self.nets.g.encode(self.fake_a, "a"), of_b)

    @term("G")
    def adversarial_a(self) -> Tensor:
        """The translations of b pass for a: LSGAN."""
        return lsgan(self.nets.da(self.fake_a), True)

    @term("G")
    def adversarial_b(self) -> Tensor:
        """The translations of a pass for b: LSGAN."""
        return lsgan(self.nets.db(self.fake_b), True)

    @term("G", 0.75)
    def teacher(self) -> Tensor:
        """The embedding of a photo matches a face network's: 1 - cosine, for domain a only."""
        with torch.no_grad():
            wanted = self.helpers.face(self.a)
        return cosine_distance(self.nets.match(self.code_a), wanted)

    @term("D")
    def judge_a(self) -> Tensor:
        """Tell real a from translations: LSGAN."""
        return lsgan_d(self.nets.da, self.a, self.fake_a)

    @term("D")
    def judge_b(self) -> Tensor:
        """Tell real b from translations: LSGAN."""
        return lsgan_d(self.nets.db, self.b, self.fake_b)


class XGANParams(base.Params):
    """Parameters of xgan."""

    width: int = Field(32, ge=1, description="channels of the encoders' first layer")
    features: int = Field(1024, ge=1, description="length of the embedding")
    d_width: int = Field(16, ge=1, description="channels of the discriminators' first layer")
    teacher: str = Field(
        "facefeat", description="face features: a name, run folder or file; an .onnx file; lightcnn-29v2:FILE"
    )
    teacher_features: int = Field(128, ge=1, description="length of the teacher's embedding")
    reversal: float = Field(1.0, ge=0, description="strength of the gradient reversal, lambda")
    schedule: Literal["constant", "dann"] = Field(
        "constant", description="of the reversal; dann: 2 / (1 + exp(-10 p)) - 1 at the share p of the run"
    )
    detach: bool = Field(False, description="the semantic loss moves the translation's embedding only")


class XGAN(Recipe):
    """XGAN: Royer et al., "XGAN: unsupervised image-to-image translation for many-to-many mappings" (2017).

    There is no code of the authors; layers and weights are those that three re-implementations agree on. The encoders'
    upper and the decoders' lower layers are the same objects for both domains.
    """

    Scene = XGANScene
    Params = XGANParams
    phases = (
        Phase("G", ("g", "domains", "match")),
        Phase("D", ("da", "db"), reuse=("fake_a", "fake_b")),
    )
    presets = {"xgan": {}}
    defaults = {
        "data": {"size": 64, "batch": 32},
        "optim": {"lr": 1e-4, "betas": [0.5, 0.999]},
        "run": {"steps": 50000, "save_every": 1000},
    }
    sizes = (32, 16)  # four halvings leave 2 px
    exports = ("g",)
    multiple = 0

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        return {
            "g": XGANGenerator(p.width, p.features, self.size),
            "domains": EmbeddingClassifier(p.features),
            "match": nn.Linear(p.features, p.teacher_features),
            "da": SmallDiscriminator(p.d_width, self.size),
            "db": SmallDiscriminator(p.d_width, self.size),
        }

    def helpers(self, load: Any, terms: Collection[str]) -> dict[str, nn.Module]:
        if "teacher" not in terms:
            return {}
        p = self.params
        face = Face(p.teacher, load).requires_grad_(False)
        found = face(torch.zeros(1, 3, self.size, self.size)).shape[1]
        if found != p.teacher_features:
            hint = f"--set params.teacher_features={found}"
            raise CardError(f"{p.teacher} gives {found} features, not {p.teacher_features}", hint)
        return {"face": face}

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        return nets.g.decode(nets.g.encode(x, "a" if to == "b" else "b"), to)

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        source = "a" if to == "b" else "b"
        code = nets.g.encode(x, source)
        return {"translation": nets.g.decode(code, to), "reconstruction": nets.g.decode(code, source)}
