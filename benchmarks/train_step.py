"""A training step of ugatit-light at 128 px, batch 1: ours against the same step written the usual way.

The usual way is that of the authors' PyTorch code: the discriminators' turn and the generators' turn each make their
own translations, nothing is frozen or detached, every pass has a batch of its own, normalisation is written out
moment by moment, fp32, contiguous memory. Both use the same widths, losses and Adam. Steps are taken in turn in one
process each; what counts is the ratio.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from machine import machine


def ours(size: int, width: int):
    """Return a function that takes one step of facekit's engine."""
    import torch

    from facekit.card import TrainCard
    from facekit.engine import make_learner, train_step
    from facekit.recipe import Clock, find

    kind, preset = find("ugatit-light")
    params = {**preset["params"], "width": width, "d_width": width}
    card = TrainCard.model_validate({"recipe": "ugatit-light", "data": {"size": size}, "optim": kind.defaults["optim"]})
    learner = make_learner(kind(params, size), kind.terms(), card, torch.device("cpu"))
    batch = {d: torch.rand(1, 3, size, size).mul(2).sub(1) for d in "ab"}

    def step() -> None:
        train_step(learner, [batch], Clock(learner.step, 1000))
        learner.step += 1
        learner.pending.clear()

    return step


def usual(size: int, width: int):
    """Return a function that takes one step the usual way."""
    import torch
    from torch import nn

    from facekit.nets import blocks
    from facekit.nets.ugatit import UGATITDiscriminator, UGATITGenerator

    def by_moments(x, rho, gamma, beta):
        instance_mean, instance_var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True)
        layer_mean, layer_var = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), keepdim=True)
        instance = (x - instance_mean) / torch.sqrt(instance_var + blocks.EPS)
        layer = (x - layer_mean) / torch.sqrt(layer_var + blocks.EPS)
        out = rho.expand(len(x), -1, -1, -1) * instance + (1 - rho.expand(len(x), -1, -1, -1)) * layer
        return out * gamma + beta

    blocks.mixed_norm = by_moments
    torch.manual_seed(0)
    ab, ba = (UGATITGenerator(width, 4, size, True) for _ in range(2))
    judges = [UGATITDiscriminator(width, layers) for layers in (7, 5, 7, 5)]
    judges_a, judges_b = judges[:2], judges[2:]
    options = {"lr": 1e-4, "betas": (0.5, 0.999), "weight_decay": 1e-4}
    g_optim = torch.optim.Adam([*ab.parameters(), *ba.parameters()], **options)
    d_optim = torch.optim.Adam([p for net in judges for p in net.parameters()], **options)
    a, b = (torch.rand(1, 3, size, size).mul(2).sub(1) for _ in range(2))
    mse, l1, bce = nn.MSELoss(), nn.L1Loss(), nn.BCEWithLogitsLoss()

    def towards(x, one):
        return mse(x, torch.ones_like(x) if one else torch.zeros_like(x))

    def step() -> None:
        d_optim.zero_grad()
        fake_b, fake_a = ab(a).out, ba(b).out
        loss = 0
        for nets, real, fake in ((judges_a, a, fake_a), (judges_b, b, fake_b)):
            for net in nets:
                on_real, on_fake = net(real), net(fake)
                loss = loss + towards(on_real.out, True) + towards(on_real.cam, True)
                loss = loss + towards(on_fake.out, False) + towards(on_fake.cam, False)
        loss.backward()
        d_optim.step()
        g_optim.zero_grad()
        there_b, there_a = ab(a), ba(b)
        back_a, back_b = ba(there_b.out), ab(there_a.out)
        same_a, same_b = ba(a), ab(b)
        loss = 10 * (l1(back_a.out, a) + l1(back_b.out, b)) + 10 * (l1(same_a.out, a) + l1(same_b.out, b))
        for there, same in ((there_b, same_b), (there_a, same_a)):
            ones, zeros = torch.ones_like(there.cam), torch.zeros_like(same.cam)
            loss = loss + 1000 * (bce(there.cam, ones) + bce(same.cam, zeros))
        for nets, fake in ((judges_a, there_a.out), (judges_b, there_b.out)):
            for net in nets:
                judged = net(fake)
                loss = loss + towards(judged.out, True) + towards(judged.cam, True)
        loss.backward()
        g_optim.step()
        for net in (ab, ba):
            blocks.clip_rho_(net)

    return step


def measure(kind: str, size: int, width: int) -> None:
    """Answer each line on stdin with the seconds of one step; at its end, with the peak memory."""
    import resource

    step = {"ours": ours, "usual": usual}[kind](size, width)
    step()
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
    print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}), flush=True)


def main() -> None:
    """Run both in turn and print their medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--measure", choices=["ours", "usual"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.size, arguments.width)
        return
    common = [sys.executable, __file__, "--size", str(arguments.size), "--width", str(arguments.width), "--measure"]
    runs = {
        kind: subprocess.Popen([*common, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for kind in ("ours", "usual")
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in runs}
    for _ in range(arguments.steps):
        for kind, run in runs.items():
            run.stdin.write("\n")
            run.stdin.flush()
            seconds[kind].append(json.loads(run.stdout.readline())["seconds"])
    peaks = {}
    for kind, run in runs.items():
        out, _ = run.communicate()
        peaks[kind] = json.loads(out)["peak"]
    print(machine())
    for kind in runs:
        print(f"{kind}: {statistics.median(seconds[kind]):.2f} s a step, peak {peaks[kind]:.0f} MiB")
    ratios = [u / o for o, u in zip(seconds["ours"], seconds["usual"], strict=True)]
    print(f"usual / ours: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
