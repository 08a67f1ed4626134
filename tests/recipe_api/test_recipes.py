"""What every recipe and preset must hold: all of the catalogue are tested, a new one by being there."""

import ast
from pathlib import Path

import pytest
import torch
from PIL import Image

from facekit.errors import CardError
from facekit.nets import face_embedding, pretrained
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.storage import card
from facekit.training.loop import fit, make_learner, train_step, weighted_terms

NAMES = sorted(registry.catalogue())
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def random_helpers(monkeypatch):
    """A trunk and a teacher of random weights, for tests only."""

    class Teacher(torch.nn.Linear):
        features = 128

        def forward(self, x):
            return super().forward(x.mean(2).flatten(1)[:, :48])

    monkeypatch.setattr(pretrained, "load_vgg", lambda net, source, kind="vgg19": None)
    monkeypatch.setattr(pretrained, "load_trunk", lambda net, source, kind: None)
    monkeypatch.setattr(face_embedding, "onnx_embedding", lambda *given: Teacher(48, 128))


def small(name: str) -> card.TrainCard:
    """A card of the recipe at its smallest size, 8 channels wide, one block deep."""
    kind, preset = registry.find(name)
    merged = card.merge(kind.defaults, preset)
    params = dict(merged.get("params", {}))
    for field in kind.Params.model_fields:
        if field.endswith("width"):
            params[field] = 8
        elif field == "blocks":
            params[field] = 1
        elif field == "labels":
            params[field] = ["angry", "smile"]  # two, of which combogan trains both
    size = next(s for s in (32, 64, 96, 128) if fits(kind, params, s))
    values = {"recipe": name, "params": params, "data": {"size": size, "batch": 2}, "optim": merged.get("optim", {})}
    return card.TrainCard.model_validate({**values, "run": {"steps": 2, "ema": 0.5}})


def fits(kind, params, size) -> bool:
    try:
        kind(params, size).check(size)
    except CardError:
        return False
    return True


def learner_of(values: card.TrainCard, losses=None):
    kind, _ = registry.find(values.recipe)
    unweighted = {name: 1.0 for name, found in kind.terms().items() if not found.weight}
    terms = weighted_terms(kind, {**unweighted, **(losses or {})})
    return make_learner(kind(values.params, values.data.size), terms, values, torch.device("cpu"))


def batch_of(values: card.TrainCard):
    torch.manual_seed(1)
    kind, _ = registry.find(values.recipe)
    blank = kind(values.params, values.data.size).blank(values.data.batch, values.data.size)
    return [{k: torch.rand_like(v) * 2 - 1 if v.is_floating_point() else v.random_(0, 2) for k, v in blank.items()}]


def test_catalogue_reads_presets_without_importing(monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda *a: pytest.fail("imported a recipe"))
    assert {"cyclegan", "ugatit", "ugatit-light", "projected-cut"} <= set(registry.catalogue())


@pytest.mark.parametrize("name", NAMES)
def test_two_steps_move_every_net_of_every_phase(name):
    values = small(name)
    learner = learner_of(values)
    before = {k: v.clone() for k, v in learner.nets.named_parameters()}
    for _ in range(2):
        turns = {phase.name for phase in learner.recipe.phases if phase.live(learner.step)}
        found = train_step(learner, batch_of(values), Progress(learner.step, 2))
        learner.step += 1
        assert set(found) == {name for name, term in learner.terms.items() if term.phase in turns}
        assert all(torch.isfinite(value) for value in found.values())
    learning = {net for phase in learner.recipe.phases for net in phase.nets}
    for net in learning:
        moved = [not torch.equal(before[f"{net}.{k}"], v) for k, v in learner.nets[net].named_parameters()]
        # a bias behind a hinge that is nowhere saturated has a gradient of exactly 0
        assert moved.count(True) > 0.8 * len(moved), f"{net}: {moved.count(False)} parameters stayed"


@pytest.mark.parametrize("name", NAMES)
def test_only_the_nets_of_a_phase_get_gradients(name):
    values = small(name)
    learner = learner_of(values)
    last, without = learner.recipe.phases[-1], []

    def look(optim, *_):  # gradients are gone after the turn
        without.extend(p for group in optim.param_groups for p in group["params"] if p.grad is None)

    learner.optims[last.name].register_step_pre_hook(look)
    train_step(learner, batch_of(values), Progress(0, 2))
    assert not without
    for net in learner.nets:
        wants = {p.requires_grad for p in learner.nets[net].parameters()}
        assert wants <= {net in last.nets}


