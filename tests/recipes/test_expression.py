"""Rao et al. on top of StarGAN: control of the decoder, the attention mask, the contextual loss, each by itself."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import toy
from facekit.errors import CardError, MissingError
from facekit.nets import pretrained
from facekit.nets.expression import AdaIN, AttentionNetwork, ControlledGenerator, MappingNetwork, MaskedGenerator, blend
from facekit.nets.stargan import StarGANGenerator
from facekit.nets.vgg import VGG
from facekit.ops.contextual import contextual, points
from facekit.recipe_api import registry
from facekit.recipe_api.base import Progress
from facekit.recipes import stargan
from facekit.recipes.stargan import StarGAN
from facekit.runtime import console
from facekit.storage import card
from facekit.training.loop import train_step
from facekit.training.state import build_state, weighted_terms

SIZE = 16
LABELS = ("anger", "smile", "wonder")
SMALL = {"width": 4, "blocks": 2, "d_width": 4, "d_layers": 3, "control_width": 6, "mapping_width": 16}
PRESETS = {name: entry.preset for name, entry in registry.catalogue().items() if entry.target.endswith(":StarGAN")}


def count(*nets):
    return sum(p.numel() for net in nets for p in net.parameters())


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """An untrained VGG19 down to relu1_2, as a weights file."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(VGG("vgg19", ("relu1_2",)).state_dict(), path)
    return str(path)


@pytest.fixture
def learner_of(vgg):
    """Return a function that makes a small learner of a preset."""

    def make(name="expression", weights=None, **params):
        preset = PRESETS[name]
        given = {**SMALL, **preset.get("params", {}), "labels": LABELS, "layer": "relu1_2"}
        given = {**given, "vgg": vgg, **params}
        values = {"recipe": name, "params": given, "data": {"size": SIZE}, "run": {"steps": 8}}
        terms = weighted_terms(StarGAN, {**preset.get("losses", {}), **(weights or {})})
        made = card.TrainCard.model_validate(values)
        return build_state(StarGAN(made.params, SIZE), terms, made, torch.device("cpu"))

    return make


def batch_of(number=3):
    torch.manual_seed(1)
    x = torch.rand(number, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last) * 2 - 1
    return {"x": x, "x_label": torch.eye(3)[torch.arange(number) % 3]}


def scene_of(learner):
    made = learner.recipe
    return made.Scene(made, learner.nets, batch_of(), 0, None, learner.helpers)


# The nets


def test_parameter_counts():
    with torch.device("meta"):
        controlled, attention = ControlledGenerator(4), AttentionNetwork()
        whole = StarGAN({"control": "adain", "mask": True, "labels": list("abcd")}).nets()["g"]
    own = [m for m in controlled.modules() if isinstance(m, AdaIN)]
    assert count(controlled.mapping) == 1_972_480
    assert count(controlled) - count(controlled.mapping) == 9_299_584
    assert count(*own) == 888_192 == 3456 * 257
    assert count(attention) == 8_408_576
    assert count(whole) == 19_680_640


def test_shapes():
    x = torch.rand(2, 3, 20, 28) * 2 - 1
    net = MaskedGenerator(ControlledGenerator(3, 4, 3, 6, 8), AttentionNetwork(4, 1))
    y, mask = net(x, net.control(torch.eye(3)[:2]))
    assert y.shape == x.shape and mask.shape == (2, 1, 20, 28)
    assert mask.min() >= 0 and mask.max() <= 1 and y.abs().max() <= 1


def test_the_mapping_has_nine_layers_and_gives_no_negative_numbers():
    torch.manual_seed(0)
    net = MappingNetwork(4)
    layers = [m for m in net.layers if isinstance(m, nn.Linear)]
    assert [m.out_features for m in layers] == [512] * 8 + [256]
    assert [type(m) for m in net.layers][1::2] == [nn.ReLU] * 9
    code = net(torch.eye(4))
    assert code.min() == 0 and code.max() > 0
    apart = torch.cdist(code, code)[~torch.eye(4, dtype=torch.bool)]
    assert apart.min() > 0.1 * code.norm(dim=1).mean()  # an untrained mapping tells labels apart


