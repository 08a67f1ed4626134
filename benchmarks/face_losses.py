"""What the losses of ugatit-face cost: a training step with both, with each, and with none, which is plain ugatit.

The four take their steps in turn in one process; what counts is the ratio to plain ugatit.
"""

import argparse
import statistics
import time

import torch
from machine import machine

from facekit.recipe_api.base import Progress
from facekit.recipe_api.registry import find
from facekit.storage.card import TrainCard
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--size", type=int, default=128)
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--blocks", type=int, default=4)
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--precision", default="fp32")
parser.add_argument("--rounds", type=int, default=5)
arguments = parser.parse_args()

DROPPED = {
    "plain ugatit": ("segmentation", "feature"),
    "segmentation": ("feature",),
    "feature": ("segmentation",),
    "both": (),
}
kind, preset = find("ugatit-face-light")
params = {**preset["params"], "width": arguments.width, "d_width": arguments.width, "blocks": arguments.blocks}
card = TrainCard.model_validate(
    {
        "recipe": "ugatit-face-light",
        "data": {"size": arguments.size, "batch": arguments.batch},
        "optim": kind.defaults["optim"],
        "run": {"precision": arguments.precision},
    }
)
learners = {
    name: build_state(
        kind(params, arguments.size), weighted_terms(kind, dict.fromkeys(dropped, 0.0)), card, torch.device("cpu")
    )
    for name, dropped in DROPPED.items()
}
shape = (arguments.batch, 3, arguments.size, arguments.size)
batch = [{side: torch.rand(shape) * 2 - 1 for side in "ab"}]
took: dict[str, list[float]] = {name: [] for name in learners}
for number in range(arguments.rounds + 1):
    for name, learner in learners.items():
        start = time.perf_counter()
        train_step(learner, batch, Progress(number, 100))
        if number:  # the first step also allocates
            took[name].append(time.perf_counter() - start)
print(machine())
print(f"{arguments.size} px, width {arguments.width}, batch {arguments.batch}, {arguments.precision}")
for name, times in took.items():
    ratios = [mine / plain for mine, plain in zip(times, took["plain ugatit"], strict=True)]
    print(f"{name}: {statistics.median(times):.2f} s a step, {statistics.median(ratios):.2f} times plain ugatit")
