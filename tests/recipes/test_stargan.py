"""StarGAN: its nets, its losses written out, whose turn it is, its learning rate, and translating to labels."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import toy
from facekit.errors import CardError
from facekit.nets.stargan import StarGANDiscriminator, StarGANGenerator
from facekit.recipe_api import registry
from facekit.recipe_api.base import Progress
from facekit.recipes.stargan import StarGAN, misjudged
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

SIZE = 16
LABELS = ("anger", "smile", "wonder")
SMALL = {"width": 4, "blocks": 1, "d_width": 4, "d_layers": 3}
WATCHED = {"d": "trunk.0.weight", "g": "layers.1.6.weight"}  # a weight of each net


def count(net):
    return sum(p.numel() for p in net.parameters())


def learner_of(weights=None, precision="fp32", **params):
    values = {"recipe": "stargan", "params": {**SMALL, "labels": LABELS, **params}, "data": {"size": SIZE}}
    made = card.TrainCard.model_validate({**values, "run": {"steps": 12, "precision": precision}})
    return build_state(StarGAN(made.params, SIZE), weighted_terms(StarGAN, weights or {}), made, torch.device("cpu"))


def batch_of(number=3, dtype=torch.float32):
    torch.manual_seed(1)
    x = torch.rand(number, 3, SIZE, SIZE, dtype=dtype) * 2 - 1
    label = torch.eye(3, dtype=dtype)[torch.arange(number) % 3]
    return {"x": x.contiguous(memory_format=torch.channels_last), "x_label": label}


def scene_of(learner, **more):
    made = learner.recipe
    return made.Scene(made, learner.nets, {**batch_of(), **more}, 0, None, learner.helpers)


# The nets


@pytest.mark.parametrize(
    ("labels", "size", "expected_g", "expected_d"),
    [
        (4, 128, 8_427_392, 44_753_856),
        (5, 128, 8_430_528, 44_762_048),
        (8, 128, 8_439_936, 44_786_624),
        (4, 256, 8_427_392, 44_852_160),
        (5, 256, 8_430_528, 44_884_928),
        (8, 256, 8_439_936, 44_983_232),
    ],
)
def test_parameter_counts(labels, size, expected_g, expected_d):
    with torch.device("meta"):
        nets = StarGAN({"labels": [str(k) for k in range(labels)]}, size).nets()
    assert (count(nets["g"]), count(nets["d"])) == (expected_g, expected_d)


@pytest.mark.parametrize(("size", "layers", "patches"), [(128, 6, 2), (64, 6, 1), (96, 5, 3)])
def test_shapes(size, layers, patches):
    with torch.device("meta"):
        x, label = torch.empty(2, 3, size, size), torch.empty(2, 5)
        net, judge = StarGANGenerator(5), StarGANDiscriminator(5, size, layers=layers)
        y, mask = net(x, net.control(label))
        source, logits = judge(x)
    assert y.shape == x.shape and mask.shape == (2, 1, size, size)
    assert source.shape == (2, 1, patches, patches) and logits.shape == (2, 5)


@pytest.mark.slow
def test_the_layers_are_the_authors():
    net, judge = StarGANGenerator(5), StarGANDiscriminator(5)
    convolutions = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert all(m.padding_mode == "zeros" and m.bias is None for m in convolutions)
    assert all(m.affine and not m.track_running_stats for m in net.modules() if isinstance(m, nn.InstanceNorm2d))
    assert len(convolutions) == 3 + 12 + 3
    assert [m.out_channels for m in judge.trunk[::2]] == [64, 128, 256, 512, 1024, 2048]
    assert {m.negative_slope for m in judge.trunk[1::2]} == {0.01}
    assert judge.source.bias is None and judge.label.bias is None and judge.trunk[0].bias is not None


def test_the_label_gets_past_instance_normalisation():
    torch.manual_seed(0)
    net, x = StarGANGenerator(3, 8, 1), torch.rand(1, 3, 32, 32).expand(3, -1, -1, -1)
    y, _ = net(x, torch.eye(3))
    assert (y[0] - y[1]).abs().max() > 1e-3
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (7, 7):
            module.padding_mode, module._reversed_padding_repeated_twice = "reflect", [3] * 4
    y, _ = net(x, torch.eye(3))
    assert (y[0] - y[1]).abs().max() < 1e-4  # why the padding is of zeros


# The losses


def test_one_label_is_learned_by_cross_entropy():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
    chances = [math.exp(2) / (math.exp(2) + math.exp(-1) + math.exp(0.5)), 1 / (2 + math.exp(3))]
    expected = -sum(math.log(p) for p in chances) / 2
    label = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert misjudged(logits, label, True).item() == pytest.approx(expected)


def test_several_labels_are_learned_by_binary_cross_entropy_summed_over_labels():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
    label = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    each = [math.log(1 + math.exp(-z if t else z)) for z, t in zip(logits.view(-1), label.view(-1), strict=True)]
    assert misjudged(logits, label, False).item() == pytest.approx(sum(each) / 2)


def test_its_losses_are_the_papers():
    learner = learner_of()
    scene, g, d = scene_of(learner), learner.nets.g, learner.nets.d
    fake = g(scene.x, scene.target)[0]
    (on_real, real_logits), (on_fake, fake_logits) = d(scene.x), d(fake)
    assert scene.judge().item() == pytest.approx((on_fake.mean() - on_real.mean()).item(), abs=1e-7)
    assert scene.adversarial().item() == pytest.approx(-on_fake.mean().item())
    assert scene.classify_real().item() == pytest.approx(F.cross_entropy(real_logits, torch.arange(3)).item())
    assert scene.classify().item() == pytest.approx(F.cross_entropy(fake_logits, scene.target.argmax(1)).item())
    assert scene.cycle().item() == pytest.approx((g(fake, scene.x_label)[0] - scene.x).abs().mean().item())
    assert sorted(scene.target.tolist()) == sorted(scene.x_label.tolist())


class Slope(nn.Module):
    """A critic of 2 x 2 patches, each the sum of a quarter of the image, times `steepness`."""

    def __init__(self, steepness):
        super().__init__()
        self.steepness = nn.Parameter(torch.tensor(steepness))

    def forward(self, x):
        return self.steepness * F.avg_pool2d(x, SIZE // 2, divisor_override=1).sum(1, keepdim=True), None


def test_the_penalty_is_of_the_gradient_of_the_sum_of_patches():
    learner = learner_of()
    learner.nets.d = Slope(0.1)
    value = scene_of(learner).penalty()
    length = 0.1 * (3 * SIZE * SIZE) ** 0.5  # the mean of the patches would give a quarter
    assert value.item() == pytest.approx((length - 1) ** 2, rel=1e-5)
    value.backward()
    expected = 2 * (length - 1) * length / 0.1
    assert learner.nets.d.steepness.grad.item() == pytest.approx(expected, rel=1e-5)


def test_the_penalty_looks_between_images_and_translations():
    scene = scene_of(learner_of(), fake=torch.full((3, 3, SIZE, SIZE), 5.0))
    share = ((scene.between - 5) / (scene.x - 5)).flatten(1)
    assert (share.amax(1) - share.amin(1)).max() < 1e-5
    assert share.min() >= 0 and share.max() <= 1 and share[0, 0] != share[1, 0]


@pytest.mark.parametrize("number", [1, 3])
def test_the_penaltys_gradient_is_right_in_channels_last_and_under_autocast(number):
    learner = learner_of(precision="fp64")
    learner.nets.d.to(memory_format=torch.channels_last)
    batch = batch_of(number, torch.float64)
    between = batch.pop("x")
    assert number == 1 or between.is_contiguous(memory_format=torch.channels_last)

    def gradients(between, autocast=False):
        x = between.detach().requires_grad_()
        scene = scene_of(learner, x=between, between=x)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            value = scene.penalty()
        return torch.autograd.grad(value, learner.nets.d.trunk[2].weight)[0]

    found = gradients(between)
    weight, step = learner.nets.d.trunk[2].weight, 1e-5
    with torch.no_grad():
        nudge = torch.zeros_like(weight)
        nudge[1, 2, 0, 1] = step
    values = []
    for sign in (1, -1):
        weight.data += sign * nudge
        values.append(scene_of(learner, x=between, between=between.detach().requires_grad_()).penalty().item())
        weight.data -= sign * nudge
    assert found[1, 2, 0, 1].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4, abs=1e-9)
    assert torch.allclose(gradients(between.contiguous()), found, atol=1e-12)
    assert torch.equal(gradients(between, autocast=True), found)


def test_images_are_seen_by_both_turns_alike():
    learner, drawn, judged = learner_of(augment=0.5, weights={"cycle": 0, "penalty": 0}), [], []
    learner.nets.g.register_forward_hook(lambda m, given, made: drawn.append((*given, made[0].detach())))
    learner.nets.d.register_forward_pre_hook(lambda m, given: judged.append(given[0].detach()))
    train_step(learner, [batch_of()], Progress(4, 12))
    ((image, _, made),) = drawn  # made once, for both turns
    assert sum(torch.equal(image, x) for x in judged) == 1 and sum(torch.equal(made, x) for x in judged) == 2
    assert len(judged) == 3


def test_the_discriminators_first_weights_let_labels_through_all_layers():
    spread = {}
    for init in ("torch", "he"):
        torch.manual_seed(0)
        nets = StarGAN({**SMALL, "labels": LABELS, "d_init": init}, SIZE).nets()
        spread[init] = nets["d"](torch.randn(64, 3, SIZE, SIZE))[1].std(0).mean().item()
    assert 0.3 < spread["he"] < 3 and spread["torch"] < 0.1 * spread["he"]


# Turns and rates


@pytest.mark.slow
@pytest.mark.parametrize(("critic_steps", "turns"), [(5, [4, 9]), (1, list(range(12))), (3, [2, 5, 8, 11])])
def test_steps_are_the_discriminators_and_every_few_the_generators(critic_steps, turns):
    learner, moved = learner_of(critic_steps=critic_steps), []
    for step in range(12):
        before = {net: learner.nets[net].state_dict()[name].clone() for net, name in WATCHED.items()}
        found = train_step(learner, [batch_of()], Progress(step, 12))
        changed = {
            net for net, name in WATCHED.items() if not torch.equal(before[net], learner.nets[net].state_dict()[name])
        }
        assert "d" in changed and ("adversarial" in found) == ("g" in changed)
        moved += [step] if "g" in changed else []
    assert moved == turns


def test_the_rate_falls_over_the_second_half():
    made = StarGAN({})
    factors = [made.lr_factor(Progress(step, 200_000)) for step in (0, 100_000, 150_000, 200_000)]
    assert factors == [1, 1, 0.5, 0]


def test_the_rate_of_the_authors_code_hardly_falls():
    made = StarGAN({"schedule": "stargan_literal"})
    rate, rates = 1e-4, []
    for i in range(200_000):  # as their loop has it
        rates.append(rate)
        if (i + 1) % 1000 == 0 and i + 1 > 100_000:
            rate -= 1e-4 / 100_000
    for step in (0, 99_999, 100_000, 100_999, 101_000, 150_500, 199_999):
        assert 1e-4 * made.lr_factor(Progress(step, 200_000)) == pytest.approx(rates[step], rel=1e-9)
    assert 1e-4 * made.lr_factor(Progress(200_000, 200_000)) == pytest.approx(9.99e-5, rel=1e-6)


def test_the_numbers_of_its_preset():
    kind, preset = registry.find("stargan")
    weights = {name: found.weight for name, found in kind.terms().items()}
    assert weights == {
        **dict.fromkeys(("judge", "classify_real", "adversarial", "classify"), 1),
        **dict.fromkeys(("penalty", "cycle"), 10),
        **dict.fromkeys(("contextual", "mask_size", "mask_variation"), 0),
    }
    assert kind.defaults["data"] == {"size": 128, "batch": 16} and kind.defaults["run"]["steps"] == 200_000
    assert kind.defaults["optim"] == {"lr": 1e-4, "betas": [0.5, 0.999]}
    assert preset == {} and kind.phases[1].every == 5


# Sizes and labels


@pytest.mark.parametrize(
    ("size", "layers", "near"), [(100, 6, (64, 128)), (30, 6, (64,)), (150, 6, (128, 192)), (112, 5, (96, 128))]
)
def test_a_size_that_the_discriminator_cannot_halve_names_the_nearest(size, layers, near):
    with pytest.raises(CardError, match=f"multiple of {2**layers}; not {size}") as error:
        StarGAN({"d_layers": layers}, size).check(size)
    assert error.value.hint == " or ".join(f"--size {edge}" for edge in near)
    for edge in near:
        StarGAN({"d_layers": layers}, edge).check(edge)


def test_images_of_other_sizes_can_be_translated():
    learner = learner_of()
    assert learner.recipe.multiple == 4
    assert learner.recipe.translate(learner.nets, torch.rand(1, 3, 20, 36), "smile").shape == (1, 3, 20, 36)


def test_labels_are_translated_to_by_name_and_several_where_images_have_several():
    learner = learner_of(single=False)
    made, g, x = learner.recipe, learner.nets.g, batch_of(2)["x"]
    for to, rows in (("smile", [[0.0, 1, 0], [0, 1, 1]]), ("smile+anger", [[1.0, 1, 0], [1, 1, 1]])):
        found = made.translate(learner.nets, x, to, source=["", "wonder"])
        assert torch.equal(found, g(x, torch.tensor(rows))[0])
    assert made.combines and not learner_of().recipe.combines
    with pytest.raises(CardError, match="must know these") as caught:
        made.translate(learner.nets, x, "smile")
    assert "--from" in caught.value.hint


def test_strength_blends_attributes_with_those_of_the_face():
    learner, x = learner_of(single=False), batch_of(1)["x"]
    found = learner.recipe.translate(learner.nets, x, "smile", 0.5, ["wonder"])
    assert torch.allclose(found, learner.nets.g(x, torch.tensor([[0.0, 0.5, 1]]))[0], atol=1e-6)


def test_previews_take_the_attributes_that_the_discriminator_sees():
    learner, x = learner_of(single=False), batch_of(2)["x"]
    learner.nets.d.label.weight.data[1] = 0  # of the label smile: 0 is not above 0
    seen = learner.nets.d(x)[1] > 0
    columns = learner.recipe.preview(learner.nets, x, "anger")
    wanted = seen.float()
    wanted[:, 1] = 1
    assert not seen[:, 1].any()
    assert torch.allclose(columns["smile"], learner.nets.g(x, wanted)[0], atol=1e-6)


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
def test_strength_blends_the_label_plane(strength):
    learner = learner_of()
    x = batch_of(1)["x"]
    rest = (1 - strength) / 3
    plane = torch.tensor([[rest, rest + strength, rest]])
    expected = learner.nets.g(x, plane)[0]
    assert torch.allclose(learner.recipe.translate(learner.nets, x, "smile", strength), expected, atol=1e-6)


def test_several_labels_train():
    learner = learner_of(single=False)
    label = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 1]])
    found = train_step(learner, [{**batch_of(), "x_label": label}], Progress(0, 12))
    assert all(torch.isfinite(value) for value in found.values())
    assert found["classify_real"].item() == pytest.approx(3 * math.log(2), rel=0.2)  # of an untrained net


@pytest.mark.slow
def test_the_discriminator_learns_labels():
    only = {name: 0 for name in StarGAN.terms() if name != "classify_real"}
    learner = learner_of(only)
    for group in learner.optims["D"].param_groups:
        group["initial_lr"] = 3e-3
    values = [train_step(learner, [batch_of()], Progress(0, 99))["classify_real"].item() for _ in range(60)]
    assert values[-1] < 0.3 * values[0]


@pytest.mark.slow
def test_it_trains_the_same_twice_and_translates(facekit, tmp_path):
    for seed, label in enumerate(LABELS):
        toy.fill(tmp_path / "data" / label, 9, SIZE, seed)
    settings = [f"--set=params.{key}={value}" for key, value in {**SMALL, "critic_steps": 2}.items()]

    def train(out, steps):
        common = ["--data", tmp_path / "data", "--size", SIZE, "--batch", 3, "--set=run.save_every=2", *settings]
        done = facekit("train", "stargan", "--out", tmp_path / out, "--steps", steps, *common)
        assert done.code == 0, done.err
        return (tmp_path / out / "model.safetensors").read_bytes()

    assert train("once", 4) == train("again", 4)
    done = facekit(
        "translate", "--weights", tmp_path / "once", "--to", "smile", tmp_path / "data", tmp_path / "o", "--no-align"
    )
    assert done.code == 0, done.err
    assert len(list((tmp_path / "o").rglob("*.png"))) == 27
    assert (
        facekit("translate", "--weights", tmp_path / "once", "--to", "smil", tmp_path / "data", tmp_path / "p").code
        == 2
    )
