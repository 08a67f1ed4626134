"""AnimeGAN and its second version: nets, losses in closed form, what is judged, the styles' weights, the port."""

from pathlib import Path

import pytest
import torch
from torch import nn

from facekit.errors import CardError, MissingError
from facekit.nets import pretrained
from facekit.nets.animegan import AnimeDiscriminator, AnimeGenerator, AnimeGenerator2, AnimeLite, Halved, load_port
from facekit.nets.blocks import InstanceNorm2d
from facekit.ops import losses
from facekit.recipe_api import checkpoint, registry
from facekit.recipe_api.base import Progress
from facekit.storage import card
from facekit.training import memory_estimate, run_folder
from facekit.training.state import build_state, weighted_terms
from support import Mean, Names, Same, moved

SIZE = 32
STYLES = sorted(name for name in registry.catalogue() if name.startswith("animegan"))
CARDS = Path(__file__).parents[2] / "examples" / "cards"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (AnimeGenerator, 3_956_096),
        (AnimeGenerator2, 2_143_552),
        (AnimeLite, 698_240),
        (AnimeDiscriminator, 1_128_800),
        (lambda: AnimeDiscriminator(instance=True), 1_128_800),
    ],
)
def test_nets_have_the_parameters_of_their_sources(make, expected):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == expected


@pytest.mark.slow
def test_images_keep_their_size_and_every_fourth_px_is_judged():
    with torch.device("meta"):
        for net, height in ((AnimeGenerator(), 36), (AnimeGenerator2(), 36), (AnimeLite(), 40)):
            x = torch.empty(2, 3, height, 64)
            assert net(x).shape == x.shape
        for instance in (True, False):
            assert AnimeDiscriminator(instance=instance)(torch.empty(1, 3, 256, 256)).shape == (1, 1, 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("version", "norm"), [("v1", InstanceNorm2d), ("v2", nn.GroupNorm), ("v2-lite", nn.GroupNorm)])
def test_the_first_version_normalises_instances_the_second_layers(version, norm):
    kind, _ = registry.find("animegan")
    nets = kind({"net": version, "width": 8}, 64).nets()
    for net in nets.values():
        found = {type(m) for m in net.modules() if isinstance(m, (nn.InstanceNorm2d, nn.GroupNorm))}
        assert found == {norm}
    assert all(m.num_groups == 1 for net in nets.values() for m in net.modules() if isinstance(m, nn.GroupNorm))


def test_strided_layers_reflect_at_the_right_and_bottom_in_g_and_pad_zeros_at_the_left_and_top_in_d():
    with torch.no_grad():
        g, d = AnimeGenerator2(8).block_b[0], AnimeDiscriminator(8).layers[2]
        x = torch.rand(1, 16, 8, 8)
        kernel = g[1].weight
        padded = torch.cat([torch.cat([x, x[..., -2:-1]], 3), torch.cat([x, x[..., -2:-1]], 3)[:, :, -2:-1]], 2)
        assert torch.allclose(g[1](g[0](x)), nn.functional.conv2d(padded, kernel, stride=2), atol=1e-6)
        d.eval()
        x, kernel = torch.rand(1, 8, 8, 8), d[1].weight / (d[1].u @ d[1].matrix() @ d[1].v)
        padded = torch.zeros(1, 8, 9, 9)
        padded[:, :, 1:, 1:] = x
        assert torch.allclose(d(x), nn.functional.conv2d(padded, kernel, stride=2), atol=1e-6)


# The losses


def test_gram_is_over_places_and_channels():
    x = torch.arange(1, 9, dtype=torch.float64).view(1, 2, 2, 2)
    one, other = x[0].flatten(1)
    expected = torch.tensor([[one @ one, one @ other], [other @ one, other @ other]]) / (2 * 2 * 2)
    assert torch.allclose(losses.gram(x)[0], expected)
    assert torch.allclose(losses.gram(torch.ones(3, 4, 5, 5)), torch.full((3, 4, 4), 1 / 4))


def test_gram_does_not_know_places():
    x = torch.rand(2, 3, 4, 4)
    shuffled = x.flatten(2)[..., torch.randperm(16)].view_as(x)
    assert torch.allclose(losses.gram(x), losses.gram(shuffled), atol=1e-6)


