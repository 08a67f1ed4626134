"""CartoonGAN and ArtifyGAN: the smoothed third set, what each judgement sees, the warm-up, and the papers' numbers."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from facekit.data import edge_smoothing
from facekit.data.edge_pairs import SmoothedReader, open_smoothed
from facekit.data.loader import Batches
from facekit.errors import CardError, InputError, MissingError
from facekit.nets import pretrained
from facekit.nets.cartoon import ArtifyDiscriminator, ArtifyGenerator, CartoonDiscriminator, CartoonGenerator
from facekit.nets.vgg import VGG
from facekit.recipe_api import registry
from facekit.recipe_api.base import Progress
from facekit.storage import card
from facekit.training import memory_estimate
from facekit.training.state import build_state, weighted_terms
from support import Mean, Names, Same, moved
from toy import domains, fill

SIZE = 32
SMALL = {"width": 4, "blocks": 1, "d_width": 4, "pool": 0}


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: CartoonGenerator(), 11_129_667),
        (lambda: CartoonGenerator(blocks=16), 20_579_139),
        (lambda: CartoonGenerator(affine=False), 11_120_195),
        (lambda: CartoonGenerator(blocks=10, affine=False), 13_480_515),
        (lambda: CartoonDiscriminator(), 1_129_665),
        (lambda: CartoonDiscriminator(affine=False), 1_128_385),
        (lambda: CartoonDiscriminator(64, affine=False), 4_505_473),
        (lambda: ArtifyGenerator(blocks=8), 10_207_491),
        (lambda: ArtifyGenerator(kernel=3), 12_562_179),
        (lambda: ArtifyGenerator(), 12_569_859),
        (lambda: VGG("vgg19", ("conv4_4",)), 10_585_152),
        (lambda: VGG("vgg16", ("conv4_3",)), 7_635_264),
    ],
)
def test_nets_have_the_parameters_of_their_sources(make, expected):
    with torch.device("meta"):
        assert count(make()) == expected


def test_instance_norms_start_with_scales_between_0_and_1_as_the_authors_torch_code():
    torch.manual_seed(0)
    for net in (CartoonGenerator(16, 2), CartoonDiscriminator(16)):
        scales = torch.cat([m.weight.detach() for m in net.modules() if isinstance(m, nn.InstanceNorm2d)])
        shifts = torch.cat([m.bias.detach() for m in net.modules() if isinstance(m, nn.InstanceNorm2d)])
        assert scales.min() >= 0 and scales.max() <= 1 and not shifts.any()
        assert scales.mean() == pytest.approx(0.5, abs=0.05) and scales.std() == pytest.approx(1 / 12**0.5, abs=0.04)


@pytest.mark.slow
def test_images_keep_their_size_and_every_fourth_px_is_judged():
    with torch.device("meta"):
        x = torch.empty(1, 3, 256, 256)
        for generator in (CartoonGenerator(), ArtifyGenerator(), ArtifyGenerator(kernel=3)):
            assert generator(x).shape == x.shape
        for discriminator in (CartoonDiscriminator(), ArtifyDiscriminator()):
            assert discriminator(x).shape == (1, 1, 64, 64)


def test_artifygans_sigmoid_reaches_both_ends_of_the_range():
    net = ArtifyGenerator(4, 1).eval()
    for bias, end in ((50.0, 1.0), (-50.0, -1.0)):
        nn.init.constant_(net.layers[-2].bias, bias)
        assert torch.allclose(net(torch.rand(1, 3, 16, 16)), torch.tensor(end))


# The smoothed set


def opened(root, smooth=None, **more):
    return open_smoothed(card.Data(root=str(root), size=16, holdout=0, **more), smooth)


def drawn(path, count=4):
    """Drawings with contours that Canny finds."""
    path.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.full((32, 32, 3), 230, np.uint8)
        pixels[8 + i : 24, 8:20] = (20, 40, 60)
        Image.fromarray(pixels).save(path / f"{i:03d}.png")
    return path


def test_without_a_folder_drawings_are_smoothed_as_they_are_read(tmp_path):
    fill(tmp_path / "trainA", 3)
    drawn(tmp_path / "trainB")
    layout = opened(tmp_path)
    sample = layout.readers["b"].read(layout.train["b"][0], 32)
    expected, share = edge_smoothing.smooth(sample["b"])
    assert share > 0 and not np.array_equal(expected, sample["b"])
    assert np.array_equal(sample["b_smooth"], expected)
    assert set(layout.readers) == {"b"}


def test_drawing_and_partner_are_cropped_and_mirrored_together(tmp_path):
    domains(tmp_path, 6, 24)
    (tmp_path / "smooth").mkdir()
    for path in sorted((tmp_path / "trainB").iterdir()):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(tmp_path / "smooth" / path.name)
    layout = opened(tmp_path, str(tmp_path / "smooth"))
    batches = Batches.of(layout.train, 24, layout.readers, seed=3, batch=4, size=16)
    seen = [batch for step in range(4) for batch in batches(step)]
    for batch in seen:
        assert set(batch) == {"a", "b", "b_smooth"}
        assert torch.allclose(batch["b_smooth"], -batch["b"], atol=1e-6)
    assert not torch.equal(seen[0]["b"], seen[1]["b"])


def test_partners_are_found_as_smooth_edges_writes_them(tmp_path, facekit):
    fill(tmp_path / "trainA", 2)
    drawn(tmp_path / "trainB" / "one", 2)
    Image.open(tmp_path / "trainB/one/000.png").save(tmp_path / "trainB/one/000.jpg")  # a namesake
    drawn(tmp_path / "trainB" / "two", 1)
    assert facekit("smooth-edges", tmp_path / "trainB", tmp_path / "smooth").code == 0
    layout = opened(tmp_path, str(tmp_path / "smooth"))
    for path in layout.train["b"]:
        sample = layout.readers["b"].read(path, 32)
        assert np.array_equal(sample["b_smooth"], edge_smoothing.smooth(sample["b"])[0])


def test_a_missing_partner_or_folder_is_an_error_with_the_command_that_creates_it(tmp_path):
    domains(tmp_path, 3)
    with pytest.raises(InputError, match="no smoothed drawings") as error:
        opened(tmp_path, str(tmp_path / "smooth"))
    assert "smooth-edges" in error.value.hint
    fill(tmp_path / "smooth", 2)
    with pytest.raises(InputError, match="2 of 4 drawings have no smoothed partner") as error:
        opened(tmp_path, str(tmp_path / "smooth"))
    assert "002.png" in error.value.message and "smooth-edges" in error.value.hint
    with pytest.raises(InputError, match="no smoothed partner"):
        SmoothedReader("b", {}).read(tmp_path / "trainB/000.png", 16)


def test_a_partner_that_is_broken_is_passed_over(tmp_path):
    domains(tmp_path, 3)
    fill(tmp_path / "smooth", 4)
    (tmp_path / "smooth/001.png").write_bytes(b"no image")
    layout = opened(tmp_path, str(tmp_path / "smooth"))
    batches = Batches.of(layout.train, 16, layout.readers, seed=0, batch=4, size=16)
    assert batches(0)[0]["b_smooth"].shape == (4, 3, 16, 16)
    assert len(batches.domains[1].broken) == 1


# The scene


class Features(nn.Module):
    """Stands for VGG: twice the image, whatever the layer is called."""

    def forward(self, x):
        return {"conv4_4": 2 * x, "conv4_3": 2 * x}


def scene_of(name, params=None, progress=1.0, shift=0.0):
    kind, preset = registry.find(name)
    made = kind({**preset.get("params", {}), **(params or {})}, SIZE)
    batch = {k: torch.full((2, 3, SIZE, SIZE), v) for k, v in (("a", 0.25), ("b", 0.5), ("b_smooth", -0.5))}
    nets = Names(ab=Same(shift), d=Mean(), pool=nn.Identity())
    return made.Scene(made, nets, batch, 0, None, Names(vgg=Features()), (), progress)


def test_lsgan_calls_drawings_real_and_smoothed_ones_and_translations_fake():
    scene = scene_of("cartoongan")
    assert scene.judge_drawing().item() == pytest.approx((0.5 - 1) ** 2)
    assert scene.judge_smooth().item() == pytest.approx(0.5**2)
    assert scene.judge_fake().item() == pytest.approx(0.25**2)
    assert scene.adversarial().item() == pytest.approx((0.25 - 1) ** 2)


@pytest.mark.parametrize(("name", "params"), [("cartoongan", {"gan": "log"}), ("artifygan-r3", {})])
def test_the_log_form_is_the_papers(name, params):
    def log_d(logit):
        return math.log(1 / (1 + math.exp(-logit)))

    scene = scene_of(name, params)
    assert scene.judge_drawing().item() == pytest.approx(-log_d(0.5))
    assert scene.judge_smooth().item() == pytest.approx(-math.log(1 - math.exp(log_d(-0.5))))
    assert scene.judge_fake().item() == pytest.approx(-math.log(1 - math.exp(log_d(0.25))))
    assert scene.adversarial().item() == pytest.approx(-log_d(0.25))


def test_content_is_the_mean_difference_of_features_and_in_artifygan_their_sum():
    features = 3 * SIZE * SIZE
    for name, params, scale in (
        ("cartoongan", {}, 1),
        ("artifygan-r3", {"content_sum": False}, 1),
        ("artifygan-r3", {}, features),
    ):
        assert scene_of(name, params).content().item() == 0
        scene = scene_of(name, params, shift=0.125)
        assert scene.content().item() == pytest.approx(2 * 0.125 * scale, rel=1e-5)
        scene.content().backward()
        assert scene.nets.ab.shift.grad.item() == pytest.approx(2 * scale, rel=1e-5)


def test_content_is_looked_at_before_the_relu_at_224_px_for_256():
    scene = scene_of("cartoongan")
    assert scene.features(torch.zeros(1, 3, 256, 256)).shape[2:] == (224, 224)
    assert scene_of("artifygan-r3").features(torch.zeros(1, 3, 256, 256)).shape[2:] == (256, 256)
    for kind, layer in (("vgg19", "conv4_4"), ("vgg16", "conv4_3")):
        assert isinstance(VGG(kind, (layer,)).features[-1], nn.Conv2d)


# The run


def learner_of(name, monkeypatch, params=None, losses=None):
    monkeypatch.setattr(pretrained, "load_vgg", lambda net, source, kind="vgg19": None)
    kind, preset = registry.find(name)
    values = card.merge(kind.defaults, preset, {"params": {**SMALL, **(params or {})}})
    checked = card.TrainCard.model_validate(
        {"recipe": name, "data": {"size": SIZE, "batch": 2}, "params": values["params"], "optim": values["optim"]}
    )
    terms = weighted_terms(kind, {**values.get("losses", {}), **(losses or {})})
    return build_state(kind(checked.params, SIZE), terms, checked, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cartoongan", "artifygan-r3"])
def test_the_warm_up_learns_content_only_for_a_share_of_the_run(name, monkeypatch):
    learner = learner_of(name, monkeypatch, {"warmup": 0.1})
    for step, nets in ((0, {"ab"}), (9, {"ab"}), (10, {"ab", "d"})):
        found, changed = moved(learner, Progress(step, 100))
        assert changed == nets
        others = [float(v) for k, v in found.items() if k != "content"]
        assert all(value > 0 for value in others) == ("d" in nets) and any(others) == ("d" in nets)
        assert float(found["content"]) > 0


@pytest.mark.slow
def test_the_warm_up_takes_no_pass_of_the_discriminator(monkeypatch):
    learner = learner_of("cartoongan", monkeypatch)
    learner.nets.d.forward = lambda x: pytest.fail("the discriminator was asked")
    moved(learner, Progress(0, 100))


def test_the_learning_rate_is_the_authors():
    kind, _ = registry.find("cartoongan")
    made, lr = kind({}, 256), kind.defaults["optim"]["lr"]

    def at(epoch):
        return lr * made.lr_factor(Progress(round(epoch * 10), 2200, 10))

    assert [at(e) for e in (0, 9, 10, 15)] == pytest.approx([2e-4, 2e-4, 2e-4, 1e-4])
    assert at(19.9) == pytest.approx(2e-6, rel=1e-3)
    assert [at(e) for e in (20, 119, 120, 170, 220)] == pytest.approx([1e-5, 1e-5, 1e-5, 5e-6, 0], abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "blocks", "kernel", "lr", "w", "epochs"),
    [
        ("artifygan-r1", 8, 7, 0.005, 10, 240),
        ("artifygan-r2", 10, 3, 0.1, 0, 210),
        ("artifygan-r3", 10, 7, 0.001, 1e-5, 210),
    ],
)
def test_the_three_rounds_are_table_1_of_artifygan(name, blocks, kernel, lr, w, epochs):
    kind, preset = registry.find(name)
    values = card.merge(kind.defaults, preset)
    params = kind.Params(**values.get("params", {}))
    terms = weighted_terms(kind, values.get("losses", {}))
    assert (params.blocks, params.kernel, params.gan) == (blocks, kernel, "log")
    assert (values["optim"]["lr"], terms["content"].weight, values["run"]["epochs"]) == (lr, w, epochs)
    assert values["data"] == {"size": 256, "batch": 16}
    assert kind(params.model_dump(), 256).nets()["ab"].layers[0].kernel_size == (kernel, kernel)


def test_only_the_second_rounds_learning_rate_falls_exponentially():
    for name, factors in (("artifygan-r2", (1, 0.1, 0.01)), ("artifygan-r1", (1, 1, 1)), ("artifygan-r3", (1, 1, 1))):
        kind, preset = registry.find(name)
        made = kind(preset.get("params", {}), 256)
        assert [made.lr_factor(Progress(step, 100)) for step in (0, 50, 100)] == pytest.approx(factors)


def test_without_the_content_term_vgg_is_not_loaded(monkeypatch):
    learner = learner_of("artifygan-r2", monkeypatch)
    assert not learner.helpers
    found, changed = moved(learner, Progress(0, 100))
    assert "content" not in found and changed == {"ab", "d"}


@pytest.mark.slow
def test_the_discriminator_sees_earlier_translations(monkeypatch):
    learner = learner_of("cartoongan", monkeypatch, {"pool": 3})
    moved(learner, Progress(50, 100))
    assert int(learner.nets.pool.count) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cartoongan", "artifygan-r3"])
def test_the_memory_estimate_is_of_the_time_after_the_warm_up(name):
    kind, preset = registry.find(name)
    values = card.TrainCard.model_validate({"recipe": name, "params": SMALL, "data": {"size": 64, "batch": 2}})
    made = kind({**preset.get("params", {}), **SMALL, "warmup": 0.5}, 64)
    whole = memory_estimate.estimate(made, weighted_terms(kind, {}), values)
    less = memory_estimate.estimate(made, weighted_terms(kind, {"adversarial": 0}), values)
    assert whole.activation_bytes > less.activation_bytes > 0


@pytest.mark.parametrize("name", ["cartoongan", "artifygan-r3"])
def test_vgg_weights_that_are_not_there_are_a_clear_error(name, tmp_path):
    kind, _ = registry.find(name)
    with pytest.raises(MissingError, match="no weights file"):
        kind({"vgg": str(tmp_path / "vgg.safetensors")}, 32).helpers(None, {"content"})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cartoongan", "artifygan-r3"])
def test_it_trains_and_translates_from_the_command_line(name, tmp_path, facekit, monkeypatch):
    monkeypatch.setattr(pretrained, "load_vgg", lambda net, source, kind="vgg19": None)
    domains(tmp_path / "data", 4, SIZE)
    assert facekit("smooth-edges", tmp_path / "data/trainB", tmp_path / "smooth").code == 0
    sets = [f"params.{key}={value}" for key, value in (SMALL | {"smooth": tmp_path / "smooth"}).items()]
    options = [word for value in sets for word in ("--set", value)] + ["--steps", 2, "--size", SIZE, "--batch", 2]
    done = facekit("train", name, "--data", tmp_path / "data", "--out", tmp_path / "run", *options)
    assert done.code == 0, done.err
    made = facekit("translate", tmp_path / "data/trainA", tmp_path / "out", "--weights", tmp_path / "run", "--no-align")
    assert made.code == 0 and len(list((tmp_path / "out").glob("*.png"))) == 4
    (tmp_path / "smooth/000.png").unlink()
    done = facekit("train", name, "--data", tmp_path / "data", "--out", tmp_path / "other", *options)
    assert done.code == 3 and "no smoothed partner" in done.err


@pytest.mark.slow
def test_the_smoothed_set_is_named_by_a_flag(facekit, tmp_path):
    import toy

    data = toy.domains(tmp_path / "data", 4, 32)
    flags = ("--data", data, "--size", 32, "--dry-run", "--smooth")
    done = facekit("train", "cartoongan", *flags, tmp_path / "nowhere")
    assert done.code == 3 and "nowhere" in done.err
    done = facekit("train", "cyclegan", *flags, data / "trainB")
    assert done.code == 2 and "smooth" in done.err
    done = facekit("train", "cartoongan", *flags, data / "trainB")
    assert done.code == 0, done.err


def test_vgg_weights_that_end_too_early_say_how_deep_they_reach(tmp_path):
    save_file(VGG("vgg19", ("relu1_2",)).state_dict(), tmp_path / "vgg.safetensors")
    kind, _ = registry.find("cartoongan")
    with pytest.raises(MissingError, match=r"does not reach conv4_4, only pool1") as caught:
        kind({"vgg": str(tmp_path / "vgg.safetensors")}, 32).helpers(None, {"content"})
    assert "params.layer=pool1" in caught.value.hint
    made = kind({"vgg": str(tmp_path / "vgg.safetensors"), "layer": "pool1"}, 32).helpers(None, {"content"})
    assert made["vgg"].names[-1] == "pool1"
    with pytest.raises(CardError, match="no layer conv9_9"):
        kind({"layer": "conv9_9"}, 32).helpers(None, {"content"})
