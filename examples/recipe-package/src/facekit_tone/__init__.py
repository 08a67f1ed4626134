"""The recipe tone: photos get the colours of drawings by one matrix for all pixels, so no shape can change."""

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from facekit.nets.patchgan import PatchDiscriminator
from facekit.ops.losses import l1, lsgan
from facekit.recipe_api import base
from facekit.recipe_api.adversarial import lsgan_d
from facekit.recipe_api.base import Phase, Recipe, Scene, term, view


class ToneScene(Scene):
    """A batch of photos `a` and drawings `b`, [N, 3, S, S] in [-1, 1]; `ab` colours, `d` judges."""

    @view
    def fake(self) -> Tensor:
        """The coloured photos: computed once, for all terms."""
        return self.nets.ab(self.a)

    @term("G")
    def adversarial(self) -> Tensor:
        """Coloured photos pass for drawings: LSGAN (Mao et al. 2017, eq. 9)."""
        return lsgan(self.nets.d(self.fake), True)

    @term("G", 1)
    def keep(self) -> Tensor:
        """The colours stay near those of the photo: L1."""
        return l1(self.fake, self.a)

    @term("D")
    def judge(self) -> Tensor:
        """Tell drawings from coloured photos: LSGAN."""
        return lsgan_d(self.nets.d, self.b, self.fake)


class Colours(nn.Module):
    """One colour matrix and shift for all pixels: [N, 3, H, W] to the same; it starts as the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        nn.init.eye_(self.mix.weight.data[:, :, 0, 0])
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x).clamp(-1, 1)


class ToneParams(base.Params):
    """Parameters of tone."""

    d_width: int = Field(32, ge=1, description="channels of the discriminator's first layer")


class Tone(Recipe):
    """Tone: the colours of drawings for photos, with no change of shape."""

    Scene = ToneScene
    Params = ToneParams
    phases = (Phase("G", ("ab",)), Phase("D", ("d",), reuse=("fake",)))
    presets = {"tone": {}}
    defaults = {
        "data": {"size": 64, "batch": 4},
        "optim": {"lr": 2e-3, "betas": [0.5, 0.999]},
        "run": {"steps": 2000, "save_every": 500},
    }
    sizes = (32, 4)
    exports = ("ab",)
    directions = ("b",)

    def nets(self) -> dict[str, nn.Module]:
        """Build the nets by name."""
        return {"ab": Colours(), "d": PatchDiscriminator(self.params.d_width)}

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        """Colour photos x; the only domain to translate to is b."""
        return nets.ab(x)
