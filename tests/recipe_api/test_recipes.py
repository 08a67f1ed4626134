"""What every recipe and preset must hold: all of the catalogue are tested, a new one by being there."""

import ast
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import pytest
import torch

from facekit.errors import CardError
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import TrainState, build_state, weighted_terms
from support import fits, small

NAMES = sorted(registry.catalogue())
EXAMPLES = Path(__file__).parents[2] / "examples"


pytestmark = pytest.mark.usefixtures("random_helpers")


def distinct(name: str) -> str:
    """Return what makes a preset another method than its neighbours: its class, and parameters that choose nets."""
    entry = registry.catalogue()[name]
    params = entry.preset.get("params", {})
    chosen = {key: params.get(key) for key in ("net", "light", "control", "mask", "trunk", "batch_norm")}
    return f"{entry.target} {chosen}"


CLASSES = list({registry.catalogue()[name].target: name for name in reversed(NAMES)}.values())
METHODS = list({distinct(name): name for name in reversed(NAMES)}.values())  # presets that differ in numbers only: once


def learner_of(values: card.TrainCard, losses=None):
    kind, _ = registry.find(values.recipe)
    unweighted = {name: 1.0 for name, found in kind.terms().items() if not found.weight}
    terms = weighted_terms(kind, {**unweighted, **(losses or {})})
    return build_state(kind(values.params, values.data.size), terms, values, torch.device("cpu"))


def batch_of(values: card.TrainCard):
    torch.manual_seed(1)
    kind, _ = registry.find(values.recipe)
    blank = kind(values.params, values.data.size).blank(values.data.batch, values.data.size)
    return [{k: torch.rand_like(v) * 2 - 1 if v.is_floating_point() else v.random_(0, 2) for k, v in blank.items()}]


def test_catalogue_reads_presets_without_importing(monkeypatch):
    registry.shipped.cache_clear()
    monkeypatch.setattr("importlib.import_module", lambda *a: pytest.fail("imported a recipe"))
    assert {"cyclegan", "ugatit", "ugatit-light", "projected-cut"} <= set(registry.catalogue())


@dataclass
class Trained:
    """A method after two steps: its weights before, the terms of each step, and the parameters without a gradient."""

    learner: TrainState
    before: dict[str, torch.Tensor]
    losses: list[tuple[set[str], dict[str, torch.Tensor]]]
    without_gradient: list[torch.Tensor]


@pytest.fixture(scope="module", params=METHODS)
def trained(request, random_helpers):
    """Every method of the catalogue, trained for two steps of its last phase."""
    values = small(request.param)
    learner = learner_of(values)
    before = {k: v.clone() for k, v in learner.nets.named_parameters()}
    losses, without = [], []

    def look(optim, *_):  # gradients are gone after the phase
        every = (p for group in optim.param_groups for p in group["params"])
        without.extend(p for p in every if p.requires_grad and p.grad is None)

    learner.optims[learner.recipe.phases[-1].name].register_step_pre_hook(look)
    for _ in range(2):
        active = {term.name for term in learner.terms.values() if term.active(learner.step)}
        losses.append((active, train_step(learner, batch_of(values), Progress(learner.step, 2))))
        learner.step += 1
    return Trained(learner, before, losses, without)


@pytest.mark.slow
def test_two_steps_move_every_net_and_each_phase_teaches_its_own(trained):
    learner, last = trained.learner, trained.learner.recipe.phases[-1]
    for active, found in trained.losses:
        assert set(found) == active
        assert all(torch.isfinite(value) for value in found.values())
    assert not trained.without_gradient
    for net in learner.nets:
        assert any(p.requires_grad for p in learner.nets[net].parameters()) <= (net in last.nets)
    learning = {net for phase in learner.recipe.phases for net in phase.nets}
    for net in learning:
        learner.nets[net].requires_grad_(True)  # all but what the method freezes
        parameters = [(k, v) for k, v in learner.nets[net].named_parameters() if v.requires_grad]
        moved = [not torch.equal(trained.before[f"{net}.{k}"], v) for k, v in parameters]
        # a bias behind a hinge that is nowhere saturated has a gradient of exactly 0
        assert moved.count(True) > 0.8 * len(moved), f"{net}: {moved.count(False)} parameters stayed"