def test_adain_is_equation_5():
    torch.manual_seed(0)
    layer, x, control = AdaIN(4, 6), torch.randn(2, 4, 8, 8), torch.rand(2, 6)
    f = layer.f(control)
    for n in range(2):
        for c in range(4):
            plane = x[n, c]
            norm = (plane - plane.mean()) / (plane.var(correction=0) + 1e-5).sqrt()
            assert torch.allclose(layer(x, control)[n, c], (1 + f[n, c]) * norm + f[n, 4 + c], atol=1e-5)
    assert [name for name, _ in layer.named_parameters()] == ["f.weight", "f.bias"]  # no scale and shift of its own
    assert f.abs().max() < 0.3


def test_every_convolution_of_the_decoder_but_the_last_is_controlled_and_none_of_the_encoder():
    net, seen = ControlledGenerator(3, 4, 6, 6, 8), []
    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, AdaIN)):
            module.register_forward_hook(lambda m, given, out, name=name: seen.append((name.split(".")[0], type(m))))
    net(torch.rand(1, 3, SIZE, SIZE), net.control(torch.eye(3)[:1]))
    inside = [kind for part, kind in seen if part == "decoder"]
    assert inside == [nn.Conv2d, AdaIN] * 6 + [nn.ConvTranspose2d, AdaIN] * 2
    assert [kind for part, kind in seen if part == "encoder"] == [nn.Conv2d] * 9
    assert [kind for part, kind in seen if part == "head"] == [nn.Conv2d]


def test_the_control_reaches_every_norm_and_changes_the_image():
    torch.manual_seed(0)
    net, x = ControlledGenerator(3, 4, 2, 6, 8), torch.rand(1, 3, SIZE, SIZE).expand(3, -1, -1, -1)
    y, _ = net(x, net.control(torch.eye(3)))
    assert (y[0] - y[1]).abs().max() > 1e-3 and (y[0] - y[2]).abs().max() > 1e-3
    y.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for name, p in net.named_parameters() if name.endswith("f.weight"))
    assert net.mapping.layers[0].weight.grad.abs().max() > 0


def test_the_mask_mixes_drawing_and_image():
    x, y = torch.full((1, 3, 2, 2), -0.5), torch.full((1, 3, 2, 2), 0.5)
    mask = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]])
    assert blend(mask, y, x)[0, 1].tolist() == [[-0.5, 0.5], [0.0, -0.25]]


def test_where_the_mask_is_0_the_image_stays_and_where_it_is_1_it_is_drawn():
    torch.manual_seed(0)
    painter, x = StarGANGenerator(3, 4, 1), torch.rand(1, 3, SIZE, SIZE)
    net = MaskedGenerator(painter, AttentionNetwork(4, 1))
    label = torch.eye(3)[:1]
    for value, expected in ((0.0, x), (1.0, painter(x, label)[0])):
        net.attention.forward = lambda x, value=value: torch.full_like(x[:, :1], value)
        y, mask = net(x, net.control(label))
        assert torch.equal(y, expected) and mask.unique().item() == value


# The recipe


def test_its_parts_are_switched_on_singly_as_in_table_1():
    parts = {name: (p.get("params", {}), p.get("losses", {})) for name, p in PRESETS.items()}
    full = {"control": "adain", "mask": True}
    assert parts == {
        "stargan": ({}, {}),
        "stargan-control": ({"control": "adain"}, {}),
        "stargan-mask": ({"mask": True}, {}),
        "expression": (full, {"cycle": 0, "contextual": 0.1}),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "masked"),
    [
        ("stargan", StarGANGenerator, False),
        ("stargan-control", ControlledGenerator, False),
        ("stargan-mask", StarGANGenerator, True),
        ("expression", ControlledGenerator, True),
    ],
)
def test_a_preset_has_its_nets_and_learns_them(learner_of, name, kind, masked):
    learner = learner_of(name)
    net = learner.nets.g
    assert isinstance(net, MaskedGenerator) == masked
    assert type(net.painter if masked else net) is kind
    before = {key: value.clone() for key, value in net.named_parameters()}
    found = train_step(learner, [batch_of()], Progress(4, 8))
    assert set(found) == {name for name, term in learner.terms.items() if term.weight}
    moved = [not torch.equal(before[key], value) for key, value in net.named_parameters()]
    assert sum(moved) > 0.9 * len(moved)