def test_grey_has_three_equal_channels_of_bt601():
    x = torch.zeros(1, 3, 1, 3)
    for i in range(3):
        x[0, i, 0, i] = 1
    found = losses.grey(x)
    assert found.shape == x.shape and torch.equal(found[:, 0], found[:, 1]) and torch.equal(found[:, 0], found[:, 2])
    assert torch.allclose(found[0, 0, 0], torch.tensor([0.299, 0.587, 0.114]))
    assert torch.allclose(losses.grey(torch.full((1, 3, 2, 2), -1.0)), torch.tensor(-1.0))


def test_yuv_of_white_black_and_red():
    x = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [1, -1, -1]]).T.view(1, 3, 1, 3)
    found = losses.yuv(x)[0, :, 0].T
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0.299, -0.14714119, 0.61497538]])
    assert torch.allclose(found, expected, atol=1e-6)


def test_colour_is_l1_of_y_and_huber_of_u_and_v():
    grey, brighter = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert losses.colour(grey, brighter).item() == pytest.approx(0.25, abs=1e-6)
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 0.5
    y, u, v = (0.25 * f for f in (0.299, -0.14714119, 0.61497538))
    assert losses.colour(grey, red).item() == pytest.approx(y + u**2 / 2 + v**2 / 2, rel=1e-5)
    assert losses.colour(red, red).item() == 0


def test_variation_is_half_the_mean_square_of_both_differences():
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(2, 3, 5, 4)
    assert losses.variation(ramp).item() == pytest.approx(0.5)
    assert losses.variation(ramp + 2 * ramp.new_tensor(range(5)).view(1, 1, 5, 1)).item() == pytest.approx(2.5)
    assert losses.variation(torch.ones(1, 3, 4, 4)).item() == 0


# The scene


class Features(nn.Module):
    """Stands for VGG; keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, x):
        self.shown.append(x)
        return {"conv4_4": 2 * x}


class Judge(Mean):
    """Judges by the mean; keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, x):
        self.shown.append(x)
        return super().forward(x)


def scene_of(progress=1.0, shift=0.0):
    kind, _ = registry.find("animegan2")
    torch.manual_seed(2)
    batch = {name: torch.rand(2, 3, SIZE, SIZE) * 2 - 1 for name in ("a", "b", "b_smooth")}
    nets = Names(ab=Same(shift), d=Judge())
    return kind.Scene(kind({"width": 8}, SIZE), nets, batch, 0, None, Names(vgg=Features()), (), progress)


def test_the_judge_sees_drawings_grey_drawings_and_grey_smoothed_drawings():
    scene = scene_of()
    parts = {"judge_drawing": scene.b, "judge_grey": losses.grey(scene.b), "judge_smooth": losses.grey(scene.b_smooth)}
    for name, image in parts.items():
        value = getattr(scene, name)()
        mean = image.mean((1, 2, 3))
        expected = ((mean - 1) ** 2 if name == "judge_drawing" else mean**2).mean()
        assert value.item() == pytest.approx(expected.item(), rel=1e-4)
        seen = scene.nets.d.shown[-1]
        assert torch.equal(seen, image)
        equal = torch.equal(seen[:, 0], seen[:, 1]) and torch.equal(seen[:, 0], seen[:, 2])
        assert equal == (name != "judge_drawing")


def test_content_compares_with_the_photo_and_style_with_the_grey_drawing():
    scene = scene_of(shift=0.25)
    assert scene.content().item() == pytest.approx(0.5, rel=1e-5)
    expected = (losses.gram(2 * scene.fake) - losses.gram(2 * losses.grey(scene.b))).abs().mean()
    assert scene.style().item() == pytest.approx(expected.item(), rel=1e-5)
    photo, made, drawn = scene.helpers.vgg.shown  # each once
    assert torch.equal(photo, scene.a) and torch.equal(made, scene.fake)
    assert torch.equal(drawn, losses.grey(scene.b))


def test_every_term_of_the_generator_teaches_it():
    for name, found in registry.find("animegan2")[0].terms().items():
        scene = scene_of(shift=0.25)
        value = getattr(scene, name)()
        if found.phase == "G" and name != "variation":  # a shift leaves differences as they are
            value.backward()
            assert scene.nets.ab.shift.grad.abs() > 0


