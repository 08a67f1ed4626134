"""The face-part segmenter that `ugatit-face` and `score-fid` use, trained like any other network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..data.dataset import Layout, spread
from ..data.face_masks import FACE_PARTS, open_masks
from ..errors import InputError
from ..nets import pretrained
from ..nets.segnet import UNet, VGGSegmenter
from ..ops import augment
from ..ops.losses import dice, l1, wide
from ..recipe_api import base
from ..recipe_api.base import Phase, Progress, Recipe, Scene, term, view
from ..reports import contact_sheet
from ..runtime import console
from ..storage import images
from ..storage.card import Data

COLOURS = ((0, 0, 0), (240, 190, 150), (120, 80, 200), (40, 150, 240), (240, 220, 60), (230, 60, 70))  # of FACE_PARTS


class SegmentScene(Scene):
    """A batch of photos `a` and their label maps `a_mask`."""

    @view
    def seen(self) -> tuple[Tensor, Tensor]:
        """Photos and label maps, turned, scaled and moved alike; light and sharpness of the photos vary."""
        p = self.params
        photo, labels = self.moved
        return augment.coarse(augment.lighting(photo, p.lighting), p.coarse), labels

    @view
    def moved(self) -> tuple[Tensor, Tensor]:
        """Photos and label maps, turned, scaled and moved alike."""
        p = self.params
        if not p.warp:
            return self.a, self.a_mask
        grid = augment.affine_grid(self.a, 25 * p.warp, 0.25 * p.warp, 0.12 * p.warp)
        photo = F.grid_sample(self.a, grid, "bilinear", "reflection", align_corners=False)
        labels = F.grid_sample(self.a_mask[:, None].to(self.a), grid, "nearest", "reflection", align_corners=False)
        return photo, labels[:, 0].long()

    @view
    def logits(self) -> Tensor:
        """The logits of each pixel, [N, classes, S, S]."""
        return wide(self.nets.net(self.seen[0]))

    @term("S")
    def cross_entropy(self) -> Tensor:
        """Each pixel's class: cross-entropy."""
        return F.cross_entropy(self.logits, self.seen[1])

    @term("S")
    def dice(self) -> Tensor:
        """Each class as a region, small ones as heavy as large ones: soft Dice."""
        return dice(self.logits.softmax(1), self.seen[1])

    @term("S", 0)
    def image(self) -> Tensor:
        """The paper's own loss: L1 between the predicted segmentation image and the annotation image, in colours."""
        return l1(paint(self.logits.softmax(1)), paint(F.one_hot(self.seen[1], self.logits.shape[1]).movedim(-1, 1)))


class SegmentParams(base.Params):
    """Parameters of segnet."""

    trunk: Literal["unet", "vgg16", "vgg19"] = Field("unet", description="a small U-Net, or VGG with a light decoder")
    width: int = Field(16, ge=1, description="channels: of the U-Net at full size, of VGG's decoder")
    batch_norm: bool = Field(True, description="VGG with batch norm")
    weights: str = Field("none", description="VGG's initial weights: none, download (ImageNet) or a file")
    parts: Literal["face", "all"] = Field("face", description="CelebAMask-HQ: grouped to six classes, or all 19")
    classes: tuple[str, ...] = Field(FACE_PARTS, description="the classes' names; taken from the data")
    warp: float = Field(1.0, ge=0, description="how much photos are turned, scaled and moved")
    lighting: float = Field(0.6, ge=0, le=1, description="how much the photos' light is varied")
    coarse: float = Field(0.0, ge=0, le=1, description="share of photos shown as enlarged from 16 px on")


