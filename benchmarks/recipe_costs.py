"""Work and memory of a training step of every recipe, at its own size and batch, counted on tensors without content.

python benchmarks/recipe_costs.py          # prints src/facekit/recipe_api/costs.py
python benchmarks/recipe_costs.py NAME ... # of some recipes only
"""

import sys

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Recipe
from facekit.storage import card
from facekit.training import memory_estimate
from facekit.training.state import weighted_terms


def forward_flop(recipe: Recipe, terms: dict, values: card.TrainCard) -> float:
    """Return the floating-point operations of a step's forward passes; a phase of every n-th step counts 1/n."""
    total = 0.0
    with torch.device("meta"):
        nets = nn.ModuleDict(recipe.nets())
        weighted = [term.name for term in terms.values() if term.weight]
        helpers = nn.ModuleDict(recipe.helpers(lambda name: checkpoint.load_model(name, "meta"), weighted)).to("meta")
        for phase in recipe.phases:
            active = [term for term in terms.values() if term.phase == phase.name and term.weight]
            batch = recipe.blank(values.data.batch, values.data.size)
            scene = recipe.Scene(recipe, nets, batch, phase.start, None, helpers, [term.name for term in active])
            with FlopCounterMode(display=False) as counter:
                for term in active:
                    term.fn(scene)
            total += counter.get_total_flops() / phase.every
    return total


def cost(name: str) -> tuple[float | None, float]:
    """Return the forward GFLOP per image and the estimated GiB of a step of a recipe.

    The former is None where a term takes gradients of its own: the counter and those exclude each other.
    """
    kind, preset = registry.find(name)
    values = card.TrainCard.model_validate(card.merge(kind.defaults, preset, {"recipe": name}))
    recipe = kind(kind.Params.model_validate(values.params).model_dump(), values.data.size)
    terms = weighted_terms(kind, values.losses)
    memory = memory_estimate.estimate(recipe, terms, values).total_bytes / 2**30
    try:
        work = forward_flop(recipe, terms, values) / values.data.batch / 1e9
    except (RuntimeError, AssertionError):
        work = None
    return work, memory


if __name__ == "__main__":
    found = {}
    for name in sys.argv[1:] or registry.catalogue():
        try:
            work, memory = cost(name)
        except Exception as error:  # a recipe that needs data or weights to be built
            print(f"# {name}: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        print(f"# {name:24} {work or 0:9.1f} GFLOP an image  {memory:6.2f} GiB", file=sys.stderr, flush=True)
        if memory > 0.005:  # else it does not learn by gradients
            found[name] = work, memory
    print('"""What a training step of each recipe costs, counted by benchmarks/recipe_costs.py."""\n')
    print("COSTS: dict[str, tuple[float | None, float]] = {  # forward GFLOP per image, GiB of a step")
    for name, (work, memory) in found.items():
        print(f'    "{name}": ({"None" if work is None else format(work, ".4g")}, {memory:.2g}),')
    print("}")
