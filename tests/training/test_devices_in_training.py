"""A training step leaves its numbers on the device: the host neither reads them nor mixes devices.

Tensors on the meta device have no numbers, so reading one (`.item()`, a mask as an index) raises. On a machine with
CUDA torch itself refuses whatever makes the host wait.
"""

import pytest
import torch
from torch import Tensor

import toy
from facekit.recipe_api import registry
from facekit.recipe_api.base import Progress, term
from facekit.storage import card
from facekit.training import memory_estimate
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms
from support import small

pytestmark = pytest.mark.usefixtures("random_helpers")


def distinct() -> list[str]:
    """Every recipe once: of presets that differ in weights, rates and sizes of nets only the first."""
    found = {}
    for name, entry in registry.catalogue().items():
        params = entry.preset.get("params", {}).items()
        own = {key: value for key, value in params if key != "blocks" and not key.endswith("width") and "lr" not in key}
        found.setdefault((entry.target, str(own)), name)
    return list(found.values())


def every_term(kind):
    """The recipe's terms, those without a weight too."""
    return weighted_terms(kind, {name: 1.0 for name, found in kind.terms().items() if not found.weight})


@pytest.mark.slow
@pytest.mark.parametrize("name", distinct())
def test_losses_are_computed_without_reading_a_number(name):
    kind, values = registry.find(name)[0], small(name)
    guess = memory_estimate.estimate(kind(values.params, values.data.size), every_term(kind), values)
    assert guess.activation_bytes is not None


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: x.mean().item(),
        lambda x: x[x > 0].mean(),
        lambda x: (x * torch.rand(16, device="cpu")).mean(),
    ],
    ids=["item", "mask", "mixed"],
)
def test_a_term_that_reads_or_mixes_is_found(fault):
    class Faulty(toy.ToyScene):
        @term("D")
        def judge(self) -> Tensor:
            """Read a number of a translation."""
            return fault(self.fake) + self.nets.d(self.b).mean()

    kind = type("Faulty", (toy.Toy,), {"Scene": Faulty})
    values = card.TrainCard.model_validate(card.merge(toy.Toy.defaults, {"recipe": "toy"}))
    assert memory_estimate.estimate(toy.Toy({}, 16), toy.Toy.terms(), values).activation_bytes
    assert memory_estimate.estimate(kind({}, 16), kind.terms(), values).activation_bytes is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", distinct())
def test_a_step_never_waits_for_the_gpu(name):
    kind, values = registry.find(name)[0], small(name)
    device = torch.device("cuda")
    state = build_state(kind(values.params, values.data.size), every_term(kind), values, device)
    blank = state.recipe.blank(values.data.batch, values.data.size)
    batch = {key: torch.rand_like(x).to(device) if x.is_floating_point() else x.to(device) for key, x in blank.items()}
    train_step(state, [batch], Progress(500, 1000))
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = train_step(state, [batch], Progress(501, 1000))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(value.device.type == "cuda" for value in found.values())