class SegNet(Recipe):
    """Face-part segmentation after Kang 2020 (section 3.2): VGG trunk or U-Net, trained on photos with masks."""

    Scene = SegmentScene
    Params = SegmentParams
    phases = (Phase("S", ("net",)),)
    presets = {
        "segnet": {},
        "segnet-vgg": {"params": {"trunk": "vgg16", "width": 64}},
        "segnet-paper": {
            "params": {"trunk": "vgg16", "width": 64, "batch_norm": False, "weights": "download"},
            "losses": {"cross_entropy": 0, "dice": 0, "image": 1},
        },
    }
    defaults = {
        "data": {"size": 128, "batch": 16},
        "optim": {"lr": 2e-3, "betas": [0.9, 0.999]},
        "run": {"steps": 20000, "save_every": 1000, "ema": 0.99},
    }
    sizes = (32, 16)
    exports = ("net",)
    directions = ("b",)
    multiple = 16
    controls = ()

    def open(self, data: Data) -> Layout:
        return open_masks(data, self.params.parts)

    def blank(self, batch: int, size: int) -> dict[str, Tensor]:
        return {"a": torch.empty(batch, 3, size, size), "a_mask": torch.empty(batch, size, size, dtype=torch.long)}

    def nets(self) -> dict[str, nn.Module]:
        p = self.params
        if p.trunk == "unet":
            return {"net": UNet(len(p.classes), p.width)}
        net = VGGSegmenter(len(p.classes), p.trunk, p.batch_norm, p.width)
        if p.weights != "none" and net.head.weight.device.type != "meta":
            pretrained.load_trunk(net.features, p.weights, f"{p.trunk}_bn" if p.batch_norm else p.trunk)
        return {"net": net}

    def lr_factor(self, clock: Progress) -> float:
        """Rise over 50 steps, then fall to zero: (1 - t)^0.9."""
        return min(1.0, (clock.step + 1) / 50) * (1 - clock.progress) ** 0.9

    def probabilities(self, nets: Any, x: Tensor) -> Tensor:
        """Return how likely each class is at each pixel of x ([N, 3, H, W] in [-1, 1]): [N, classes, H, W]."""
        return wide(nets.net(x)).softmax(1)

    def label(self, nets: Any, x: Tensor) -> Tensor:
        """Return each pixel's most likely class, [N, H, W]: indices of `params.classes`."""
        return nets.net(x).argmax(1)

    def translate(self, nets: Any, x: Tensor, to: str) -> Tensor:
        return paint(F.one_hot(self.label(nets, x), len(self.params.classes)).movedim(-1, 1)).to(x)

    def preview(self, nets: Any, x: Tensor, to: str) -> dict[str, Tensor]:
        parts = self.translate(nets, x, to)
        return {"translation": parts, "overlay": 0.5 * x + 0.5 * parts}

    def finish(self, nets: Any, layout: Layout, folder: Path) -> dict[str, Any]:
        """Return mean IoU and IoU per class over all pixels of the test photos; write `overlays.png`."""
        classes = self.params.classes
        both, either = torch.zeros(len(classes)), torch.zeros(len(classes))
        shown, rows = set(spread(layout.test["a"], 32)), []
        seen = 0
        for path in layout.test["a"]:
            try:
                sample = layout.readers["a"].read(path, self.size)
            except InputError as error:
                console.warn(f"{error.message}; not scored")
                continue
            parameter = next(nets.parameters())
            x = images.from_bytes(sample["a"][None]).to(parameter)
            found, truth = self.label(nets, x)[0].cpu(), torch.from_numpy(sample["a_mask"].astype(int))
            one, other = (F.one_hot(labels, len(classes)).movedim(-1, 0).bool() for labels in (found, truth))
            both += (one & other).sum((1, 2))
            either += (one | other).sum((1, 2))
            seen += 1
            if path in shown:
                painted = [paint(labels[None].to(x))[0] for labels in (other, one)]
                cells = (x[0], *painted, 0.5 * x[0] + 0.5 * painted[1])
                rows.append([images.to_image(cell) for cell in cells])
        if not seen:
            return {}
        contact_sheet.save_sheet(
            folder / "overlays.png", rows, titles=["photo", "annotated", "found", "overlay"], groups=2
        )
        iou = {name: round(float(b / e), 4) for name, b, e in zip(classes, both, either, strict=True) if e}
        of_face = [value for name, value in iou.items() if name != "background"]
        return {"test_images": seen, "mean_iou": round(sum(of_face) / max(len(of_face), 1), 4), "iou": iou}


def paint(shares: Tensor) -> Tensor:
    """Return shares of classes [N, C, H, W] as colours [N, 3, H, W] in [-1, 1]; each class has its own."""
    count = shares.shape[1]
    more = [[(index * step) % 256 for step in (67, 131, 29)] for index in range(len(COLOURS), count)]
    palette = torch.tensor([*COLOURS, *more][:count]).to(shares.device, non_blocking=True).div(127.5).sub(1)
    return torch.einsum("nchw,cd->ndhw", shares.to(palette.dtype), palette)