def test_the_contextual_loss_compares_translations_with_their_own_images(learner_of):
    learner = learner_of()
    scene = scene_of(learner)
    look = learner.helpers.vgg
    made, real = (look(x)["relu1_2"] for x in (scene.fake, scene.x))
    assert torch.equal(scene.contextual(), contextual(*points(made, real), 0.5))
    assert not torch.allclose(scene.contextual(), contextual(*points(made, real.roll(1, 0)), 0.5))
    assert not scene.contexts[1].requires_grad
    (gradient,) = torch.autograd.grad(scene.contextual(), learner.nets.g.painter.head[0].weight)
    assert gradient.abs().max() > 0


@pytest.mark.slow
def test_one_pass_of_the_generator_serves_all_terms_and_the_cycle_costs_a_second(learner_of):
    for weights, expected in (({}, 1), ({"cycle": 10}, 2), ({"mask_size": 1, "mask_variation": 1}, 1)):
        learner, calls, looks = learner_of(weights=weights), [], []
        learner.nets.g.attention.register_forward_hook(lambda m, given, out, calls=calls: calls.append(m))
        learner.helpers.vgg.register_forward_hook(lambda m, given, out, looks=looks: looks.append(m))
        train_step(learner, [batch_of()], Progress(4, 8))
        assert len(calls) == expected and len(looks) == 2


def test_without_the_contextual_loss_vgg_is_not_loaded(learner_of):
    learner = learner_of(weights={"contextual": 0}, vgg="nowhere.safetensors")
    assert not learner.helpers
    train_step(learner, [batch_of()], Progress(4, 8))
    with pytest.raises(MissingError, match="no weights file"):
        learner_of(vgg="nowhere.safetensors")


def test_the_regularisers_are_the_masks_mean_and_its_differences(learner_of):
    scene = scene_of(learner_of())
    mask = scene.nets.g.attention(scene.x)
    down, across = mask[:, :, 1:] - mask[:, :, :-1], mask[..., 1:] - mask[..., :-1]
    assert scene.mask_size().item() == pytest.approx(mask.mean().item())
    expected = (down.square().mean() + across.square().mean()) / 2
    assert scene.mask_variation().item() == pytest.approx(expected.item())
    assert scene.mask_size().requires_grad
    plain = scene_of(learner_of("stargan-control"))
    assert plain.mask_size() == 1 and plain.mask_variation() == 0


@pytest.mark.parametrize(("positions", "said"), [(100, 1), (256, 0)])
def test_a_cap_on_the_places_is_said_once(learner_of, monkeypatch, positions, said):
    notes = []
    monkeypatch.setattr(console, "note", notes.append)
    learner = learner_of(positions=positions)
    assert scene_of(learner).contexts[0].shape == (3, min(positions, 256), 64)
    train_step(learner, [batch_of()], Progress(4, 8))
    assert len(notes) == said
    assert all("100 of the 256 places of relu1_2" in note for note in notes)


@pytest.mark.parametrize(("layer", "size", "edge"), [("relu1_2", 64, 64), ("relu4_2", 128, 16), ("pool4", 128, 8)])
def test_it_knows_how_large_vggs_features_are(layer, size, edge):
    made = StarGAN({"vgg": "file", "layer": layer}, size)
    with torch.device("meta"):
        assert size // made.reduction == edge
        assert VGG("vgg19", (layer,))(torch.empty(1, 3, size, size))[layer].shape[2] == edge


def test_a_size_too_small_for_vgg_and_an_unknown_layer_are_refused():
    with pytest.raises(CardError, match="32 or more, a multiple of 8; not 16"):
        StarGAN({"vgg": "file", "layer": "relu5_1", "d_layers": 3}, 16).check(16)
    with pytest.raises(CardError, match="no layer relu9_1"):
        StarGAN({"vgg": "file", "layer": "relu9_1"}, 64).helpers(None, {"contextual"})


