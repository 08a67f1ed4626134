"""XGAN: what its auto-encoders share, its five losses, the reversal of gradients, and its teacher."""

import math

import pytest
import torch
from torch import nn

from facekit.errors import CardError
from facekit.nets.xgan import EmbeddingClassifier, SmallDiscriminator, XGANGenerator, reversed_gradient
from facekit.ops import losses
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.recipes.xgan import XGAN
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

PARAMS = {"width": 4, "features": 32, "d_width": 4, "teacher_features": 8}
SIZE = 32


def count(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


@pytest.fixture
def learner_of(face_weights):
    """Return a function that makes a small learner."""

    def make(weights=None, ema=0.0, **params):
        given = {**PARAMS, "teacher": face_weights, **params}
        values = {"recipe": "xgan", "params": given, "data": {"size": SIZE}, "run": {"steps": 4, "ema": ema}}
        terms = weighted_terms(XGAN, weights or {})
        return build_state(XGAN(given, SIZE), terms, card.TrainCard.model_validate(values), torch.device("cpu"))

    return make


def batch_of(number=2):
    torch.manual_seed(1)
    return [{name: torch.rand(number, 3, SIZE, SIZE) * 2 - 1 for name in "ab"}]


def scene_of(learner, active=("reconstruction",), progress=1.0):
    made = learner.recipe
    return made.Scene(made, learner.nets, batch_of()[0], 0, None, learner.helpers, active, progress)


def convolutions(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]


def test_parameter_counts():
    with torch.device("meta"):
        net, judge = XGANGenerator(), SmallDiscriminator()
    assert count(net.encoders["a"]) == count(net.encoders["b"]) == 34_400
    assert count(net.shared_encoder) == 5_900_672
    assert count(*convolutions(net.shared_decoder)) == (1024 * 512 + 512 * 256) * 16 + 512 + 256
    assert count(*convolutions(net.decoders["b"])) == (256 * 128 + 128 * 64 + 64 * 3) * 16 + 128 + 64 + 3
    assert [m.out_channels for m in convolutions(judge)[:-1]] == [16, 32, 32, 32]
    assert [m.out_features for m in convolutions(EmbeddingClassifier())] == [256, 64, 1]


@pytest.mark.parametrize("size", [32, 64, 112])
def test_shapes(size):
    with torch.device("meta"):
        net, x = XGANGenerator(size=size), torch.empty(2, 3, size, size)
        code = net.encode(x, "a")
        assert net.shared_encoder[:4](net.encoders["a"](x)).shape == (2, 256, size // 16, size // 16)
        assert net.decode(code, "b").shape == x.shape
        assert SmallDiscriminator(size=size)(x).shape == (2, 1)
    assert code.shape == (2, 1024)


def test_shared_layers_are_the_same_objects_and_counted_once():
    net = XGANGenerator(4, 32, SIZE)
    assert net.encoder("a")[1] is net.encoder("b")[1] is net.shared_encoder
    assert net.decoder("a")[0] is net.decoder("b")[0] is net.shared_decoder
    assert net.encoder("a")[0] is not net.encoder("b")[0] and net.decoder("a")[1] is not net.decoder("b")[1]
    parts = (net.encoder("a"), net.encoder("b"), net.decoder("a"), net.decoder("b"))
    assert count(net) == count(*parts) - count(net.shared_encoder, net.shared_decoder)
    x = batch_of()[0]["a"]
    assert torch.equal(net.encode(x, "a"), net.encoder("a")(x))


@pytest.mark.slow
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_shared_layers_are_still_the_same_objects_after_saving_and_loading(learner_of, tmp_path, ema):
    learner = learner_of(ema=ema)
    train_step(learner, batch_of(), Progress(0, 4))
    checkpoint.save_model(tmp_path / "m.safetensors", learner.exports, card.plain(learner.card))
    model = checkpoint.load_model(tmp_path / "m.safetensors")
    for net in (model.nets.g, learner.exports.g):
        for whole, shared in ((net.encoder, net.shared_encoder), (net.decoder, net.shared_decoder)):
            own, other = ({p.data_ptr() for p in whole(domain).parameters()} for domain in ("a", "b"))
            assert own & other == {p.data_ptr() for p in shared.parameters()}
        with torch.no_grad():
            before = net.decode(net.encode(batch_of()[0]["a"], "a"), "a")
            net.shared_encoder[0].bias += 10
            assert not torch.equal(before, net.decode(net.encode(batch_of()[0]["a"], "a"), "a"))


@pytest.mark.slow
def test_a_resumed_learner_has_the_same_shared_layers(learner_of):
    first, second = learner_of(), learner_of()
    train_step(first, batch_of(), Progress(0, 4))
    second.restore(first.snapshot())
    outcomes = [train_step(learner, batch_of(), Progress(1, 4)) for learner in (first, second)]
    assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in outcomes[0])
    assert second.nets.g.encoder("a")[1] is second.nets.g.encoder("b")[1]


def test_both_domains_teach_what_is_shared(learner_of):
    learner = learner_of()
    scene = scene_of(learner)
    shared = learner.nets.g.shared_encoder[0].weight
    for code in (scene.code_a, scene.code_b):
        (gradient,) = torch.autograd.grad(code.square().sum(), shared, retain_graph=True)
        assert gradient.abs().max() > 0


def test_reversal_keeps_the_value_and_turns_the_gradient():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reversed_gradient(x, 0.5)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, 4.0])).sum().backward()
    assert x.grad.tolist() == [-1.5, -2.0]