def test_depthwise_weights_start_as_tensorflow_counts_their_fan_in():
    torch.manual_seed(0)
    net = AnimeGenerator2()
    found = {m.out_channels: m.weight.std().item() for m in net.modules() if isinstance(m, nn.Conv2d) and m.groups > 1}
    assert found == {256: pytest.approx(0.0295, rel=0.05), 512: pytest.approx(0.0208, rel=0.05)}
    plain = net.block_c[0][1].weight
    assert plain.std().item() == pytest.approx((2 / plain[0].numel()) ** 0.5, rel=0.05)


def test_the_first_version_halves_an_image_by_taking_every_second_px():
    block, x = Halved(4, 8), torch.rand(1, 4, 12, 12)
    assert torch.allclose(block(x), block.strided(x) + block.resized(x[..., ::2, ::2]))
    old = Halved(4, 8, tensorflow=False)
    mean = nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear")
    assert torch.allclose(old(x), old.strided(x) + old.resized(mean), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("details", "v1", "v2"), [("tensorflow", {1e-5, 1e-6}, {1e-12}), ("pytorch", {1e-5}, {1e-5})])
def test_norms_have_the_epsilons_of_the_framework(details, v1, v2):
    kind, _ = registry.find("animegan")
    for version, expected in (("v1", v1), ("v2", v2), ("v2-lite", v2)):
        net = kind({"net": version, "width": 8, "details": details}, 64).nets()["ab"]
        assert {m.eps for m in net.modules() if isinstance(m, (nn.InstanceNorm2d, nn.GroupNorm))} == expected


@pytest.mark.slow
def test_weights_saved_before_the_details_were_a_parameter_keep_the_old_ones(tmp_path):
    values = {"recipe": "animegan", "params": {"net": "v1", "width": 8, "d_width": 4}, "data": {"size": 64}}
    made = registry.find("animegan")[0]({**values["params"], "details": "pytorch"}, 64)
    nets = nn.ModuleDict({"ab": made.nets()["ab"]})
    checkpoint.save_model(tmp_path / "old.safetensors", nets, card.plain(card.TrainCard.model_validate(values)))
    model, x = checkpoint.load_model(tmp_path / "old.safetensors"), torch.rand(1, 3, 64, 64)
    assert model.recipe.params.details == "pytorch"
    with torch.no_grad():
        assert torch.allclose(model.recipe.translate(model.nets, x, "b"), nets.ab(x), atol=1e-3)


def test_a_run_from_before_the_details_were_a_parameter_is_known_again(tmp_path):
    values = {"recipe": "animegan2", "params": {"width": 8}, "data": {"size": 64}, "run": {"steps": 2}}
    old = card.plain(card.TrainCard.model_validate(values))
    (tmp_path / card.UNFINISHED).write_text(card.dump(old))
    (tmp_path / run_folder.STATE).touch()  # it has saved something
    kind, _ = registry.find("animegan2")
    same, other = ({**old, "params": kind.Params(width=8, details=d).model_dump()} for d in ("pytorch", "tensorflow"))
    assert run_folder.check(tmp_path, same, False) == "unfinished"
    with pytest.raises(CardError, match="details"):
        run_folder.check(tmp_path, other, False)


# The run


@pytest.mark.slow
@pytest.mark.parametrize(("name", "last"), [("animegan", 4), ("cartoongan", 9)])
def test_the_main_phase_starts_with_a_fresh_adam(name, last, monkeypatch):
    learner = learner_of(name, monkeypatch, {"warmup": (last + 1) / 100})
    for step in (last - 1, last, last + 1, last + 2):
        moved(learner, Progress(step, 100))
        (state, *_) = learner.optims["G"].state.values()
        assert int(state["step"]) == (step - last if step > last else step - last + 2)


