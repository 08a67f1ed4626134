"""An example of a recipe in one file: CycleGAN whose cycle is judged on blurred images, so that details may change.

    facekit train examples/blur_cycle.py --data selfie2anime/ --size 128

A subclass takes over everything that it does not mention; here one term is redefined, and it has its own weight.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from facekit.ops.losses import l1
from facekit.recipe_api.base import term
from facekit.recipes.cyclegan import CycleGAN, CycleScene


class BlurScene(CycleScene):
    """CycleGAN's scene with another cycle term."""

    @term("G", 20)
    def cycle(self) -> Tensor:
        """Translating back reconstructs the image up to its details: L1 on images blurred by 4 px."""
        there_and_back = l1(F.avg_pool2d(self.nets.ba(self.fake_b), 4), F.avg_pool2d(self.a, 4))
        return there_and_back + l1(F.avg_pool2d(self.nets.ab(self.fake_a), 4), F.avg_pool2d(self.b, 4))


class BlurCycle(CycleGAN):
    """CycleGAN with a blurred cycle: an example of a user-defined recipe."""

    Scene = BlurScene
    presets: ClassVar = {"blur-cycle": {}}