@pytest.mark.parametrize("name", ["stargan-control", "expression"])
def test_strength_blends_the_control_from_the_mean_of_all_labels(learner_of, name, monkeypatch):
    monkeypatch.setattr(stargan, "CONTROLS", 2)  # two labels at a time, of three
    learner = learner_of(name)
    made, nets, x = learner.recipe, learner.nets, batch_of(2)["x"]
    codes = nets.g.control(torch.eye(3))
    for strength in (0.0, 0.4, 1.0, 2.0):
        control = codes.mean(0) + strength * (codes[1] - codes.mean(0))
        expected = nets.g(x, control.expand(2, -1))[0]
        assert torch.allclose(made.translate(nets, x, "smile", strength), expected, atol=1e-5)
    assert torch.equal(made.translate(nets, x, "smile"), nets.g(x, codes[1:2].expand(2, -1))[0])
    at_rest = [made.translate(nets, x, label, 0.0) for label in LABELS]
    assert torch.equal(at_rest[0], at_rest[1]) and torch.equal(at_rest[0], at_rest[2])


def test_the_mask_is_returned_where_there_is_one(learner_of):
    learner, x = learner_of(), batch_of(2)["x"]
    mask = learner.recipe.mask(learner.nets, x, "smile")
    assert mask.shape == (2, 1, SIZE, SIZE) and 0 <= mask.min() < mask.max() <= 1
    columns = learner.recipe.preview(learner.nets, x, "smile")
    assert list(columns) == [*LABELS, "mask"]
    assert torch.allclose(columns["mask"][:, 2:], mask * 2 - 1) and columns["mask"].shape == x.shape
    for label in LABELS:
        assert torch.equal(columns[label], learner.recipe.translate(learner.nets, x, label))
    plain = learner_of("stargan-control")
    assert list(plain.recipe.preview(plain.nets, x, "smile")) == list(LABELS)
    with pytest.raises(CardError, match="no attention mask"):
        plain.recipe.mask(plain.nets, x, "smile")


def test_bf16_trains_the_whole(learner_of):
    learner = learner_of(weights={"mask_size": 0.1, "mask_variation": 0.1})
    learner.card.run.precision = "bf16"
    found = train_step(learner, [batch_of()], Progress(4, 8))
    assert all(torch.isfinite(value) for value in found.values()) and len(found) == 8


@pytest.mark.slow
def test_it_trains_on_a_folder_per_label_and_translates(facekit, tmp_path, vgg):
    for seed, label in enumerate(LABELS):
        toy.fill(tmp_path / "data" / label, 9, SIZE, seed)
    run, settings = tmp_path / "run", [f"--set=params.{key}={value}" for key, value in SMALL.items()]
    settings += [f"--set=params.vgg={vgg}", "--set=params.layer=relu1_2"]
    train = ["train", "expression", "--data", tmp_path / "data", "--out", run, "--steps", 2, "--size", SIZE]
    done = facekit(*train, "--batch", 3, *settings)
    assert done.code == 0, done.err
    images = tmp_path / "data" / "anger"
    done = facekit("translate", "--weights", run, "--to", "smile", "--no-align", images, tmp_path / "out")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "out").glob("*.png"))) == 9


@pytest.mark.slow
def test_without_vggs_weights_nothing_but_the_contextual_loss_is_missing(facekit, tmp_path, monkeypatch):
    def offline(*given):
        raise MissingError("cannot be downloaded", "go online")

    monkeypatch.setattr(pretrained, "vgg_weights", offline)
    for seed, label in enumerate(LABELS):
        toy.fill(tmp_path / "data" / label, 9, SIZE, seed)
    settings = [f"--set=params.{key}={value}" for key, value in SMALL.items()]

    def train(name, *more):
        common = ["--data", tmp_path / "data", "--steps", 1, "--size", SIZE, "--batch", 2, *settings]
        return facekit("train", name, "--out", tmp_path / f"{name}{len(more)}", *common, *more).code

    assert train("stargan") == 0
    assert train("expression", "--set=params.layer=relu1_2") == 5
    assert train("expression", "--set=losses.contextual=0", "--set=losses.cycle=10") == 0
    assert train("stargan-mask", "--set=params.layer=relu1_2", "--set=losses.contextual=0.1") == 5