@pytest.mark.parametrize("name", NAMES)
def test_every_term_is_documented_and_can_be_dropped(name):
    values = small(name)
    kind, _ = registry.find(name)
    for dropped in kind.terms():
        assert kind.terms()[dropped].doc.endswith(".") or "(" in kind.terms()[dropped].doc
        learner = learner_of(values, {dropped: 0.0})
        found = train_step(learner, batch_of(values), Progress(0, 2))
        assert set(found) == set(kind.terms()) - {dropped}


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_translates_as_before_and_keeps_size_and_range(name, tmp_path):
    values = small(name)
    learner = learner_of(values)
    fit(learner, [batch_of(values)] * 2, Progress(0, 2), lambda *a: None, lambda *a: None)
    path = tmp_path / "model.safetensors"
    checkpoint.save_model(path, learner.exports, card.plain(values))
    model = checkpoint.load_model(path)
    x = next(entry for entry in batch_of(values)[0].values() if entry.ndim == 4)
    targets = learner.recipe.targets(values.domains).values()
    told = {"source": list(targets)[:1] * len(x)} if learner.recipe.takes("source") else {}
    for to in targets:
        with torch.no_grad():
            made = model.recipe.translate(model.nets, x, to, **told)
            expected = learner.recipe.translate(learner.exports.eval(), x, to, **told)
            columns = model.recipe.preview(model.nets, x, to)
        assert made.shape == x.shape
        assert made.abs().max() <= 1
        assert torch.allclose(made, expected, atol=1e-6)
        assert next(iter(columns)) in ("translation", *learner.recipe.targets(values.domains))
        assert all(column.shape == x.shape for column in columns.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_step_takes_bf16(name):
    values = small(name)
    values.run.precision = "bf16"
    found = train_step(learner_of(values), batch_of(values), Progress(0, 2))
    assert all(torch.isfinite(value) for value in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_does_not_fit_is_refused(name):
    kind, _ = registry.find(name)
    with pytest.raises(CardError, match="size"):
        kind({}, 30).check(30)


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
def test_the_recipe_of_ones_own_trains(path):
    assert ast.get_docstring(ast.parse(path.read_text()))
    values = small(str(path))
    assert train_step(learner_of(values), batch_of(values), Progress(0, 2))


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(CardError) as error:
        registry.find("ugatit-lite")
    assert "ugatit-light" in error.value.hint


@pytest.mark.parametrize("scale", [0.5, 30.0])
def test_the_trunk_of_projected_cut_gives_features_of_about_unit_size_whatever_its_weights(scale):
    from skimage.data import astronaut

    from facekit.nets.vgg import VGG
    from facekit.recipes.projected import LAYERS, Trunk
    from facekit.storage import images

    torch.manual_seed(0)
    vgg = VGG("vgg19", tuple(LAYERS))
    with torch.no_grad():
        vgg.features[0].weight *= scale
    face = images.to_tensor(images.resize(Image.fromarray(astronaut()[10:210, 125:325]), 64))[None]
    for y in Trunk(vgg)(face).values():
        assert 0.5 < y.square().mean().sqrt() < 2.5


def test_the_colours_of_projected_cut_are_those_of_the_lit_photo_cell_by_cell():
    kind, _ = registry.find("projected-cut")
    made = kind({"lighting": 1.0}, 64)
    torch.manual_seed(0)
    photo = torch.rand(2, 3, 64, 64) * 2 - 1

    def colour(translate):
        nets = torch.nn.ModuleDict({"ab": translate})
        return kind.Scene(made, nets, {"a": photo}, 0).colour()

    class Shuffled(torch.nn.Module):
        """Every pixel goes elsewhere within its cell of 8 x 8."""

        def forward(self, x):
            cells = x.unflatten(3, (8, 8)).unflatten(2, (8, 8))
            return cells.flip(3, 5).flatten(2, 3).flatten(3, 4)

    class Brighter(torch.nn.Module):
        def forward(self, x):
            return x + 0.25

    assert colour(torch.nn.Identity()) == 0
    assert colour(Shuffled()) == pytest.approx(0, abs=1e-6)
    assert colour(Brighter()) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_will_not_do_is_refused_with_the_nearest_that_will(name):
    kind, preset = registry.find(name)
    params = dict(preset.get("params", {}))
    odd = 99 if kind(params, 128).sizes[1] > 1 else 9
    with pytest.raises(CardError, match=f"not {odd}") as caught:
        kind(params, odd).check(odd)
    near = [int(word) for word in caught.value.hint.replace(";", " ").split() if word.isdigit()]
    assert near and all(fits(kind, params, size) for size in near)
