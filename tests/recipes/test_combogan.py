"""ComboGAN: its nets, the two domains of a step, its losses, its data by label, and translations that are told."""

import copy
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

import toy
from facekit.errors import CardError
from facekit.nets.combogan import ComboDecoder, ComboDiscriminator, ComboEncoder, blur_kernel
from facekit.recipe_api import checkpoint
from facekit.recipe_api.base import Progress
from facekit.recipes.combogan import DEPTHS, ComboGAN, chosen_pair, depth_lsgan
from facekit.storage import card
from facekit.training.loop import seed_of, train_step
from facekit.training.plan import make_plan
from facekit.training.run import make_batches
from facekit.training.state import build_state, weighted_terms

LABELS = ("train2", "train10", "train1")
SMALL = {"width": 4, "encoder_blocks": 1, "decoder_blocks": 1, "d_width": 4, "pool": 2, "labels": LABELS}
SIZE = 16


def learner_of(weights=None, **params):
    given = {**SMALL, **params}
    values = {"recipe": "combogan", "params": given, "data": {"size": SIZE}, "run": {"steps": 9}}
    terms = weighted_terms(ComboGAN, weights or {})
    return build_state(ComboGAN(given, SIZE), terms, card.TrainCard.model_validate(values), torch.device("cpu"))


def batch_of(number=1, micros=1, domains=3):
    draw = torch.Generator().manual_seed(1)
    names = [f"x{k}" for k in range(domains)]
    return [{name: torch.rand(number, 3, SIZE, SIZE, generator=draw) * 2 - 1 for name in names} for _ in range(micros)]


def scene_of(learner, seed=0, progress=1.0):
    torch.manual_seed(seed)
    return learner.recipe.Scene(
        learner.recipe, learner.nets, batch_of()[0], 0, None, learner.helpers, (), progress, seed
    )


def used(learner):
    """Return a list that is told (net, domain) at every use of a net of a domain."""
    calls = []
    for name in ("encoders", "decoders", "judges", "pools"):
        for k, net in enumerate(learner.nets[name]):
            net.register_forward_hook(lambda m, given, out, name=name, k=k: calls.append((name, k)))
    return calls


