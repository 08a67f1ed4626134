"""UNIT: the facts of its nets, what is tied and what is not, its losses, and its turns."""

import pytest
import torch
from torch import nn

from facekit.errors import CardError
from facekit.nets import pretrained
from facekit.nets.blocks import EPS
from facekit.nets.unit import LayerNorm, MultiScaleDiscriminator, UNITGenerator
from facekit.nets.vgg import VGG
from facekit.ops import losses
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.recipes.unit import UNIT, UNITVGG
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

PARAMS = {"width": 4, "blocks": 2, "d_width": 4}
SIZE = 64


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def learner_of(params=None, name="unit", losses=None, ema=0.0, wd=1e-4):
    kind, _ = registry.find(name)
    given = {**PARAMS, **(params or {})}
    values = {"recipe": name, "params": given, "data": {"size": SIZE}, "optim": {"weight_decay": wd}}
    values = card.TrainCard.model_validate({**values, "run": {"steps": 2, "ema": ema}})
    return build_state(kind(given, SIZE), weighted_terms(kind, losses or {}), values, torch.device("cpu"))


def batch_of(count=1):
    torch.manual_seed(1)
    return [{name: torch.rand(count, 3, SIZE, SIZE) * 2 - 1 for name in "ab"}]


def scene_of(learner, **more):
    return learner.recipe.Scene(learner.recipe, learner.nets, batch_of()[0], 0, None, learner.helpers, **more)


@pytest.mark.slow
def test_parameter_counts():
    with torch.device("meta"):
        net, judge = UNITGenerator(), MultiScaleDiscriminator()
    for domain in ("a", "b"):
        assert count(net.encoder(domain)) == 5_385_856
        assert count(net.decoder(domain)) == 5_754_627
    assert count(net) == 2 * 11_140_483
    assert count(judge) == 8_271_171
    assert [count(scale) for scale in judge.scales] == 3 * [2_757_057]