def learner_of(name, monkeypatch, params=None):
    monkeypatch.setattr(pretrained, "load_vgg", lambda net, source, kind="vgg19": None)
    kind, preset = registry.find(name)
    values = card.merge(kind.defaults, preset, {"params": {"width": 8, "d_width": 4, **(params or {})}})
    checked = card.TrainCard.model_validate(
        {"recipe": name, "data": {"size": SIZE, "batch": 2}, "params": values["params"], "optim": values["optim"]}
    )
    terms = weighted_terms(kind, values.get("losses", {}))
    return build_state(kind(checked.params, SIZE), terms, checked, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epochs"), [("animegan", 5), ("animegan2", 10), ("animegan2-lite", 10)])
def test_the_warm_up_learns_content_only_for_the_authors_epochs(name, epochs, monkeypatch):
    learner = learner_of(name, monkeypatch)
    steps = 10 * 101
    for step, nets in ((0, {"ab"}), (10 * epochs - 1, {"ab"}), (10 * epochs, {"ab", "d"})):
        found, changed = moved(learner, Progress(step, steps, 10))
        assert changed == nets
        assert all(float(v) > 0 for k, v in found.items()) == ("d" in nets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first", "g", "d", "batch"),
    [
        ("animegan", 1e-4, 8e-5, 1.6e-4, 6),
        ("animegan-shinkai", 1e-4, 8e-5, 1.6e-4, 6),
        ("animegan2", 2e-4, 2e-5, 4e-5, 12),
        ("animegan2-lite", 2e-4, 2e-5, 4e-5, 20),
    ],
)
def test_learning_rates_and_batch_are_the_authors(name, first, g, d, batch, monkeypatch):
    learner = learner_of(name, monkeypatch)
    rates = {phase: optim.param_groups[0]["initial_lr"] for phase, optim in learner.optims.items()}
    assert rates == pytest.approx({"G": g, "D": d})
    factor = learner.recipe.lr_factor
    assert g * factor(Progress(0, 1010)) == pytest.approx(first)
    assert [factor(Progress(step, 1010)) for step in (110, 500, 1009)] == [1, 1, 1]
    kind, preset = registry.find(name)
    values = card.merge(kind.defaults, preset)
    assert (values["data"]["batch"], values["data"]["size"], values["run"]["epochs"]) == (batch, 256, 101)


@pytest.mark.parametrize(
    ("name", "real", "fake", "grey", "smooth", "content", "style", "colour", "variation"),
    [
        ("animegan", 1, 1, 1, 0.1, 1.5, 3, 10, 0),
        ("animegan-shinkai", 1, 1, 1, 0.1, 1.1, 3, 10, 0),
        ("animegan2", 1.2, 1.2, 1.2, 0.8, 1.5, 2.5, 15, 1),
        ("animegan2-lite", 1.2, 1.2, 1.2, 0.8, 1.5, 2.5, 15, 1),
        ("animegan2-paprika", 1, 1, 1, 0.005, 2, 0.6, 50, 0.1),
        ("animegan2-shinkai", 1.7, 1.7, 1.7, 1, 1.2, 2, 10, 1),
    ],
)
def test_every_style_has_its_weights(name, real, fake, grey, smooth, content, style, colour, variation):
    kind, preset = registry.find(name)
    for given in (preset.get("losses", {}), card.load(CARDS / f"{name}.yaml")["losses"]):
        weights = {k: t.weight for k, t in weighted_terms(kind, given).items()}
        judged = ("judge_drawing", "judge_fake", "judge_grey", "judge_smooth")
        assert [weights[k] / 300 for k in judged] == pytest.approx([real, fake, grey, smooth])
        assert weights["adversarial"] == 300
        assert [weights[k] for k in ("content", "style", "colour", "variation")] == [content, style, colour, variation]
    assert set(STYLES) == {
        *("animegan", "animegan-shinkai", "animegan2", "animegan2-lite", "animegan2-paprika", "animegan2-shinkai")
    }


@pytest.mark.parametrize(("version", "size", "fits"), [("v1", 36, True), ("v2", 36, True), ("v2-lite", 36, False)])
def test_the_lite_net_needs_multiples_of_8(version, size, fits):
    made = registry.find("animegan2")[0]({"net": version, "width": 8}, size)
    assert made.multiple == (4 if fits else 8)
    if fits:
        return made.check(size)
    with pytest.raises(CardError, match="multiple of 8"):
        made.check(size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["animegan", "animegan2", "animegan2-lite"])
def test_the_memory_estimate_is_of_the_time_after_the_warm_up(name):
    kind, preset = registry.find(name)
    params = {**preset.get("params", {}), "width": 8, "d_width": 4}
    values = card.TrainCard.model_validate({"recipe": name, "params": params, "data": {"size": 64, "batch": 2}})
    whole = memory_estimate.estimate(kind(params, 64), weighted_terms(kind, {}), values)
    less = memory_estimate.estimate(kind(params, 64), weighted_terms(kind, {"style": 0}), values)
    assert whole.activation_bytes > less.activation_bytes > 0


# Weights of the public PyTorch port


def port_shapes():
    """Names and shapes of the port's generator, from the layer table of its model.py."""
    found = {}

    def conv_norm(name, inside, outside, kernel=3, bias=False):
        found[f"{name}.1.weight"] = (outside, inside, kernel, kernel)
        if bias:
            found[f"{name}.1.bias"] = (outside,)
        found[f"{name}.2.weight"] = found[f"{name}.2.bias"] = (outside,)

    def inverted(name, inside, outside):
        conv_norm(f"{name}.layers.0", inside, 2 * inside, 1)
        conv_norm(f"{name}.layers.1", 1, 2 * inside, 3, bias=True)
        found[f"{name}.layers.2.weight"] = (outside, 2 * inside, 1, 1)
        found[f"{name}.layers.3.weight"] = found[f"{name}.layers.3.bias"] = (outside,)

    for index, (inside, outside, kernel) in enumerate([(3, 32, 7), (32, 64, 3), (64, 64, 3)]):
        conv_norm(f"block_a.{index}", inside, outside, kernel)
    conv_norm("block_b.0", 64, 128)
    conv_norm("block_b.1", 128, 128)
    conv_norm("block_c.0", 128, 128)
    inverted("block_c.1", 128, 256)
    for index in (2, 3, 4):
        inverted(f"block_c.{index}", 256, 256)
    conv_norm("block_c.5", 256, 128)
    conv_norm("block_d.0", 128, 128)
    conv_norm("block_d.1", 128, 128)
    for index, (inside, outside, kernel) in enumerate([(128, 64, 3), (64, 64, 3), (64, 32, 7)]):
        conv_norm(f"block_e.{index}", inside, outside, kernel)
    found["out_layer.0.weight"] = (3, 32, 1, 1)
    return found


@pytest.fixture
def port(tmp_path):
    """A file of the port's names and shapes, with random numbers."""
    torch.manual_seed(4)
    values = {name: torch.randn(shape) * 0.1 for name, shape in port_shapes().items()}
    torch.save(values, tmp_path / "port.pt")
    return tmp_path / "port.pt", values


def test_the_net_has_the_names_and_shapes_of_the_port():
    with torch.device("meta"):
        assert {name: tuple(v.shape) for name, v in AnimeGenerator2().state_dict().items()} == port_shapes()


def test_training_starts_from_the_ports_weights(port):
    path, values = port
    net = registry.find("animegan2")[0]({"weights": str(path)}, 64).nets()["ab"]
    assert all(torch.equal(v, values[name]) for name, v in net.state_dict().items())


@pytest.mark.parametrize("wrap", [lambda v: {f"module.{k}": x for k, x in v.items()}, lambda v: {"state_dict": v}])
def test_wrapped_files_are_looked_through(port, wrap):
    net = AnimeGenerator2()
    assert load_port(net, wrap(port[1])) is None
    assert torch.equal(net.out_layer[0].weight, port[1]["out_layer.0.weight"])


def test_files_of_something_else_are_refused_and_change_nothing(port, tmp_path):
    net = AnimeGenerator2()
    before = net.out_layer[0].weight.clone()
    values = {**port[1], "block_c.5.1.weight": torch.zeros(1)}
    assert load_port(net, values) == "block_c.5.1.weight"
    assert torch.equal(net.out_layer[0].weight, before)
    torch.save({"layer": torch.zeros(2)}, tmp_path / "other.pt")
    kind, _ = registry.find("animegan2")
    with pytest.raises(MissingError, match="not of the public port"):
        kind({"weights": str(tmp_path / "other.pt")}, 64).nets()
    with pytest.raises(CardError, match="width 32"):
        kind({"weights": str(port[0]), "net": "v2-lite"}, 64).check(64)
