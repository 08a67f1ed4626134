"""The two losses of Kang 2020: what they compare in each reading, their schedules, and whom they teach."""

import pytest
import torch
from torch import nn

from facekit.errors import CardError
from facekit.nets.ugatit import Attended
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.recipes.facefeat import FaceFeatures
from facekit.recipes.segnet import SegNet
from facekit.recipes.ugatit_face import Face, Parts, UGATITFace
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

SIZE = 96
PARAMS = {"width": 4, "blocks": 1, "d_width": 4, "light": True, "ramp": 0.0}


@pytest.fixture
def helpers(tmp_path):
    """Untrained helpers as weights files: the losses must be finite with them, too."""
    torch.manual_seed(3)
    parts, face = SegNet({"width": 4}, 32), FaceFeatures({"width": 4, "features": 8}, 64)
    for made, name, size in ((parts, "segnet", 32), (face, "facefeat", 64)):
        nets = nn.ModuleDict(made.nets())
        for parameter in nets.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
        params = made.params.model_dump(mode="json")
        values = {"recipe": name, "params": params, "data": {"size": size}}
        checkpoint.save_model(tmp_path / f"{name}.safetensors", nets, card.plain(card.TrainCard.model_validate(values)))
    return {name: str(tmp_path / f"{name}.safetensors") for name in ("segnet", "facefeat")}


@pytest.fixture
def method(helpers):
    """Return a function that makes the recipe with params."""

    def make(**params):
        return UGATITFace({**PARAMS, "segnet": helpers["segnet"], "face": helpers["facefeat"], **params}, SIZE)

    return make


