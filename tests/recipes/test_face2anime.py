"""Face2Anime: Girkin and Streltsov's four losses as terms over CycleGAN, the mended sign, and the gradient penalty."""

import pytest
import torch
from torch import nn

import toy
from facekit.errors import CardError
from facekit.nets import face_embedding, pretrained
from facekit.nets.resnet import ResnetGenerator
from facekit.nets.xgan import MapClassifier
from facekit.ops import losses
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.recipes.cyclegan import CycleGAN
from facekit.recipes.face2anime import Face2Anime, Recogniser, halves
from facekit.storage import card
from facekit.training import memory_estimate
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

PARAMS = {"width": 4, "blocks": 2, "d_width": 4, "pool": 3}
SIZE = 32
OWN = ("semantic", "domain", "perceptual", "wasserstein", "critic", "penalty")


@pytest.fixture
def learner_of(face_weights):
    """Return a function that makes a small learner."""

    def make(weights=None, precision="fp32", **params):
        given = {**PARAMS, "recogniser": face_weights, **params}
        values = {"recipe": "face2anime", "params": given, "data": {"size": SIZE}}
        values = card.TrainCard.model_validate({**values, "run": {"steps": 4, "precision": precision}})
        terms = weighted_terms(
            Face2Anime, {**dict.fromkeys(("wasserstein", "critic"), 1), "penalty": 10, **(weights or {})}
        )
        return build_state(Face2Anime(given, SIZE), terms, values, torch.device("cpu"))

    return make


def batch_of(number=2, size=SIZE):
    torch.manual_seed(1)
    return [{name: torch.rand(number, 3, size, size) * 2 - 1 for name in "ab"}]


def scene_of(learner, active=("identity",)):
    made = learner.recipe
    return made.Scene(made, learner.nets, batch_of()[0], 0, None, learner.helpers, active, 1.0)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.slow
def test_without_its_own_losses_it_is_cyclegan():
    found = []
    for kind, weights in ((CycleGAN, {}), (Face2Anime, dict.fromkeys(OWN, 0))):
        name = "cyclegan" if kind is CycleGAN else "face2anime"
        values = {"recipe": name, "params": PARAMS, "data": {"size": SIZE}, "run": {"precision": "fp64"}}
        values = card.TrainCard.model_validate(values)  # in 64 bits: rounding grows quickly through the norms
        learner = build_state(kind(PARAMS, SIZE), weighted_terms(kind, weights), values, torch.device("cpu"))
        batch = [{side: x.double() for side, x in batch_of()[0].items()}]
        found.append([train_step(learner, batch, Progress(step, 4)) for step in range(2)])
    for plain, ours in zip(*found, strict=True):
        assert set(plain) == set(ours)
        for name in plain:
            assert ours[name].item() == pytest.approx(plain[name].item(), rel=1e-6), name


@pytest.mark.slow
def test_each_loss_is_a_term_that_can_be_dropped(learner_of):
    everything = set(Face2Anime.terms())
    assert everything == set(CycleGAN.terms()) | set(OWN)
    for dropped in (("semantic",), ("domain",), ("perceptual",), ("wasserstein", "critic", "penalty")):
        learner = learner_of(dict.fromkeys(dropped, 0))
        found = train_step(learner, batch_of(1), Progress(0, 4))
        assert set(found) == everything - set(dropped)
        assert all(torch.isfinite(value) for value in found.values())


@pytest.mark.slow
def test_dropped_losses_cost_nothing(learner_of):
    learner = learner_of(dict.fromkeys(OWN, 0))
    called = []
    assert not learner.helpers
    watched = [learner.nets.domains, learner.nets.wa, learner.nets.wb]
    for net in watched:
        net.register_forward_hook(lambda net, given, out: called.append(net))
    train_step(learner, batch_of(1), Progress(0, 4))
    assert not called
    train_step(learner_of(), batch_of(1), Progress(0, 4))


