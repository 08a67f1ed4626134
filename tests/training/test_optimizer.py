"""Our Adam is torch's, without its compiler."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from facekit.training.optimizer import Adam


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))


@pytest.mark.parametrize("fused", [True, False])
def test_it_steps_as_torchs_and_takes_its_state(fused):
    options = {"lr": 0.1, "betas": (0.5, 0.9), "weight_decay": 0.01, "fused": fused}
    nets = net(), net()
    optims = [Adam(nets[0].parameters(), **options), torch.optim.Adam(nets[1].parameters(), **options)]
    for step in range(6):
        if step == 3:  # each goes on from the other's state
            states = [optim.state_dict() for optim in optims]
            for optim, state in zip(optims, reversed(states), strict=True):
                optim.load_state_dict(state)
        x = torch.randn(5, 3)
        for one, optim in zip(nets, optims, strict=True):
            one(x).square().sum().backward()
            optim.step()
            optim.zero_grad()
            assert all(p.grad is None for p in one.parameters())
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_training_leaves_the_compiler_out():
    work = (
        "import sys, torch, toy\n"
        "from facekit.storage import card\nfrom facekit.training import loop\n"
        "from facekit.recipe_api.base import Progress\n"
        "values = card.TrainCard.model_validate({'recipe': 'toy', 'data': {'size': 16}, 'run': {'ema': 0.9}})\n"
        "recipe = toy.Toy({}, 16)\n"
        "made = loop.make_learner(recipe, toy.Toy.terms(), values, torch.device('cpu'))\n"
        "loop.train_step(made, [{name: torch.rand(2, 3, 16, 16) for name in 'ab'}], Progress(0, 1))\n"
        "made.restore(made.state())\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    here = Path(__file__).parents[1]
    said = subprocess.run([sys.executable, "-c", work], cwd=here, capture_output=True, text=True, check=True).stdout
    assert said == "False\n"