def test_the_classifier_gains_and_the_encoders_work_against_it(learner_of):
    learner = learner_of()
    nets = learner.nets
    value = scene_of(learner).domain()
    code_a, code_b = nets.g.encode(batch_of()[0]["a"], "a"), nets.g.encode(batch_of()[0]["b"], "b")
    plain = losses.binary(nets.domains(code_a), False) + losses.binary(nets.domains(code_b), True)
    assert value.item() == pytest.approx(plain.item(), rel=1e-6)
    for net, sign in ((nets.domains, 1), (nets.g.encoders, -1), (nets.g.shared_encoder, -1)):
        given = torch.autograd.grad(value, list(net.parameters()), retain_graph=True)
        wanted = torch.autograd.grad(plain, list(net.parameters()), retain_graph=True)
        assert all(torch.allclose(x, sign * y, atol=1e-7) for x, y in zip(given, wanted, strict=True))
        assert any(x.abs().max() > 0 for x in given)


@pytest.mark.parametrize(("schedule", "progress", "expected"), [("constant", 0.0, 2.0), ("dann", 0.0, 0.0)])
def test_the_reversal_may_rise(learner_of, schedule, progress, expected):
    learner = learner_of(schedule=schedule, reversal=2.0)
    assert scene_of(learner, progress=progress).reversal == pytest.approx(expected)
    half = scene_of(learner_of(schedule="dann"), progress=0.5).reversal
    assert half == pytest.approx(2 / (1 + math.exp(-5)) - 1)


def test_its_losses_are_the_objective_written_out(learner_of):
    learner = learner_of()
    scene, g = scene_of(learner), learner.nets.g
    again = (scene.drawn_a[1] - scene.a).square().mean() + (scene.drawn_b[1] - scene.b).square().mean()
    assert scene.reconstruction().item() == pytest.approx(again.item(), rel=1e-6)
    of_a, of_b = g.encode(scene.a, "a"), g.encode(scene.b, "b")
    apart = (of_a - g.encode(scene.fake_b, "b")).abs().mean() + (of_b - g.encode(scene.fake_a, "a")).abs().mean()
    assert scene.semantic().item() == pytest.approx(apart.item(), rel=1e-5)
    known = learner.helpers.face(scene.a)
    cosine = torch.cosine_similarity(learner.nets.match(of_a), known).mean()
    assert scene.teacher().item() == pytest.approx(1 - cosine.item(), abs=1e-6)
    assert scene.adversarial_b().item() == pytest.approx((learner.nets.db(scene.fake_b) - 1).square().mean().item())


