"""The engine's step gives the losses of the same step written the plain way, step after step.

The plain way is that of the papers' own code: every turn makes its own translations; real, fake and identity images
pass one kind at a time; nothing is frozen or detached, contiguous in memory, one Adam a turn. Both start from the same
weights. What is held still on both sides: spectral norm's power iteration, which otherwise runs once a pass, and the
plain way has more passes; image pools (0); where StarGAN's penalty looks (the same seed).
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from facekit.nets.blocks import clip_rho_
from facekit.nets.spectral_norm import SpectralConv2d
from facekit.nets.vgg import VGG
from facekit.ops import cpu_conv, winograd
from facekit.recipe_api import registry
from facekit.recipe_api.base import Progress
from facekit.storage import card
from facekit.training.loop import make_learner, train_step, weighted_terms

STEPS = 1000  # of the run: the rate is flat over all that is trained here
SMALL = {"width": 4, "blocks": 1, "d_width": 4}


def towards(x, goal):
    return F.mse_loss(x, torch.full_like(x, goal))


def told(logits, goal):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, goal))


class Turn:
    """One optimiser's turn: the gradients of a weighted sum of losses."""

    def __init__(self, nets, optim, **weights):
        parameters = [p for net in nets for p in net.parameters()]
        self.optim, self.weights = torch.optim.Adam(parameters, **optim), weights

    def take(self, losses):
        self.optim.zero_grad()
        sum(self.weights.get(name, 1) * loss for name, loss in losses.items()).backward()
        self.optim.step()
        return {name: loss.item() for name, loss in losses.items()}


def ugatit(nets, helpers, optim):
    ab, ba = nets.ab, nets.ba
    judge = Turn([nets.la, nets.ga, nets.lb, nets.gb], optim)
    generate = Turn([ab, ba], optim, cycle=10, identity=10, cam=1000)

    def judged(judges, real, fake):
        return sum(towards(part, goal) for net in judges for x, goal in ((real, 1), (fake, 0)) for part in net(x)[:2])

    def step(batch, number):
        a, b = batch["a"], batch["b"]
        fake_b, fake_a = ab(a).out, ba(b).out
        losses = {"judge_a": judged([nets.la, nets.ga], a, fake_a), "judge_b": judged([nets.lb, nets.gb], b, fake_b)}
        found = judge.take(losses)
        there_b, there_a, same_a, same_b = ab(a), ba(b), ba(a), ab(b)
        sides = (([nets.la, nets.ga], there_a.out), ([nets.lb, nets.gb], there_b.out))
        losses = {
            "adversarial": sum(towards(part, 1) for judges, x in sides for net in judges for part in net(x)[:2]),
            "cycle": F.l1_loss(ba(there_b.out).out, a) + F.l1_loss(ab(there_a.out).out, b),
            "identity": F.l1_loss(same_a.out, a) + F.l1_loss(same_b.out, b),
            "cam": told(there_a.cam, 1) + told(there_b.cam, 1) + told(same_a.cam, 0) + told(same_b.cam, 0),
        }
        found |= generate.take(losses)
        clip_rho_(ab)
        clip_rho_(ba)
        return found

    return step


def cyclegan(nets, helpers, optim):
    ab, ba, da, db = nets.ab, nets.ba, nets.da, nets.db
    judge, generate = Turn([da, db], optim), Turn([ab, ba], optim, cycle=10, identity=5)

    def step(batch, number):
        a, b = batch["a"], batch["b"]
        fake_b, fake_a = ab(a), ba(b)
        losses = {
            "adversarial": towards(db(fake_b), 1) + towards(da(fake_a), 1),
            "cycle": F.l1_loss(ba(fake_b), a) + F.l1_loss(ab(fake_a), b),
            "identity": F.l1_loss(ba(a), a) + F.l1_loss(ab(b), b),
        }
        found = generate.take(losses)
        fake_b, fake_a = fake_b.detach(), fake_a.detach()  # of the generators as they were
        losses = {
            "judge_a": (towards(da(a), 1) + towards(da(fake_a), 0)) / 2,
            "judge_b": (towards(db(b), 1) + towards(db(fake_b), 0)) / 2,
        }
        return {**found, **judge.take(losses)}

    return step


def stargan(nets, helpers, optim):
    judge, generate = Turn([nets.d], optim, penalty=10), Turn([nets.g], optim, cycle=10)

    def step(batch, number):
        x, label = batch["x"], batch["x_label"]
        torch.manual_seed(number)
        target = label[torch.rand(len(label)).argsort()]
        share = torch.rand(len(x), 1, 1, 1, dtype=x.dtype)
        real, logits = nets.d(x)
        fake = nets.g(x, target)[0]
        between = (share * x + (1 - share) * fake).detach().requires_grad_()
        slope = torch.autograd.grad(nets.d(between)[0].sum(), between, create_graph=True)[0]
        losses = {
            "judge": nets.d(fake)[0].mean() - real.mean(),
            "classify_real": F.cross_entropy(logits, label.argmax(1)),
            "penalty": ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean(),
        }
        found = judge.take(losses)
        if number % 5:
            return found
        fake = nets.g(x, target)[0]
        score, logits = nets.d(fake)
        losses = {
            "adversarial": -score.mean(),
            "classify": F.cross_entropy(logits, target.argmax(1)),
            "cycle": F.l1_loss(nets.g(fake, label)[0], x),
        }
        return {**found, **generate.take(losses)}

    return step