def test_the_encoder_of_a_generator_ends_among_its_residual_blocks():
    net = ResnetGenerator(4, 6)
    for share, expected in ((0.0, 9), (0.5, 12), (1.0, 15)):
        first, second = halves(net, share)
        assert len(first) == expected and len(first) + len(second) == len(net.layers)
        x = torch.rand(1, 3, SIZE, SIZE)
        assert torch.equal(second(first(x)), net(x))
        assert first(x).shape == (1, 16, SIZE // 4, SIZE // 4)
    with pytest.raises(ValueError, match="blocks"):
        Face2Anime({"blocks": 0}, SIZE)


def test_the_semantic_loss_is_the_equation_written_out(learner_of):
    learner = learner_of()
    scene = scene_of(learner)
    ab, ba = (halves(learner.nets[name], 0.5)[0] for name in ("ab", "ba"))
    made_b, made_a = learner.nets.ab(scene.a), learner.nets.ba(scene.b)
    expected = (ab(scene.a) - ba(made_b)).abs().mean() + (ba(scene.b) - ab(made_a)).abs().mean()
    assert scene.semantic().item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("detach", [True, False])
def test_the_semantic_loss_may_leave_the_images_own_code(learner_of, detach):
    scene = scene_of(learner_of(detach=detach))
    scene.fake_a, scene.fake_b = scene.fake_a.detach(), scene.fake_b.detach()
    (gradient,) = torch.autograd.grad(scene.semantic(), scene.code_a, allow_unused=True)
    assert (gradient is None) == detach


@pytest.mark.slow
def test_the_domain_loss_is_the_papers_with_its_sign_corrected(learner_of):
    """As printed the classifier would maximise a loss that is least where it is right: it could never learn."""
    learner = learner_of(reversal=0.5)
    nets, scene = learner.nets, scene_of(learner)
    value = scene.domain()
    first = {"ab": halves(nets.ab, 0.5)[0], "ba": halves(nets.ba, 0.5)[0]}
    plain = (
        nets.domains(first["ab"](scene.a)).square().mean() + (nets.domains(first["ba"](scene.b)) - 1).square().mean()
    )
    assert value.item() == pytest.approx(plain.item(), rel=1e-5)
    for net, sign in ((nets.domains, 1), (first["ab"], -0.5), (first["ba"], -0.5)):
        given = torch.autograd.grad(value, list(net.parameters()), retain_graph=True)
        wanted = torch.autograd.grad(plain, list(net.parameters()), retain_graph=True)
        for x, y in zip(given, wanted, strict=True):
            assert torch.allclose(x, sign * y, rtol=1e-3, atol=1e-6)
        assert any(x.abs().max() > 1e-6 for x in given)


@pytest.mark.slow
def test_the_classifier_learns_to_tell_the_codes_apart(learner_of):
    only = {name: 0 for name in Face2Anime.terms() if name != "domain"}
    learner = learner_of(only, reversal=0.0)
    for group in learner.optims["G"].param_groups:
        group["initial_lr"] = 1e-2
    values = [train_step(learner, batch_of(), Progress(step, 100))["domain"].item() for step in range(40)]
    assert values[-1] < 0.2 * values[0]


def test_the_map_classifier_judges_places():
    assert MapClassifier(16, 4)(torch.rand(2, 16, 8, 8)).shape == (2, 1, 2, 2)


def test_direction_distance_runs_from_0_to_4_whatever_the_size():
    x = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]]]).movedim(1, 2)  # two images of two channels in one place
    assert losses.direction_distance(x, 5 * x).item() == pytest.approx(0, abs=1e-6)
    assert losses.direction_distance(x, -x).item() == pytest.approx(4)
    assert losses.direction_distance(x, x.flip(1)).item() == pytest.approx(2)


def test_a_recogniser_gives_features_at_several_depths(face_weights):
    net = Recogniser(face_weights, checkpoint.load_model)
    found = net(torch.rand(2, 3, SIZE, SIZE))
    assert [tuple(x.shape[2:]) for x in found] == [(48, 48), (24, 24), (12, 12), (6, 6), (1, 1), ()]
    assert found[-1].shape == (2, 8)
    trunk = net.net.net.face.trunk  # the last map of each resolution: the deepest layer there
    x = trunk[:1](face_embedding.resized(torch.rand(2, 3, SIZE, SIZE), 96))
    assert found[0].shape == x.shape
    assert not any(m._forward_hooks for m in net.modules())


def test_a_recogniser_that_takes_one_image_at_a_time_sees_all_of_a_batch(monkeypatch):
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2)

        def forward(self, x):
            assert len(x) == 1
            return self.conv(x).mean((2, 3))

    def make(path, *more):
        net = face_embedding.OnnxEmbedding(Graph(), 16, 127.5, 128.0)
        net.alone = True
        return net

    monkeypatch.setattr(face_embedding, "onnx_embedding", make)
    net = Recogniser("mine.onnx", checkpoint.load_model)
    x = torch.rand(3, 3, SIZE, SIZE)
    together, apart = net(x), [net(image) for image in x.split(1)]
    assert [tuple(y.shape) for y in together] == [(3, 4, 7, 7), (3, 4)]
    for i, y in enumerate(together):
        assert torch.allclose(y, torch.cat([one[i] for one in apart]))


def test_vgg_may_be_the_recogniser(monkeypatch):
    loaded = []
    monkeypatch.setattr(pretrained, "load_vgg", lambda net, source, kind: loaded.append((source, kind)))
    found = Recogniser("vgg19:download", checkpoint.load_model)(torch.rand(1, 3, SIZE, SIZE))
    assert loaded == [("download", "vgg19")]
    assert [x.shape[1] for x in found] == [64, 128, 256, 512]
    with pytest.raises(CardError, match="does not compute face features"):
        Recogniser("anime", checkpoint.load_model)


@pytest.mark.slow
@pytest.mark.parametrize("compare", ["source", "target"])
def test_the_perceptual_loss_compares_with_the_image_or_with_one_of_its_target(learner_of, compare):
    learner = learner_of(compare=compare)
    scene, look = scene_of(learner), learner.helpers.recogniser
    pairs = {"source": ((scene.fake_b, scene.a), (scene.fake_a, scene.b))}
    pairs["target"] = ((scene.fake_b, scene.b), (scene.fake_a, scene.a))
    apart = [
        losses.direction_distance(x, y)
        for made, real in pairs[compare]
        for x, y in zip(look(made), look(real), strict=True)
    ]
    value = scene.perceptual()
    assert value.item() == pytest.approx(2 * sum(apart).item() / len(apart), rel=1e-4)
    value.backward()
    assert all(any(p.grad.abs().max() > 0 for p in learner.nets[g].parameters()) for g in ("ab", "ba"))
    assert all(p.grad is None for p in look.parameters())