@pytest.mark.slow
def test_a_saved_model_translates_as_before_and_keeps_size_and_range(trained, tmp_path):
    learner = trained.learner
    values = learner.card
    path = tmp_path / "model.safetensors"
    params = learner.recipe.params.model_dump(mode="json")  # a run writes every parameter out
    checkpoint.save_model(path, learner.exports, {**card.plain(values), "params": params})
    model = checkpoint.load_model(path)
    x = next(entry for entry in batch_of(values)[0].values() if entry.ndim == 4)
    targets = learner.recipe.targets(values.domains).values()
    source = {"source": list(targets)[:1] * len(x)} if learner.recipe.takes("source") else {}
    for to in targets:
        with torch.no_grad():
            translated = model.recipe.translate(model.nets, x, to, **source)
            expected = learner.recipe.translate(learner.exports.eval(), x, to, **source)
            columns = model.recipe.preview(model.nets, x, to)
        assert translated.shape == x.shape
        assert translated.abs().max() <= 1
        assert torch.allclose(translated, expected, atol=1e-6)
        assert next(iter(columns)) in ("translation", *learner.recipe.targets(values.domains))
        assert all(column.shape == x.shape for column in columns.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_term_is_documented(name):
    kind, _ = registry.find(name)
    for term in kind.terms().values():
        assert term.doc.endswith(".") or "(" in term.doc


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_every_term_can_be_dropped(name):
    values = small(name)
    learner = learner_of(values)
    every = dict(learner.terms)
    active = {name for name, term in every.items() if term.active(0)}
    phases: dict[str, list[str]] = {}
    for name, term in every.items():
        phases.setdefault(term.phase, []).append(name)
    for several in zip_longest(*phases.values()):  # one of each phase at a time
        dropped = {one for one in several if one}
        learner.terms = {**every, **{name: replace(every[name], weight=0.0) for name in dropped}}
        assert set(train_step(learner, batch_of(values), Progress(0, 2))) == active - dropped


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_the_step_takes_bf16(name):
    values = small(name)
    values.run.precision = "bf16"
    found = train_step(learner_of(values), batch_of(values), Progress(0, 2))
    assert all(torch.isfinite(value) for value in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_a_commented_example_card_that_loads(name):
    path = EXAMPLES / "cards" / f"{name}.yaml"
    values = card.load(path)
    kind, preset = registry.find(values["recipe"])
    checked = card.validate(card.TrainCard, card.merge(kind.defaults, preset, values), str(path))
    again = card.validate(card.TrainCard, card.plain(checked), "again")
    assert values["recipe"] == name
    assert again == checked.model_copy(update={"made": None})
    assert set(checked.losses) == set(kind.terms())
    kind(checked.params, checked.data.size).check(checked.data.size)
    assert path.read_text().count("#") >= 5


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_a_recipe_file_trains(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
    values = small(str(path))
    assert train_step(learner_of(values), batch_of(values), Progress(0, 2))


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(CardError) as error:
        registry.find("ugatit-lite")
    assert "ugatit-light" in error.value.hint


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_will_not_do_is_refused_with_the_nearest_that_will(name):
    kind, preset = registry.find(name)
    params = dict(preset.get("params", {}))
    odd = 99 if kind(params, 128).sizes[1] > 1 else 9
    with pytest.raises(CardError, match=f"not {odd}") as caught:
        kind(params, odd).check(odd)
    near = [int(word) for word in caught.value.hint.replace(";", " ").split() if word.isdigit()]
    assert near and all(fits(kind, params, size) for size in near)
