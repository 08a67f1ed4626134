"""What tests are made of: small pictures, folders of them, and a method so small that a step takes milliseconds.

The method can be trained from the command line too: `facekit train tests/toy.py`.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw
from pydantic import Field
from torch import Tensor, nn

from facekit.ops.losses import l1, lsgan
from facekit.recipe_api import base
from facekit.recipe_api.base import Phase, Recipe, Scene, term, view
from facekit.storage import images
from facekit.storage.folder import Source
from facekit.storage.manifest import Output

FILE = Path(__file__)


def picture(size: int = 16, seed: int = 0) -> Image.Image:
    """A soft coloured picture, different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def fill(path: Path, count: int, size: int = 16, seed: int = 0) -> Path:
    """Write `count` pictures into a folder."""
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture(size, 1000 * seed + i).save(path / f"{i:03d}.png")
    return path


def domains(root: Path, count: int = 12, size: int = 16) -> Path:
    """Write trainA/ and trainB/ (one picture more) under `root`."""
    fill(root / "trainA", count, size, 1)
    fill(root / "trainB", count + 1, size, 2)
    return root


def turn(source: Source) -> list[Output]:
    """Turn an image upside down: work for a folder_map."""
    image = images.read(source.path)
    name = source.name.rpartition(".")[0] + ".png"
    return [Output(name, images.encode(image.rotate(180)), {"width": image.width})]


class ToyScene(Scene):
    """`ab` translates a to b, `d` judges; `calls` counts how often terms and views are computed."""

    calls: ClassVar[dict[str, int]] = {}

    def count(self, name: str) -> None:
        """Note that something was computed."""
        self.calls[name] = self.calls.get(name, 0) + 1

    @view
    def fake(self) -> Tensor:
        """The translation of a."""
        self.count("fake")
        return self.nets.ab(self.a)

    @view
    def same(self) -> Tensor:
        """The translation of b, which only the term `identity` uses."""
        self.count("same")
        return self.nets.ab(self.b)

    @term("G")
    def adversarial(self) -> Tensor:
        """The translation passes for real."""
        return lsgan(self.nets.d(self.fake), True)

    @term("G", 5)
    def identity(self) -> Tensor:
        """An image of b stays as it is."""
        return l1(self.same, self.b)

    @term("G", 2)
    def noise(self) -> Tensor:
        """Draws random numbers, so that a resume must restore the generator's state."""
        return (self.fake * torch.randn_like(self.fake)).mean()

    @term("D")
    def judge(self) -> Tensor:
        """Tell real from translated."""
        return lsgan(self.nets.d(self.b), True) + lsgan(self.nets.d(self.fake), False)


class ToyParams(base.Params):
    """Parameters of toy."""

    width: int = Field(4, ge=1, description="channels")


class Toy(Recipe):
    """A tiny method for tests."""

    Scene = ToyScene
    Params = ToyParams
    phases = (Phase("G", ("ab",)), Phase("D", ("d",), reuse=("fake",)))
    presets = {"toy": {}}
    defaults = {"data": {"size": 16, "batch": 2}, "run": {"steps": 6, "save_every": 2, "log_every": 1, "ema": 0.5}}
    exports = ("ab",)
    directions = ("b",)

    def load_size(self, size: int) -> int:
        """Room for a random crop."""
        return size + 2

    def nets(self) -> dict[str, nn.Module]:
        width = self.params.width
        ab = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())
        d = nn.Sequential(nn.Conv2d(3, width, 4, 2), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 4, 2))
        return {"ab": ab, "d": d}

    def translate(self, nets: nn.ModuleDict, x: Tensor, to: str) -> Tensor:
        return nets["ab"](x)


def drawing(width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    """Flat coloured shapes with dark outlines, some of them cut by the border."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), (250, 240, 255))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, r = rng.integers(0, width), rng.integers(0, height), rng.integers(4, 24)
        draw.ellipse((x - r, y - r, x + r, y + r), tuple(rng.integers(0, 256, 3).tolist()), (20, 10, 30), 2)
    return np.asarray(image)