def test_wasserstein_losses_against_their_closed_forms():
    real, fake = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, -1.5]])
    assert losses.wasserstein_g(fake).item() == 0.5
    assert losses.wasserstein_d(real, fake).item() == -2.5
    assert losses.wasserstein_d(real.bfloat16(), fake).dtype == torch.float32


@pytest.mark.parametrize("patches", [1, 4])
def test_the_penalty_of_a_linear_critic_is_its_distance_from_length_1(patches):
    torch.manual_seed(0)
    w = torch.randn(1, 3, 4, 4)
    x = torch.rand(5, 3, 4, 4, requires_grad=True)
    judged = (x * w).sum((1, 2, 3)).view(5, 1, 1, 1).expand(5, 1, patches, patches)
    assert losses.gradient_penalty(judged, x).item() == pytest.approx((w.norm().item() - 1) ** 2, rel=1e-5)


def test_the_penalty_teaches_the_critic_and_no_other(learner_of):
    learner = learner_of()
    for name, net in learner.nets.items():
        net.requires_grad_(name in ("wa", "wb", "da", "db"))
    scene_of(learner).penalty().backward()
    taught = {name for name, net in learner.nets.items() if any(p.grad is not None for p in net.parameters())}
    assert taught == {"wa", "wb"}
    assert all(p.grad.abs().max() > 0 for n in taught for k, p in learner.nets[n].named_parameters() if "weight" in k)


@pytest.mark.slow
def test_the_penalty_is_computed_in_32_bits_under_autocast(learner_of):
    seen = []
    learner = learner_of(precision="bf16")
    learner.nets.wa.layers[0].register_forward_hook(
        lambda net, given, out: seen.append((given[0].requires_grad, out.dtype))
    )
    train_step(learner, batch_of(), Progress(0, 4))
    assert (True, torch.float32) in seen  # the penalty's pass
    assert (False, torch.bfloat16) in seen  # the critic's


@pytest.mark.slow
def test_the_penalty_brings_the_critics_gradient_norm_near_1(learner_of):
    learner = learner_of({name: 0 for name in Face2Anime.terms() if name != "penalty"})
    for group in learner.optims["D"].param_groups:
        group["initial_lr"] = 1e-3
    values = [train_step(learner, batch_of(), Progress(step, 100))["penalty"].item() for step in range(60)]
    assert values[-1] < 0.5 * values[0]


@pytest.mark.slow
def test_critics_may_have_more_turns_than_the_generators(learner_of):
    learner = learner_of(critic_steps=3)
    found = [set(train_step(learner, batch_of(1), Progress(step, 4))) for step in range(4)]
    assert ["cycle" in names for names in found] == [False, False, True, False]  # the last of each three
    assert all("critic" in names and "penalty" in names for names in found)
    assert [phase.every for phase in Face2Anime.phases] == [1, 1]


def test_its_presets_have_lsgan_or_critics():
    _, plain = registry.find("face2anime")
    kind, critic = registry.find("face2anime-critic")
    for preset, lsgan, weight in ((plain, 1, 0), (critic, 0, 1)):
        terms = weighted_terms(kind, preset.get("losses", {}))
        assert [terms[name].weight for name in ("adversarial", "judge_a", "judge_b")] == [lsgan] * 3
        assert [terms[name].weight for name in ("wasserstein", "critic")] == [weight] * 2
        assert terms["penalty"].weight == 10 * weight
        assert all(terms[name].weight == 1 for name in ("semantic", "domain", "perceptual"))


@pytest.mark.slow
def test_the_memory_of_a_step_is_estimated(face_weights):
    given = {**PARAMS, "recogniser": face_weights}
    values = card.TrainCard.model_validate({"recipe": "face2anime", "params": given, "data": {"size": SIZE}})
    made = Face2Anime(given, SIZE)
    guess = memory_estimate.estimate(made, weighted_terms(Face2Anime, dict.fromkeys(OWN, 1)), values)
    assert guess.activation_bytes and guess.activation_bytes > 0


def test_ablate_drops_its_losses_from_the_example_card(facekit, tmp_path):
    example = toy.FILE.parents[1] / "examples" / "cards" / "face2anime-critic.yaml"
    data = toy.domains(tmp_path / "data", 3, SIZE)
    drops = ["semantic", "domain", "perceptual", "wasserstein+critic+penalty"]
    changes = [f"--set=data.root={data}", f"--set=data.size={SIZE}", *(f"--drop={terms}" for terms in drops)]
    done = facekit("ablate", example, *changes, "--out", tmp_path / "out", "--dry-run")
    assert done.code == 0, done.err
    assert all(f"no-{terms.replace('+', '-')}" in done.out + done.err for terms in drops)