@pytest.mark.slow
@pytest.mark.parametrize(("size", "maps"), [(256, (16, 8, 4)), (128, (8, 4, 2)), (112, (7, 3, 1))])
def test_map_sizes(size, maps):
    with torch.device("meta"):
        net, x = UNITGenerator(), torch.empty(2, 3, size, size)
        latent = net.encode(x, "a")
        judged = MultiScaleDiscriminator()(x)
        assert net.decode(latent, "b").shape == x.shape
    assert latent.shape == (2, 256, size // 4, size // 4)
    assert [tuple(said.shape) for said in judged] == [(2, 1, edge, edge) for edge in maps]


def test_64_px_is_the_least_that_the_discriminator_takes():
    net = MultiScaleDiscriminator(4)
    assert [said.shape[-1] for said in net(torch.rand(1, 3, 64, 64))] == [4, 2, 1]
    with pytest.raises(RuntimeError):
        net(torch.rand(1, 3, 60, 60))
    UNIT({}, 64).check(64)
    for size in (60, 66):
        with pytest.raises(CardError, match="size"):
            UNIT({}, size).check(size)


def test_the_coarser_scales_see_the_mean_of_three_by_three_without_the_border():
    net = MultiScaleDiscriminator(4)
    seen = []
    for scale in net.scales:
        scale.register_forward_hook(lambda m, given, out: seen.append(given[0]))
    x = torch.rand(1, 3, 64, 64)
    net(x)
    assert [y.shape[-1] for y in seen] == [64, 32, 16]
    assert torch.allclose(seen[1][0, :, 0, 0], x[0, :, :2, :2].mean((1, 2)))
    assert torch.allclose(seen[1][0, :, 3, 5], x[0, :, 5:8, 9:12].mean((1, 2)), atol=1e-6)


def test_layer_norm_is_the_formula_with_eps_beside_the_unbiased_deviation():
    torch.manual_seed(0)
    net, x = LayerNorm(3), torch.randn(2, 3, 4, 5) * 1e-4
    assert net.gamma.min() >= 0 and net.gamma.max() <= 1 and net.gamma.std() > 0 and not net.beta.any()
    for image, out in zip(x, net(x), strict=True):
        expected = (image - image.mean()) / (image.flatten().std() + EPS) * net.gamma
        assert torch.allclose(out, expected, atol=1e-6)
    assert net(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("tied", [0, 1, 2])
def test_tied_blocks_are_the_same_objects_and_counted_once(tied):
    net = UNITGenerator(4, 2, tied)
    for part in (net.encoder, net.decoder):
        own, other = ({id(p) for p in part(domain).parameters()} for domain in ("a", "b"))
        assert len(own & other) == 4 * tied  # two convolutions with a bias each
    block = 2 * (16 * 16 * 9 + 16)
    assert count(net) == count(UNITGenerator(4, 2)) - 2 * tied * block
    with pytest.raises(ValueError, match="cannot be tied"):
        UNITGenerator(4, 2, 3)
    with pytest.raises(CardError, match="tie_latent_layers"):
        UNIT({"blocks": 2, "tie_latent_layers": 3}).check(64)


def test_tying_moves_the_shared_blocks_next_to_the_latents():
    net = UNITGenerator(4, 2, 1)
    assert net.encoder("a")[-1] is net.encoder("b")[-1] is net.last
    assert net.decoder("a")[0] is net.decoder("b")[0] is net.first
    assert len(list(net.encoders["a"])) == 9 + 1 and len(net.last) == len(net.first) == 1


@pytest.mark.slow
def test_tied_blocks_are_still_the_same_objects_after_saving_and_loading(tmp_path):
    learner = learner_of({"tie_latent_layers": 1}, ema=0.5)
    train_step(learner, batch_of(), Progress(0, 2))
    checkpoint.save_model(tmp_path / "m.safetensors", learner.exports, card.plain(learner.card))
    model = checkpoint.load_model(tmp_path / "m.safetensors")
    for net in (model.nets.g, learner.ema.g):
        for part in (net.encoder, net.decoder):
            own, other = ({p.data_ptr() for p in part(domain).parameters()} for domain in ("a", "b"))
            assert len(own & other) == 4
    assert len(model.nets.state_dict()) == len(learner.exports.state_dict()) == len(list(model.nets.parameters()))


def test_both_domains_teach_what_is_tied():
    learner = learner_of({"tie_latent_layers": 1})
    scene = scene_of(learner)
    shared = learner.nets.g.last[0].body[0].weight
    for mean in (scene.mean_a, scene.mean_b):
        (gradient,) = torch.autograd.grad(mean.square().sum(), shared)
        assert gradient.abs().max() > 0


def test_kl_counts_the_mean_of_squares():
    assert losses.kl(torch.tensor([[1.0, -3.0]])).item() == 5
    assert losses.kl(torch.full((4096,), 0.1, dtype=torch.bfloat16)).dtype == torch.float32


def test_normalised_l2_sees_neither_scale_nor_shift_of_a_channel():
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    scale, shift = torch.rand(2, 3, 1, 1) + 0.5, torch.randn(2, 3, 1, 1)
    assert losses.normalised_l2(x, x * scale + shift).item() == pytest.approx(0, abs=1e-6)
    u, v = (
        (z - z.mean((2, 3), keepdim=True)) / (z.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt() for z in (x, y)
    )
    assert losses.normalised_l2(x, y).item() == pytest.approx((u - v).square().mean().item(), rel=1e-5)


def test_its_losses_are_those_of_the_code_written_out():
    learner = learner_of()
    torch.manual_seed(7)
    scene = scene_of(learner, active=("reconstruction",))
    g, a, b = learner.nets.g, scene.a, scene.b
    z_a, z_b = scene.latent_a, scene.latent_b
    again = (g.decode(z_a, "a") - a).abs().mean() + (g.decode(z_b, "b") - b).abs().mean()
    assert scene.reconstruction().item() == pytest.approx(again.item(), rel=1e-6)
    assert torch.equal(scene.fake_b, g.decode(z_a, "b")) and torch.equal(scene.fake_a, g.decode(z_b, "a"))
    squares = g.encode(a, "a").square().mean() + g.encode(b, "b").square().mean()
    assert scene.prior().item() == pytest.approx(squares.item(), rel=1e-6)
    again = g.encode(scene.fake_b, "b").square().mean() + g.encode(scene.fake_a, "a").square().mean()
    assert scene.cycle_prior().item() == pytest.approx(again.item(), rel=1e-6)
    passed = sum((d - 1).square().mean() for d in [*learner.nets.da(scene.fake_a), *learner.nets.db(scene.fake_b)])
    assert scene.adversarial().item() == pytest.approx(passed.item(), rel=1e-5)
    told = sum((d - 1).square().mean() for d in learner.nets.da(a))
    told = told + sum(d.square().mean() for d in learner.nets.da(scene.fake_a))
    assert scene.judge_a().item() == pytest.approx(told.item(), rel=1e-5)


def test_the_noise_is_one_draw_per_turn_of_deviation_1():
    scene = scene_of(learner_of())
    noise = scene.latent_a - scene.mean_a
    assert scene.latent_a is scene.latent_a
    assert noise.std().item() == pytest.approx(1, abs=0.05) and noise.mean().abs() < 0.05


def test_translating_draws_no_noise():
    made = UNIT(PARAMS, SIZE)
    nets = nn.ModuleDict(made.nets())
    x = batch_of()[0]["a"]
    for to in ("a", "b"):
        assert torch.equal(made.translate(nets, x, to), made.translate(nets, x, to))
        columns = made.preview(nets, x, to)
        assert torch.equal(columns["translation"], made.translate(nets, x, to))
        assert set(columns) == {"translation", "and back", "reconstruction"}


def test_the_codes_numbers_are_the_defaults():
    weights = {name: found.weight for name, found in UNIT.terms().items()}
    expected = {"adversarial": 1, "reconstruction": 10, "prior": 0.01, "cycle": 10, "cycle_prior": 0.01}
    assert weights == {**expected, "judge_a": 1, "judge_b": 1}
    assert [phase.name for phase in UNIT.phases] == ["D", "G"]  # the discriminators' turn comes first
    assert UNIT.defaults["optim"] == {"lr": 1e-4, "betas": [0.5, 0.999], "weight_decay": 1e-4}
    assert UNIT.defaults["run"]["steps"] == 1_000_000 and UNIT.defaults["data"]["batch"] == 1
    made = UNIT()
    assert made.params.tie_latent_layers == 0 and made.load_size(256) == 256
    assert [made.lr_factor(Progress(step, 10**6)) for step in (0, 99_999, 100_000, 250_000)] == [1, 1, 0.5, 0.25]


@pytest.fixture
def no_weights(monkeypatch):
    monkeypatch.setattr(pretrained, "load_vgg", lambda net, source, kind="vgg19": None)


@pytest.mark.slow
def test_its_perceptual_loss_looks_at_relu5_3_of_vgg16(no_weights):
    learner = learner_of(name="unit-vgg")
    assert learner.helpers.vgg.names[-1] == "relu5_3" and len(learner.helpers.vgg.names) == 30
    assert UNITVGG.terms()["perceptual"].weight == 1
    assert "perceptual" not in UNIT.terms()
    scene = scene_of(learner)
    assert learner.helpers.vgg(scene.a)["relu5_3"].shape[2:] == (SIZE // 8, SIZE // 8)  # no pooling before conv5_1
    looks = [learner.helpers.vgg(x)["relu5_3"] for x in (scene.fake_b, scene.a, scene.fake_a, scene.b)]
    expected = losses.normalised_l2(looks[0], looks[1]) + losses.normalised_l2(looks[2], looks[3])
    value = scene.perceptual()
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    value.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in learner.nets.g.parameters())
    assert all(p.grad is None for p in learner.helpers.parameters())


@pytest.mark.slow
def test_a_layer_behind_a_pooling_that_is_left_out_keeps_its_resolution_and_its_name():
    x = torch.rand(1, 3, 32, 32)
    whole, without = (VGG("vgg16", ("relu4_3", "relu5_1"), without=names) for names in ((), ("pool4",)))
    without.load_state_dict(whole.state_dict())
    found, expected = without(x), whole(x)
    assert torch.equal(found["relu4_3"], expected["relu4_3"])
    conv = whole.features[whole.names.index("conv5_1")]
    assert torch.allclose(found["relu5_1"], conv(expected["relu4_3"]).relu(), atol=1e-5)


def test_unit_needs_no_vgg():
    assert UNIT(PARAMS, SIZE).helpers(None, ["cycle"]) == {}


@pytest.mark.slow
def test_a_few_steps_draw_the_images_again():
    learner = learner_of(losses={"adversarial": 0, "judge_a": 0, "judge_b": 0, "cycle": 0, "cycle_prior": 0}, wd=0)
    for group in learner.optims["G"].param_groups:
        group["initial_lr"] = 1e-3
    first = train_step(learner, batch_of(), Progress(0, 40))["reconstruction"]
    for step in range(1, 40):
        last = train_step(learner, batch_of(), Progress(step, 40))["reconstruction"]
    assert last < 0.85 * first