def counted(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_parameter_counts():
    with torch.device("meta"):
        encoder, decoder, judge = ComboEncoder(), ComboDecoder(), ComboDiscriminator()
    assert counted(encoder) == 5_099_143
    assert counted(decoder) == 6_565_770
    assert (counted(judge.grey), counted(judge.colour), counted(judge)) == (6_964_681, 6_966_729, 13_931_410)


def test_each_prelu_has_one_parameter():
    with torch.device("meta"):
        nets = (ComboEncoder(), ComboDecoder(), ComboDiscriminator())
    found = [[m.weight.numel() for m in net.modules() if isinstance(m, nn.PReLU)] for net in nets]
    assert found == [[1] * 7, [1] * 7, [1] * 10]


def test_the_recipe_has_one_of_each_net_for_a_label():
    with torch.device("meta"):
        nets = ComboGAN({"labels": LABELS}).nets()
    sizes = {name: [counted(net) for net in nets[name]] for name in ("encoders", "decoders", "judges")}
    assert sizes == {"encoders": [5_099_143] * 3, "decoders": [6_565_770] * 3, "judges": [13_931_410] * 3}
    assert [pool.images.shape for pool in nets["pools"]] == [(50, 3, 256, 256)] * 3


@pytest.mark.slow
def test_shapes():
    with torch.device("meta"):
        x = torch.empty(2, 3, 256, 256)
        code = ComboEncoder()(x)
        assert code.shape == (2, 256, 64, 64)
        assert ComboDecoder()(code).shape == x.shape
        maps = [tuple(depth.shape) for depth in ComboDiscriminator()(x)]
    assert maps == [(2, 1, 130, 65), (2, 1, 66, 33), (2, 1, 34, 17), (2, 1, 38, 19)]


def test_the_discriminator_sees_luminance_above_and_blurred_colours_below():
    torch.manual_seed(0)
    net, x = ComboDiscriminator(4), torch.rand(1, 3, 32, 32)
    tint = torch.tensor([0.114, 0.0, -0.299]).view(1, 3, 1, 1) * torch.rand(1, 1, 32, 32)
    assert (tint * net.luma.view(1, 3, 1, 1)).sum(1).abs().max() < 1e-7  # luminance stays
    for before, after in zip(net(x), net(x + tint), strict=True):
        assert torch.allclose(*(y.chunk(2, 2)[0] for y in (before, after)), atol=1e-4)
        assert not torch.allclose(*(y.chunk(2, 2)[1] for y in (before, after)), atol=1e-2)


def test_a_dot_of_colour_is_a_grey_dot_and_a_blurred_one():
    net, x = ComboDiscriminator(4), torch.zeros(1, 3, 32, 32)
    x[0, 1, 10, 12] = 1
    seen = {}
    for name, part in (("grey", net.grey), ("colour", net.colour)):
        part.register_forward_pre_hook(lambda m, given, name=name: seen.update({name: given[0][0]}))
    net(x)
    assert seen["grey"][0, 10, 12].item() == pytest.approx(0.587) and seen["grey"].count_nonzero() == 1
    assert torch.allclose(seen["colour"][1, 8:13, 10:15], blur_kernel(5, 3.0)) and seen["colour"].count_nonzero() == 25


def test_the_blur_is_the_authors_point_spread_by_scipys_gaussian_filter():
    kernel = blur_kernel(5, 3.0)
    row = torch.tensor([0.199729, 0.200104, 0.200333, 0.200104, 0.199729])
    assert torch.allclose(kernel.sum(0), row, atol=1e-6) and torch.allclose(kernel.sum(1), row, atol=1e-6)
    point = np.zeros((5, 5))
    point[2, 2] = 1
    assert torch.allclose(kernel.double(), torch.from_numpy(ndimage.gaussian_filter(point, 3)), atol=1e-7)
    assert torch.equal(ComboDiscriminator(4).blur, kernel.expand(3, 1, 5, 5))


def test_a_judgement_is_the_last_channel_and_no_input_of_the_next_depth():
    torch.manual_seed(0)
    net, x = ComboDiscriminator(4).colour, torch.rand(1, 3, 32, 32)
    first, second = net(x)[:2]
    with torch.no_grad():
        net.depths[0][0].weight[-1].normal_()
    changed, same = net(x)[:2]
    assert not torch.allclose(first, changed)
    assert torch.equal(second, same)


def test_depths_count_1_2_3_5_over_44():
    judged = [torch.full((1, 1, 2, 2), value) for value in (2.0, -1.0, 0.5, 3.0)]
    fake = (1 * 4 + 2 * 1 + 3 * 0.25 + 5 * 9) / 44
    real = (1 * 1 + 2 * 4 + 3 * 0.25 + 5 * 4) / 44
    assert depth_lsgan(judged, False).item() == pytest.approx(fake)
    assert depth_lsgan(judged, True).item() == pytest.approx(real)
    assert DEPTHS == (1, 2, 3, 5)


@pytest.mark.slow
def test_its_losses_are_the_objective_written_out():
    learner = learner_of()
    scene = scene_of(learner, progress=0.25)
    i, j = scene.pair
    enc, dec, judges = (learner.nets[name] for name in ("encoders", "decoders", "judges"))
    x, y = (getattr(scene, f"x{k}") for k in (i, j))
    x_in_j, y_in_i = dec[j](enc[i](x)), dec[i](enc[j](y))
    near = F.smooth_l1_loss

    def small(image):
        return F.avg_pool2d(image, 3, 2)

    wanted = {
        "adversarial": depth_lsgan(judges[j](x_in_j), True) + depth_lsgan(judges[i](y_in_i), True),
        "cycle": near(dec[i](enc[j](x_in_j)), x) + near(dec[j](enc[i](y_in_i)), y),
        "identity": near(small(dec[i](enc[i](x))), small(x)) + near(small(dec[j](enc[j](y))), small(y)),
        "latent": 0.25 * (near(enc[j](x_in_j), enc[i](x)) + near(enc[i](y_in_i), enc[j](y))),
        "forward": near(small(x_in_j), small(x)) + near(small(y_in_i), small(y)),
        "judge": sum(
            (depth_lsgan(judges[k](real), True) + depth_lsgan(judges[k](fake), False)) / 2
            for k, real, fake in ((i, x, y_in_i), (j, y, x_in_j))
        ),
    }
    for name, value in wanted.items():
        assert getattr(scene, name)().item() == pytest.approx(value.item(), rel=1e-4), name
    assert set(wanted) == set(ComboGAN.terms())
    weights = {name: found.weight for name, found in ComboGAN.terms().items()}
    assert weights == {"adversarial": 1, "cycle": 10, "identity": 0, "latent": 0, "forward": 0, "judge": 1}


def test_the_latent_loss_grows_and_moves_the_translations_code_only():
    scene = scene_of(learner_of(), progress=0.0)
    assert scene.latent().item() == 0
    scene = scene_of(learner_of())
    scene.fake = tuple(x.detach() for x in scene.fake)
    assert scene.latent().item() > 0
    assert torch.autograd.grad(scene.latent(), scene.code, allow_unused=True) == (None, None)


@pytest.mark.slow
def test_every_pair_comes_up_and_the_step_alone_tells_which():
    learner = learner_of()
    drawn = [scene_of(learner, seed).pair for seed in range(120)]
    assert {drawn.count(pair) > 8 for pair in permutations(range(3), 2)} == {True}
    assert drawn == [scene_of(learner, seed).pair for seed in range(120)]
    scene_of(learner)
    scene = scene_of(learner, 5)
    torch.rand(7)  # whatever else was drawn
    assert scene.pair == drawn[5]


@pytest.mark.slow
@pytest.mark.parametrize("weights", [{}, {"adversarial": 0, "cycle": 0}])
def test_both_turns_and_every_accumulated_batch_use_the_same_pair(weights):
    learner = learner_of(weights)
    calls = used(learner)
    seen = set()
    for step in range(8):
        train_step(learner, batch_of(micros=2), Progress(step, 20))
        pairs = [{k for name, k in calls if name == net} for net in ("encoders", "decoders", "judges", "pools")]
        assert len(pairs[0]) == 2 and pairs.count(pairs[0]) == 4
        seen.add(frozenset(pairs[0]))
        calls.clear()
    assert len(seen) == 3


@pytest.mark.slow
def test_d_judges_the_translations_that_g_made():
    learner = learner_of()
    calls = used(learner)
    train_step(learner, batch_of(), Progress(0, 9))
    assert [name for name, _ in calls].count("encoders") == 4  # two there, two back
    assert [name for name, _ in calls].count("decoders") == 4


@pytest.mark.slow
def test_domains_outside_the_pair_stay_as_they_are_whatever_adams_momentum():
    learner = learner_of()
    calls = used(learner)
    for step in range(6):
        train_step(learner, batch_of(), Progress(step, 100))
    assert {k for _, k in calls} == {0, 1, 2}  # all have momentum by now
    for step in range(6, 10):
        before = {name: p.detach().clone() for name, p in learner.nets.named_parameters()}
        calls.clear()
        train_step(learner, batch_of(), Progress(step, 100))
        pair = {k for _, k in calls}
        assert len(pair) == 2
        for name, p in learner.nets.named_parameters():
            if int(name.split(".")[1]) not in pair:
                assert torch.equal(p, before[name]), name
            elif p.ndim > 1:
                assert not torch.equal(p, before[name]), name


def test_a_pool_holds_the_translations_into_its_own_domain():
    learner = learner_of(pool=9)
    into = [0, 0, 0]
    for step in range(4):
        torch.manual_seed(step)
        scene = scene_of(learner, step)
        scene.judge()
        for k, fake in zip(scene.pair, scene.fake, strict=True):
            assert torch.equal(learner.nets["pools"][k].images[into[k]], fake[0])
            into[k] += 1
    assert [int(pool.count) for pool in learner.nets["pools"]] == into and sum(into) == 8


@pytest.mark.slow
def test_resume_is_exact_with_domains_that_have_not_learnt_yet():
    first, second = learner_of({"identity": 1, "latent": 1}), learner_of({"identity": 1, "latent": 1})
    train_step(first, batch_of(), Progress(0, 9))
    second.restore(copy.deepcopy(first.snapshot()))  # torch's Adam keeps the tensors that it is given
    for step in range(1, 5):
        outcomes = [train_step(learner, batch_of(), Progress(step, 9)) for learner in (first, second)]
        assert all(torch.equal(outcomes[0][name], outcomes[1][name]) for name in outcomes[0])


def test_augmentation_changes_what_is_learnt_from():
    plain, changed = scene_of(learner_of()), scene_of(learner_of(augment=1.0))
    assert plain.pair == changed.pair
    for k, x, y in zip(plain.pair, plain.real, changed.real, strict=True):
        assert torch.equal(x, getattr(plain, f"x{k}"))
        assert x.shape == y.shape and not torch.allclose(x, y, atol=0.1)


@pytest.mark.slow
def test_a_few_steps_close_the_cycle():
    learner = learner_of({"adversarial": 0, "judge": 0}, width=8, labels=LABELS[:2])
    for group in learner.optims["G"].param_groups:
        group["initial_lr"] = 4e-3
    values = [train_step(learner, batch_of(), Progress(step, 1000))["cycle"].item() for step in range(30)]
    assert values[-1] < 0.7 * values[0]


def test_the_rate_is_flat_and_then_falls_in_a_line_to_nothing():
    factors = [ComboGAN(SMALL).lr_factor(Progress(step, 100, 10)) for step in (0, 49, 50, 75, 99, 100)]
    assert factors == pytest.approx([1, 1, 1, 0.5, 0.02, 0])


@pytest.fixture
def faces(tmp_path):
    """Three folders of pictures, by label, of different numbers; their alphabet is not their order."""
    for k, label in enumerate(LABELS):
        toy.fill(tmp_path / "faces" / label, 10 + k, SIZE, k)
    return tmp_path / "faces"


def opened(faces, labels=(), **data):
    params = {**SMALL, "labels": list(labels)}
    values = {"recipe": "combogan", "data": {"root": str(faces), "size": SIZE, **data}, "params": params}
    return make_plan([values], "test")


@pytest.mark.parametrize("labels", [LABELS, ("train1", "train10", "train2"), ("train10", "train2")])
def test_domains_stand_in_the_order_of_the_labels_that_are_given(faces, labels):
    plan = opened(faces, labels)
    assert plan.recipe.params.labels == labels and plan.recipe.labels == len(labels)
    assert list(plan.layout.train) == [f"x{k}" for k in range(len(labels))]
    for k, label in enumerate(labels):
        assert {path.parent.name for path in plan.layout.train[f"x{k}"]} == {label}
        assert plan.recipe.number(label) == k
    assert set(plan.recipe.blank(1, SIZE)) == set(plan.layout.train)


def test_labels_of_the_data_are_kept_with_the_weights_in_the_order_of_the_domains(faces):
    plan = opened(faces)
    labels = plan.recipe.params.labels
    assert sorted(labels) == sorted(LABELS) and plan.card.params["labels"] == list(labels)
    assert [plan.layout.train[f"x{k}"][0].parent.name for k in range(3)] == list(labels)


def test_a_step_decodes_the_images_of_its_two_domains_alone(faces):
    plan = make_plan([{**opened(faces).values, "run": {"steps": 8}}], "test")
    batches, plain = make_batches(plan, torch.device("cpu")), make_batches(plan, torch.device("cpu"))
    plain.active = lambda step: None
    for step in range(8):
        (batch,), (whole,) = batches(step), plain(step)
        pair = chosen_pair(seed_of(plan.card.seed, step), 3)
        assert set(batch) - {f"x{k}_label" for k in range(3)} == {f"x{k}" for k in pair}
        assert all(torch.equal(batch[name], whole[name]) for name in batch)
    assert len(batches.domains[0].cache) <= 16


def test_held_out_faces_are_not_trained_on_and_previews_have_faces_of_the_label_before(faces):
    plan = opened(faces, LABELS)
    held = {path for paths in plan.layout.previews.values() for path in paths}
    assert held and not held & {path for paths in plan.layout.train.values() for path in paths}
    assert plan.recipe.previews() == {"train2": "train1", "train10": "train2", "train1": "train10"}
    for source in plan.recipe.previews().values():
        assert {path.parent.name for path in plan.layout.previews[source]} == {source}


def test_a_domain_of_few_images_keeps_its_own_pace(faces, capsys):
    toy.fill(faces / "train2", 50, SIZE, 9)
    plan = opened(faces, LABELS)
    assert [len(set(paths)) == len(paths) for paths in plan.layout.train.values()] == [True] * 3
    sizes = [len(paths) for paths in plan.layout.train.values()]
    assert sizes == [46, 10, 11] and "balance" not in capsys.readouterr().err


def test_several_labels_an_image_and_sizes_that_do_not_fit_are_refused(faces):
    with pytest.raises(CardError, match="exactly one label per image"):
        ComboGAN({**SMALL, "single": False}, SIZE).check(SIZE)
    with pytest.raises(CardError, match="size"):
        opened(faces, size=18)
    assert ComboGAN(SMALL, 12).params.single
    with pytest.raises(CardError, match="size"):
        ComboGAN(SMALL, 12).check(12)


def test_a_translation_takes_the_encoder_of_its_source_and_the_decoder_of_its_target():
    learner = learner_of()
    made, nets = learner.recipe, learner.nets
    torch.manual_seed(2)
    x = torch.rand(4, 3, 20, 24) * 2 - 1
    source = ["train1", "train2", "train1", "train10"]
    with torch.no_grad():
        found = made.translate(nets, x, "train10", source)
        for row, label, y in zip(x, source, found, strict=True):
            encoder = nets["encoders"][LABELS.index(label)]
            assert torch.allclose(nets["decoders"][1](encoder(row[None]))[0], y, atol=1e-5)


def test_a_translation_needs_to_know_what_the_faces_are():
    learner = learner_of()
    made, x = learner.recipe, torch.zeros(2, 3, SIZE, SIZE)
    assert made.takes("source")
    with pytest.raises(CardError, match="need to know what the faces are") as error:
        made.translate(learner.nets, x, "train1")
    assert error.value.hint == "--from train2 or train10 or train1"
    with pytest.raises(CardError, match="train11") as error:
        made.translate(learner.nets, x, "train1", ["train2", "train11"])
    assert "train10" in error.value.hint
    for source in (["train2"], ["train2"] * 3):
        with pytest.raises(ValueError, match="zip"):
            made.translate(learner.nets, x, "train1", source)


def test_a_preview_shows_the_translation_and_the_way_back():
    learner = learner_of()
    x = batch_of()[0]["x0"]
    with torch.no_grad():
        columns = learner.recipe.preview(learner.nets, x, "train2")  # shown on faces of train1
        there = learner.recipe.translate(learner.nets, x, "train2", ["train1"])
        back = learner.recipe.translate(learner.nets, there, "train1", ["train2"])
    assert list(columns) == ["translation", "and back"]
    assert torch.equal(columns["translation"], there) and torch.equal(columns["and back"], back)


@pytest.mark.slow
def test_it_trains_from_the_command_line_and_its_weights_know_their_labels(facekit, faces, tmp_path):
    small = [f"--set=params.{name}={value}" for name, value in SMALL.items() if name != "labels"]
    small += ["--set=params.labels=[train2, train10, train1]", "--size", SIZE, "--steps", 3]
    done = facekit("train", "combogan", "--data", faces, "--out", tmp_path / "run", *small)
    assert done.code == 0, done.err
    assert "activations" in done.err
    assert list((tmp_path / "run" / "previews").glob("*.png"))
    model = checkpoint.load_model(tmp_path / "run")
    assert list(model.directions) == list(LABELS)
    with torch.no_grad():
        made = model.recipe.translate(model.nets, batch_of()[0]["x0"], "train1", ["train2"])
    assert made.shape == (1, 3, SIZE, SIZE) and made.abs().max() <= 1