def test_translations_and_reconstructions_are_what_the_nets_make(learner_of):
    learner = learner_of()
    learner.nets.eval()  # batch normalisation of a batch sees all of it
    scene, g = scene_of(learner), learner.nets.g
    pairs = {"a": (scene.fake_a, g.encode(scene.b, "b")), "b": (scene.fake_b, g.encode(scene.a, "a"))}
    for domain, (made, code) in pairs.items():
        assert torch.allclose(made, g.decode(code, domain), atol=1e-6)
    assert torch.allclose(scene.drawn_a[1], g.decode(g.encode(scene.a, "a"), "a"), atol=1e-6)
    assert torch.allclose(scene.drawn_b[1], g.decode(g.encode(scene.b, "b"), "b"), atol=1e-6)


def test_a_dropped_reconstruction_is_not_drawn(learner_of):
    drawn = []
    for active in (("reconstruction",), ()):
        learner = learner_of()
        learner.nets.g.decoders.a.register_forward_hook(lambda m, given, out: drawn.append(len(out)))
        scene_of(learner, active).adversarial_a()
    assert drawn == [4, 2]


@pytest.mark.parametrize("detach", [True, False])
def test_the_semantic_loss_may_leave_the_images_own_embedding(learner_of, detach):
    scene = scene_of(learner_of(detach=detach))
    scene.fake_a, scene.fake_b = scene.fake_a.detach(), scene.fake_b.detach()
    (gradient,) = torch.autograd.grad(scene.semantic(), scene.code_a, allow_unused=True)
    assert (gradient is None) == detach


def test_the_teacher_is_for_photos_only_and_learns_nothing(learner_of):
    learner = learner_of()
    scene = scene_of(learner)
    scene.teacher().backward()
    assert all(p.grad is None for p in learner.nets.g.encoders.b.parameters())
    assert all(p.grad.abs().max() > 0 for p in learner.nets.g.encoders.a.parameters())
    assert all(p.grad is None for p in learner.helpers.parameters())


def test_a_teacher_of_another_length_or_kind_is_refused(face_weights):
    with pytest.raises(CardError, match="8 features, not 128") as error:
        XGAN({"teacher": face_weights}, SIZE).helpers(checkpoint.load_model, ["teacher"])
    assert error.value.hint == "--set params.teacher_features=8"
    with pytest.raises(CardError, match="does not compute face features"):
        XGAN({"teacher": "anime"}, SIZE).helpers(checkpoint.load_model, ["teacher"])


def test_the_shipped_teacher_fits_the_defaults():
    face = XGAN({}, 64).helpers(checkpoint.load_model, ["teacher"])["face"]
    assert face(torch.rand(2, 3, 64, 64)).shape == (2, 128)


def test_weights_take_images_of_their_own_size_only():
    with pytest.raises(ValueError, match="32 x 32 px only"):
        XGANGenerator(4, 32, SIZE).encode(torch.rand(1, 3, 64, 64), "a")
    for size in (16, 40):
        with pytest.raises(CardError, match="size"):
            XGAN({}, size).check(size)
    assert XGAN.multiple == 0


def test_the_numbers_of_its_preset():
    kind, _ = registry.find("xgan")
    weights = {name: found.weight for name, found in kind.terms().items()}
    codes = {"reconstruction": 1, "domain": 0.7, "semantic": 0.5, "teacher": 0.75}
    assert weights == {**codes, **dict.fromkeys(("adversarial_a", "adversarial_b", "judge_a", "judge_b"), 1)}
    assert kind.defaults["data"] == {"size": 64, "batch": 32}


@pytest.mark.slow
def test_a_few_steps_draw_the_images_again(learner_of):
    only = {name: 0 for name in XGAN.terms() if name not in ("reconstruction", "semantic")}
    learner = learner_of(only)
    for group in learner.optims["G"].param_groups:
        group["initial_lr"] = 1e-3
    values = [train_step(learner, batch_of(), Progress(step, 60))["reconstruction"].item() for step in range(60)]
    assert values[-1] < 0.7 * values[0]


def test_l2_is_the_mean_square():
    x = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    assert losses.l2(x, torch.zeros(2, 2)).item() == pytest.approx(5.25 / 4)
    assert losses.l2(x, x).item() == 0
