"""StyleGAN2 turned to drawings on little hardware: fine-tuned under discriminators on frozen features."""

from __future__ import annotations

from .stylegan2 import WIDTHS
from .stylegan2_freeze import FineTunes, StructureScene, TuneParams
from .stylegan2_projected import ProjectedStyleGAN2, ProjectedStyleParams, ProjectedStyleScene


class ProjectedStructureScene(StructureScene, ProjectedStyleScene):
    """Drawings `a`; heads on the frozen trunk judge `g`, and `source` holds its layout."""


class ProjectedStructureParams(TuneParams, ProjectedStyleParams):
    """Parameters of stylegan2-projected-structure."""


class ProjectedStructure(FineTunes, ProjectedStyleGAN2):
    """A trained StyleGAN2 fine-tuned to drawings, judged as `stylegan2-projected` is: `--init` names its run.

    After Back 2021 (Cartoon-StyleGAN) and Sauer et al. 2021 (Projected GANs); that the two go together is our own
    choice. The heads start from those of the base where it has some, and see the same trunk; the generator starts from
    the averaged weights, those that `facekit sample` draws with. Layers of low resolution and the mapping can be
    frozen, and a structure loss holds the layout.
    """

    Scene = ProjectedStructureScene
    Params = ProjectedStructureParams
    presets = {"stylegan2-projected-structure": {}}
    defaults = {
        "data": {"size": 64, "batch": 16},
        "params": {"style_width": 128, "mapping_layers": 4, "multiplier": 0.25, "width": 128, "mixing": 0.0,
                   "freeze_mapping": True},
        "losses": {"path_length": 0},
        "optim": {"lr": 2e-3, "betas": [0.0, 0.99]},
        "run": {"steps": 2000, "ema": 0.99, "save_every": 200},
    }  # fmt: skip
    inherits = (*WIDTHS, "head_width", "vgg", "preprocessing")
    starts_averaged = True