def cartoongan(nets, helpers, optim):
    judge, generate = Turn([nets.d], optim), Turn([nets.ab], optim, content=10)

    def features(x):
        return helpers.vgg(F.interpolate(x, x.shape[-1] * 7 // 8, mode="bilinear"))["conv2_1"]

    def step(batch, number):
        losses = {
            "judge_drawing": towards(nets.d(batch["b"]), 1),
            "judge_smooth": towards(nets.d(batch["b_smooth"]), 0),
            "judge_fake": towards(nets.d(nets.ab(batch["a"])), 0),
        }
        found = judge.take(losses)
        fake = nets.ab(batch["a"])
        losses = {
            "adversarial": towards(nets.d(fake), 1),
            "content": F.l1_loss(features(fake), features(batch["a"])),
        }
        return {**found, **generate.take(losses)}

    return step


METHODS = {  # how, with what, px, images, steps before rounding to 32 bits has grown past the tolerance
    "ugatit-light": (ugatit, {}, 96, 1, 20),
    "ugatit": (ugatit, {}, 96, 1, 6),
    "cyclegan": (cyclegan, {"pool": 0}, 32, 2, 20),
    "stargan": (stargan, {"labels": ["calm", "glad", "sad"], "d_layers": 3}, 32, 3, 15),
    "cartoongan": (cartoongan, {"pool": 0, "warmup": 0, "layer": "conv2_1"}, 32, 2, 20),
}


@pytest.mark.parametrize("name", METHODS)
def test_the_losses_are_those_of_the_plain_step(name, tmp_path):
    compare(name, {}, "fp32", 1e-5, METHODS[name][-1], tmp_path)


@pytest.mark.parametrize("name", METHODS)
def test_in_64_bits_they_are_so_to_ten_digits(name, tmp_path):
    compare(name, {}, "fp64", 1e-10, 5, tmp_path)


@pytest.mark.parametrize(("heavy", "way"), [(10**9, "conv2d"), (2**12, "unrolled")])
@pytest.mark.parametrize(
    ("name", "precision", "tolerance", "steps"),
    [
        ("cyclegan", "fp32", 1e-5, 3),  # at this width rounding grows sooner
        ("stargan", "fp32", 1e-5, 4),
        ("cyclegan", "fp64", 1e-10, 20),
        ("stargan", "fp64", 1e-10, 20),
    ],
)
def test_so_they_are_with_fewer_products(name, precision, tolerance, steps, heavy, way, tmp_path, monkeypatch):
    monkeypatch.setattr(winograd, "DTYPE", torch.float64 if precision == "fp64" else torch.float32)
    monkeypatch.setattr(winograd, "TILES", 1)
    monkeypatch.setattr(cpu_conv, "HEAVY", heavy)
    home, used = winograd if way == "conv2d" else cpu_conv, []
    real = getattr(home, way)
    monkeypatch.setattr(home, way, lambda *a: used.append(way) or real(*a))
    compare(name, {"width": 32}, precision, tolerance, steps, tmp_path)
    assert used


def compare(name, own, precision, tolerance, steps, tmp_path):
    """Check the losses of a method, with some parameters of its `own`, step by step."""
    plain, params, size, count, _ = METHODS[name]
    kind, preset = registry.find(name)
    optim = {**kind.defaults["optim"], "lr": 1e-5}  # higher rates blow rounding up sooner
    params = {**SMALL, **params, **own}
    if name == "cartoongan":
        torch.manual_seed(1)
        save_file(VGG("vgg19", ("conv2_1",)).state_dict(), tmp_path / "vgg.safetensors")
        params = {**params, "vgg": str(tmp_path / "vgg.safetensors")}
    values = {"recipe": name, "data": {"size": size}, "params": params, "run": {"precision": precision}}
    made = card.TrainCard.model_validate(card.merge({"optim": optim}, preset, values))
    learner = make_learner(kind(made.params, size), weighted_terms(kind, {}), made, torch.device("cpu"))
    for module in learner.nets.modules():
        if isinstance(module, SpectralConv2d):
            module.eval()
    nets, helpers = (
        copy.deepcopy(x).to(memory_format=torch.contiguous_format) for x in (learner.nets, learner.helpers)
    )
    nets.requires_grad_(True)
    step = plain(nets, helpers, optim)
    blank = learner.recipe.blank(count, size)
    for number in range(steps):
        images = {k: torch.rand_like(v) * 2 - 1 if v.dim() == 4 else v for k, v in blank.items()}
        batch = {k: v.to(next(nets.parameters()).dtype) for k, v in images.items()}
        expected = step(batch, number)
        found = {k: v.item() for k, v in train_step(learner, [batch], Progress(number, STEPS)).items()}
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), f"at step {number}"
