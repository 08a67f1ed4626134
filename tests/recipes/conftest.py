"""Fixtures of the tests of recipes."""

import pytest
import torch
from torch import nn

from facekit.recipe_api import checkpoint
from facekit.recipes.facefeat import FaceFeatures
from facekit.storage import card


@pytest.fixture
def face_weights(tmp_path):
    """Untrained face features as a weights file."""
    torch.manual_seed(3)
    made = FaceFeatures({"width": 4, "features": 8}, 64)
    nets = nn.ModuleDict(made.nets())
    for parameter in nets.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    values = {"recipe": "facefeat", "params": made.params.model_dump(mode="json"), "data": {"size": 64}}
    checkpoint.save_model(tmp_path / "face.safetensors", nets, card.plain(card.TrainCard.model_validate(values)))
    return str(tmp_path / "face.safetensors")
