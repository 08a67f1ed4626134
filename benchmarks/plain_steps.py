"""Training steps of four methods in plain PyTorch: what a researcher writes from the paper, without facekit's loop.

Every phase computes its own translations; real, fake and identity images pass one kind at a time; nothing is frozen or
shared between phases. Each function takes the nets and frozen helpers of a recipe (built by facekit), the arguments of
Adam, and returns `step(batch, number) -> losses`. `tests/training/test_equal_to_plain.py` shows that facekit's loop
gives the same losses; `overhead.py` compares the time.
"""

import torch
import torch.nn.functional as F

from facekit.nets.blocks import clip_rho_


def towards(x, goal):
    return F.mse_loss(x, torch.full_like(x, goal))


def classified(logits, goal):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, goal))


class Phase:
    """One optimiser and the nets that it trains, on a weighted sum of losses."""

    def __init__(self, nets, optim, **weights):
        parameters = [p for net in nets for p in net.parameters()]
        self.optim, self.weights = torch.optim.Adam(parameters, **optim), weights

    def step(self, losses):
        self.optim.zero_grad()
        sum(self.weights.get(name, 1) * loss for name, loss in losses.items()).backward()
        self.optim.step()
        return {name: loss.item() for name, loss in losses.items()}


def ugatit(nets, helpers, optim):
    ab, ba = nets.ab, nets.ba
    judge = Phase([nets.la, nets.ga, nets.lb, nets.gb], optim)
    generate = Phase([ab, ba], optim, cycle=10, identity=10, cam=1000)

    def judged(judges, real, fake):
        return sum(towards(part, goal) for net in judges for x, goal in ((real, 1), (fake, 0)) for part in net(x)[:2])

    def step(batch, number):
        a, b = batch["a"], batch["b"]
        fake_b, fake_a = ab(a).out, ba(b).out
        losses = {"judge_a": judged([nets.la, nets.ga], a, fake_a), "judge_b": judged([nets.lb, nets.gb], b, fake_b)}
        found = judge.step(losses)
        there_b, there_a, same_a, same_b = ab(a), ba(b), ba(a), ab(b)
        sides = (([nets.la, nets.ga], there_a.out), ([nets.lb, nets.gb], there_b.out))
        losses = {
            "adversarial": sum(towards(part, 1) for judges, x in sides for net in judges for part in net(x)[:2]),
            "cycle": F.l1_loss(ba(there_b.out).out, a) + F.l1_loss(ab(there_a.out).out, b),
            "identity": F.l1_loss(same_a.out, a) + F.l1_loss(same_b.out, b),
            "cam": sum(classified(there.cam, 1) for there in (there_a, there_b))
            + sum(classified(same.cam, 0) for same in (same_a, same_b)),
        }
        found |= generate.step(losses)
        clip_rho_(ab)
        clip_rho_(ba)
        return found

    return step


def cyclegan(nets, helpers, optim):
    ab, ba, da, db = nets.ab, nets.ba, nets.da, nets.db
    judge, generate = Phase([da, db], optim), Phase([ab, ba], optim, cycle=10, identity=5)

    def step(batch, number):
        a, b = batch["a"], batch["b"]
        fake_b, fake_a = ab(a), ba(b)
        losses = {
            "adversarial": towards(db(fake_b), 1) + towards(da(fake_a), 1),
            "cycle": F.l1_loss(ba(fake_b), a) + F.l1_loss(ab(fake_a), b),
            "identity": F.l1_loss(ba(a), a) + F.l1_loss(ab(b), b),
        }
        found = generate.step(losses)
        fake_b, fake_a = fake_b.detach(), fake_a.detach()  # of the generators as they were
        losses = {
            "judge_a": (towards(da(a), 1) + towards(da(fake_a), 0)) / 2,
            "judge_b": (towards(db(b), 1) + towards(db(fake_b), 0)) / 2,
        }
        return {**found, **judge.step(losses)}

    return step


def stargan(nets, helpers, optim):
    judge, generate = Phase([nets.d], optim, penalty=10), Phase([nets.g], optim, cycle=10)

    def step(batch, number):
        x, label = batch["x"], batch["x_label"]
        torch.manual_seed(number)
        target = label[torch.rand(len(label)).argsort()]
        share = torch.rand(len(x), 1, 1, 1, dtype=x.dtype)
        real, logits = nets.d(x)
        fake = nets.g(x, target)[0]
        between = (share * x + (1 - share) * fake).detach().requires_grad_()
        gradient = torch.autograd.grad(nets.d(between)[0].sum(), between, create_graph=True)[0]
        losses = {
            "judge": nets.d(fake)[0].mean() - real.mean(),
            "classify_real": F.cross_entropy(logits, label.argmax(1)),
            "penalty": ((gradient.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean(),
        }
        found = judge.step(losses)
        if (number + 1) % 5:
            return found
        fake = nets.g(x, target)[0]
        score, logits = nets.d(fake)
        losses = {
            "adversarial": -score.mean(),
            "classify": F.cross_entropy(logits, target.argmax(1)),
            "cycle": F.l1_loss(nets.g(fake, label)[0], x),
        }
        return {**found, **generate.step(losses)}

    return step


def cartoongan(nets, helpers, optim):
    judge, generate = Phase([nets.d], optim), Phase([nets.ab], optim, content=10)

    def features(x):
        return helpers.vgg(F.interpolate(x, x.shape[-1] * 7 // 8, mode="bilinear"))["conv2_1"]

    def step(batch, number):
        losses = {
            "judge_drawing": towards(nets.d(batch["b"]), 1),
            "judge_smooth": towards(nets.d(batch["b_smooth"]), 0),
            "judge_fake": towards(nets.d(nets.ab(batch["a"])), 0),
        }
        found = judge.step(losses)
        fake = nets.ab(batch["a"])
        losses = {
            "adversarial": towards(nets.d(fake), 1),
            "content": F.l1_loss(features(fake), features(batch["a"])),
        }
        return {**found, **generate.step(losses)}

    return step


STEPS = {
    "cyclegan": cyclegan,
    "ugatit-light": ugatit,
    "ugatit": ugatit,
    "stargan": stargan,
    "cartoongan": cartoongan,
}