class Copy(nn.Module):
    """A generator that changes nothing, but for a shift that can learn."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return Attended(x + self.shift, x.new_zeros(len(x), 2), x[:, :1])


def scene_of(made, progress=1.0, nets=None, active=("segmentation", "feature")):
    torch.manual_seed(1)
    batch = {name: torch.rand(2, 3, SIZE, SIZE) * 2 - 1 for name in "ab"}
    frozen = (
        nn.ModuleDict(made.helpers(checkpoint.load_model, ["segmentation", "feature"])).requires_grad_(False).eval()
    )
    nets = nets or nn.ModuleDict({"ab": Copy(), "ba": Copy()})
    return made.Scene(made, nets, batch, 0, None, frozen, active, progress)


def test_a_generator_that_changes_nothing_costs_nothing_in_the_reading_source(method):
    scene = scene_of(method())
    assert scene.segmentation().item() == pytest.approx(0, abs=1e-6)
    assert scene.feature().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("reading", ["paper", "text"])
def test_it_costs_something_where_other_images_are_compared(method, reading):
    scene = scene_of(method(reading=reading))
    assert scene.segmentation().item() > 1e-3 and scene.feature().item() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["source", "paper", "text"])
@pytest.mark.parametrize("name", ["segmentation", "feature"])
def test_both_losses_teach_both_generators(method, reading, name):
    made = method(reading=reading)
    nets = nn.ModuleDict(made.nets())
    scene = scene_of(made, nets=nets)
    getattr(scene, name)().backward()
    for generator in ("ab", "ba"):
        gradients = [p.grad for p in nets[generator].parameters() if p.grad is not None]
        assert gradients and any(g.abs().max() > 0 for g in gradients)
    assert all(p.grad is None for p in scene.helpers.parameters())


def test_equation_4s_second_term_as_printed_teaches_nothing(method):
    scene = scene_of(method(reading="paper", ramp=0.2), progress=0.0)
    value = scene.segmentation()
    (gradient,) = torch.autograd.grad(value, scene.nets.ab.shift, allow_unused=True)
    assert value.item() > 1e-3 and (gradient is None or gradient.abs().max() == 0)


@pytest.mark.slow
@pytest.mark.parametrize(("progress", "alpha"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (1.0, 1.0)])
def test_the_parts_loss_rises_over_the_ramp(method, progress, alpha):
    full = scene_of(method(reading="text"), 1.0).segmentation()
    ramped = scene_of(method(reading="text", ramp=0.2), progress)
    assert ramped.alpha_decay == pytest.approx(alpha)
    assert ramped.segmentation().item() == pytest.approx(alpha * full.item(), rel=1e-5)


@pytest.mark.slow
def test_there_and_back_counts_while_the_other_rises(method):
    made = method(ramp=0.2, reconstruction=3.0)
    nets = nn.ModuleDict(made.nets())
    scene = scene_of(made, 0.05, nets)
    a, b = scene.real_parts
    back = [scene.helpers.parts(x) for x in (scene.back_a, scene.back_b)]
    expected = 0.25 * (scene.apart(scene.made_parts[0], a) + scene.apart(scene.made_parts[1], b))
    expected += 0.75 * 3 * (scene.apart(back[0], a) + scene.apart(back[1], b))
    assert scene.segmentation().item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.slow
def test_directions_have_weights_of_their_own(method):
    both, to_a, to_b = (scene_of(method(reading="text", towards_a=a, towards_b=b)) for a, b in ((1, 1), (1, 0), (0, 1)))
    for name in ("segmentation", "feature"):
        values = [getattr(scene, name)().item() for scene in (both, to_a, to_b)]
        assert values[0] == pytest.approx(values[1] + values[2], rel=1e-5) and min(values) > 0


def test_the_gate_leaves_out_where_the_segmenter_is_unsure(method):
    scene = scene_of(method(gate=0.5))
    source = torch.tensor([[[[0.9, 0.6]], [[0.1, 0.4]]]])
    made = torch.tensor([[[[0.5, 0.0]], [[0.5, 1.0]]]])
    assert scene.apart(made, source).item() == pytest.approx((0.4 + 0.6) / 2)
    scene = scene_of(method(gate=0.8))
    assert scene.apart(made, source).item() == pytest.approx(0.4)
    assert scene_of(method(gate=0.99)).apart(made, source * 0.5).item() == 0  # sure of nothing


@pytest.mark.parametrize(
    ("decay", "factors"),
    [
        ("fifths", [1, 0.8, 0.64, 0.512, 0.4096]),
        ("fifths-linear", [1, 0.8, 0.6, 0.4, 0.2]),
        ("fifths-to-a-fifth", [1, 0.2, 0.04, 0.008, 0.0016]),
    ],
)
def test_decay_by_fifths_has_three_readings(decay, factors):
    made = UGATITFace({**PARAMS, "lr_decay": decay}, SIZE)
    assert [made.lr_factor(Progress(step, 100)) for step in (0, 20, 40, 60, 80)] == pytest.approx(factors)
    assert made.lr_factor(Progress(19, 100)) == 1 and made.lr_factor(Progress(99, 100)) == pytest.approx(factors[-1])


def test_the_papers_numbers_stand_in_its_preset():
    kind, preset = registry.find("ugatit-face-paper")
    values = card.merge(kind.defaults, preset)
    assert (values["data"]["size"], values["data"]["batch"], values["run"]["steps"]) == (112, 8, 100000)
    assert values["optim"]["lr"] == 1e-3 and values["data"]["split"] == [8, 1, 1]
    kind(values["params"], 112).check(112)


@pytest.mark.slow
def test_one_discriminator_per_domain(helpers):
    params = {**PARAMS, "segnet": helpers["segnet"], "face": helpers["facefeat"], "single_scale_d": True}
    values = card.TrainCard.model_validate({"recipe": "ugatit-face", "params": params, "data": {"size": SIZE}})
    made = UGATITFace(params, SIZE)
    assert set(made.nets()) == {"ab", "ba", "la", "lb"}
    learner = build_state(made, weighted_terms(UGATITFace, {}), values, torch.device("cpu"))
    before = {k: v.clone() for k, v in learner.nets.named_parameters()}
    batch = [{name: torch.rand(1, 3, SIZE, SIZE) * 2 - 1 for name in "ab"}]
    assert all(torch.isfinite(v) for v in train_step(learner, batch, Progress(0, 2)).values())
    assert all(
        any(not torch.equal(before[f"{n}.{k}"], v) for k, v in learner.nets[n].named_parameters()) for n in learner.nets
    )


@pytest.mark.slow
def test_without_its_two_losses_it_is_ugatit(helpers):
    params = {**PARAMS, "segnet": helpers["segnet"], "face": helpers["facefeat"]}
    plain = {k: v for k, v in PARAMS.items() if k != "ramp"}
    found = []
    for name, given, losses in (
        ("ugatit-face", params, {"segmentation": 0, "feature": 0}),
        ("ugatit", plain, {}),
    ):
        kind, _ = registry.find(name)
        values = card.TrainCard.model_validate({"recipe": name, "params": given, "data": {"size": SIZE}})
        learner = build_state(kind(given, SIZE), weighted_terms(kind, losses), values, torch.device("cpu"))
        torch.manual_seed(5)
        batch = [{side: torch.rand(1, 3, SIZE, SIZE) * 2 - 1 for side in "ab"}]
        found.append(train_step(learner, batch, Progress(0, 2)))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_helpers_of_another_kind_are_refused(helpers):
    with pytest.raises(CardError, match="no face parts"):
        Parts(checkpoint.load_model(helpers["facefeat"]))
    with pytest.raises(CardError, match="does not compute face features"):
        Face(helpers["segnet"], checkpoint.load_model)


def test_parts_are_found_at_the_segmenters_own_size_with_a_gradient(helpers):
    parts = Parts(checkpoint.load_model(helpers["segnet"]))
    x = torch.rand(1, 3, SIZE, SIZE, requires_grad=True)
    found = parts(x)
    assert found.shape == (1, 6, 32, 32)
    found[:, 1].sum().backward()
    assert x.grad.abs().max() > 0


def test_an_unknown_reading_is_refused(facekit, tmp_path):
    done = facekit("train", "ugatit-face", "--data", tmp_path, "--set", "params.reading=mine", "--dry-run")
    assert done.code == 2 and "reading" in done.err and "source" in done.err
