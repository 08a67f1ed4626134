"""Fixtures of the ablation tests."""

import pytest
import torch
from torch import nn

from facekit.recipe_api import checkpoint
from facekit.recipes.facefeat import FaceFeatures
from facekit.recipes.segnet import SegNet
from facekit.storage import card


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """Features, segmenter and face net, untrained: the command must run, its figures mean nothing."""
    root = tmp_path_factory.mktemp("tools")

    class Means(nn.Module):
        def forward(self, x):
            return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)

    torch.jit.script(Means()).save(str(root / "features.pt"))
    torch.manual_seed(0)
    for made, name, size in (
        (SegNet({"width": 4}, 32), "segnet", 32),
        (FaceFeatures({"width": 4, "features": 8}, 64), "facefeat", 64),
    ):
        nets = nn.ModuleDict(made.nets())
        for parameter in nets.parameters():
            nn.init.normal_(parameter, std=0.5)
        values = {"recipe": name, "params": made.params.model_dump(mode="json"), "data": {"size": size}}
        checkpoint.save_model(root / f"{name}.safetensors", nets, card.plain(card.TrainCard.model_validate(values)))
    return ["--allow-torchscript", "--features", root / "features.pt", "--segnet", root / "segnet.safetensors",
            "--face", root / "facefeat.safetensors"]  # fmt: skip
