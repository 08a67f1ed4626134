"""Helpers that tests of several rooms share: nets simple enough to compute by hand, and what a step changes."""

import torch
from torch import nn

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
