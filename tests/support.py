"""Helpers that tests of several rooms share: nets to compute by hand, recipes at their smallest, an npm package."""

import io
import tarfile
import time

import numpy as np
import torch
from torch import nn

from facekit.errors import CardError
from facekit.inference import web_runtime
from facekit.recipe_api import registry
from facekit.storage import card
from facekit.training.loop import train_step


class Mean(nn.Module):
    """Judges an image by its mean."""

    def forward(self, x):
        return x.mean((1, 2, 3), keepdim=True)


class Same(nn.Module):
    """A generator that changes nothing, or shifts."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x):
        return x + self.shift


class Names(dict):
    """A dictionary whose entries are attributes, too."""

    __getattr__ = dict.__getitem__


def moved(learner, clock, size=32):
    """Take one step of a method that learns from smoothed drawings; return its losses and the nets that changed."""
    before = {k: v.clone() for k, v in learner.nets.named_parameters()}
    torch.manual_seed(0)
    batch = [{name: torch.rand(2, 3, size, size) * 2 - 1 for name in ("a", "b", "b_smooth")}]
    found = train_step(learner, batch, clock)
    return found, {k.split(".")[0] for k, v in learner.nets.named_parameters() if not torch.equal(v, before[k])}


def small(name: str) -> card.TrainCard:
    """A card of the recipe at its smallest size, 8 channels wide, one block deep, every phase in every step."""
    kind, preset = registry.find(name)
    merged = card.merge(kind.defaults, preset)
    params = dict(merged.get("params", {}))
    for field in kind.Params.model_fields:
        if field.endswith("width"):
            params[field] = 9 if field == "points_width" else 8  # a multiple of three
        elif field in ("blocks", "critic_steps", "photo_steps"):
            params[field] = 1
        elif field == "references":
            params[field] = 2  # one of each image of the batch
        elif field == "labels":
            params[field] = ["angry", "smile"]  # two, of which combogan trains both
    size = next(s for s in (32, 64, 96, 128) if fits(kind, params, s))
    values = {"recipe": name, "params": params, "data": {"size": size, "batch": 2}, "optim": merged.get("optim", {})}
    return card.TrainCard.model_validate({**values, "run": {"steps": 2, "ema": 0.5}})


def fits(kind, params, size) -> bool:
    """Whether the method works at a size."""
    try:
        kind(params, size).check(size)
    except CardError:
        return False
    return True


class Teacher(nn.Linear):
    """A face net of random weights."""

    features = 128

    def forward(self, x):
        return super().forward(x.mean(2).flatten(1)[:, :48])


def public_stylegan2(generator, discriminator):
    """The state dicts of nets as public checkpoints hold them: names, axes kept for broadcasting, FIR kernels."""
    kernel = torch.ones(4, 4)
    g = {f"style.{i + 1}.{k}": v for i, m in enumerate(generator.mapping.layers) for k, v in m.state_dict().items()}
    g["input.input"] = generator.const.data
    g |= {f"noises.noise_{i}": noise for i, noise in enumerate(generator.noises)}
    for i, layer in enumerate(generator.layers):
        name = "conv1" if i == 0 else f"convs.{i - 1}"
        g[f"{name}.conv.weight"] = layer.conv.weight.data[None]
        g[f"{name}.conv.modulation.weight"] = layer.conv.affine.weight.data
        g[f"{name}.conv.modulation.bias"] = layer.conv.affine.bias.data
        g[f"{name}.noise.weight"] = layer.noise_strength.data[None]
        g[f"{name}.activate.bias"] = layer.bias.data
        g[f"{name}.conv.blur.kernel"] = kernel
    for i, layer in enumerate(generator.to_rgb):
        name = "to_rgb1" if i == 0 else f"to_rgbs.{i - 1}"
        g[f"{name}.bias"] = layer.bias.data.view(1, 3, 1, 1)
        g[f"{name}.conv.weight"] = layer.conv.weight.data[None]
        g[f"{name}.conv.modulation.weight"] = layer.conv.affine.weight.data
        g[f"{name}.conv.modulation.bias"] = layer.conv.affine.bias.data
        g[f"{name}.upsample.kernel"] = kernel
    d = {"convs.0.0.weight": discriminator.from_rgb.weight.data, "convs.0.1.bias": discriminator.rgb_bias.data}
    for i, block in enumerate(discriminator.blocks):
        d[f"convs.{i + 1}.conv1.0.weight"] = block.first.weight.data
        d[f"convs.{i + 1}.conv1.1.bias"] = block.first_bias.data
        d[f"convs.{i + 1}.conv2.0.kernel"] = kernel
        d[f"convs.{i + 1}.conv2.1.weight"] = block.second.weight.data
        d[f"convs.{i + 1}.conv2.2.bias"] = block.second_bias.data
        d[f"convs.{i + 1}.skip.1.weight"] = block.skip.weight.data
    d |= {"final_conv.0.weight": discriminator.last.weight.data, "final_conv.1.bias": discriminator.last_bias.data}
    for number, layer in enumerate((discriminator.hidden, discriminator.out)):
        d |= {f"final_linear.{number}.{k}": v for k, v in layer.state_dict().items()}
    return {"g": g, "d": d, "g_ema": g}


def npm_archive(path, names=web_runtime.FILES):
    """Write an archive such as `npm pack onnxruntime-web` writes, with files of these names; returns its path."""
    with tarfile.open(path, "w:gz") as opened:
        for name in names:
            data = f"// {name}".encode()
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    return path


def write_camera(path, picture, frames=10):
    """Write a picture (RGB, even edges) as a film for Chromium to take for a camera; returns the flags that do so."""
    light, *colours = (np.asarray(part) for part in picture.convert("YCbCr").split())
    frame = b"FRAME\n" + light.tobytes() + b"".join(part[::2, ::2].tobytes() for part in colours)
    head = f"YUV4MPEG2 W{picture.width} H{picture.height} F10:1 Ip A1:1 C420\n"
    path.write_bytes(head.encode() + frames * frame)
    flags = ("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream")
    return [f"--{flag}" for flag in (*flags, f"use-file-for-fake-video-capture={path}")]


def eventually(happened, seconds):
    """Whether something happens within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return True
        time.sleep(0.2)
    return False
