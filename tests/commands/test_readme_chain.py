"""README's way from pictures to a trained model, as printed: photos and drawings that the test makes, two steps."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance
from safetensors.torch import save_file
from skimage.data import astronaut

from facekit.nets.vgg import VGG

README = Path(__file__).parents[2] / "README.md"


def drawing(seed: int) -> Image.Image:
    """A girl drawn with a few ellipses, in other colours for every seed."""
    rng, scale = np.random.default_rng(seed), 3

    def colour(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(v) for v in rng.integers(low, high, 3))

    image = Image.new("RGB", (256 * scale, 256 * scale), colour(150, 256))
    draw = ImageDraw.Draw(image)
    hair, iris = colour(20, 140), colour(20, 160)
    skin = tuple(v - int(rng.integers(60)) for v in (250, 215, 185))

    def oval(x, y, a, b, fill, line=0):
        box = [scale * v for v in (x - a, y - b, x + a, y + b)]
        draw.ellipse(box, fill=fill, outline=(30, 20, 20) if line else None, width=line * scale)

    oval(128, 118, 86, 92, hair)
    draw.rectangle([scale * v for v in (44, 118, 212, 230)], fill=hair)
    draw.polygon([scale * v for v in (100, 200, 156, 200, 200, 256, 56, 256)], fill=colour(60, 220))
    oval(128, 136, 62, 72, skin, 2)
    draw.pieslice([scale * v for v in (60, 50, 196, 170)], 180, 360, fill=hair)
    for x in (102, 154):
        oval(x, 140, 17, 20, (255, 255, 255), 2)
        oval(x, 143, 11, 15, iris)
        oval(x, 144, 5, 8, (10, 10, 10))
        oval(x - 4, 137, 4, 4, (255, 255, 255))
        draw.arc([scale * v for v in (x - 20, 108, x + 20, 132)], 200, 340, fill=(40, 20, 20), width=4 * scale)
    draw.line([scale * v for v in (128, 160, 125, 168, 130, 169)], fill=(120, 70, 60), width=2 * scale)
    draw.chord([scale * v for v in (110, 172, 146, 196)], 10, 170, fill=(190, 60, 70))
    return image.resize((256, 256), Image.Resampling.LANCZOS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder: photos/ of one face in several lights, drawings/ of six, and a net in place of VGG19."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "drawings"):
        Path(name).mkdir()
    face = Image.fromarray(astronaut()[0:300, 60:360])
    for number, turn in enumerate((-8, 0, 8, 15)):
        ImageEnhance.Brightness(face).enhance(0.7 + 0.2 * number).rotate(turn).save(f"photos/{number}.png")
    for seed in range(6):
        drawing(seed).save(f"drawings/{seed}.png")
    torch.manual_seed(0)
    save_file(VGG("vgg19", ("conv5_1",)).state_dict(), "vgg.safetensors")


@pytest.mark.slow
def test_its_commands_lead_to_a_model_that_translates(here, facekit):
    block = README.read_text(encoding="utf-8").partition("## Train your own")[2].partition("\n## ")[0]
    commands = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (facekit .*)$", block, re.M)]
    assert [words[0] for words in commands] == ["crawl", "align", "align", "clean", "train", "translate"]
    for words in commands[1:]:  # the pictures are here already
        more = ("--steps", 2, "--batch", 1, "--set", "params.vgg=vgg.safetensors") if words[0] == "train" else ()
        done = facekit(*words, *more)
        assert done.code == 0, f"{words}: {done.err}"
    assert len(list(Path("faces").glob("*.png"))) == 4 and len(list(Path("cut").glob("*.png"))) == 6
    assert len(list(Path("out").glob("*.png"))) == 4 and Path("out-sheet.png").exists()
