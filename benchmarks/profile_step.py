"""Where the time of a training step goes, by kind of work, and how near its products come to the machine's ceiling.

Time is an operator's own, of the processor, or of the device where there is CUDA. What runs backward counts with what
ran forward, but for convolutions and matrix products, which have a line for each. The ceiling is the rate of one large
product of matrices in fp32 after each step, compared pair by pair; floating point operations are those of convolutions
and products alone, as torch.utils.flop_counter has them. Recipes that look through VGG get random weights.
"""

import argparse
import collections
import statistics
import tempfile
import time
from pathlib import Path

from machine import machine
from official import LABELS, learner_of, synchronise, take_step

SIDE = 2048  # of the matrices that give the ceiling


def product(side: int = SIDE):
    """Return a function that multiplies two large matrices."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = (torch.rand(side, side, device=device) for _ in range(2))
    return lambda: x @ y


def seconds_of(function) -> float:
    """Return how long a function takes, its work on the device included."""
    synchronise()
    start = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - start


def by_name(name: str) -> str | None:
    """Return the kind of work that an operator's name tells, None where it takes the name of its surroundings."""
    name = name.removeprefix("aten::").lower()
    if "conv" in name:
        return "convolution backward" if "backward" in name else "convolution forward"
    if name in ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "linear", "matmul", "dot"):
        return "matrix products"
    if "_pad" in name:
        return "padding"
    if "batch_norm" in name or "group_norm" in name or "instance_norm" in name or "layer_norm" in name:
        return "normalisation"
    return None


def label(nets) -> None:
    """Make modules name what they do to the profiler: normalisation and spectral norm."""
    from torch import nn

    from facekit.nets.blocks import ILN, AdaLIN

    norms = (AdaLIN, ILN, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm, nn.BatchNorm2d)
    for module in nets.modules():
        named = [(module, "normalisation")] if isinstance(module, norms) else []
        if hasattr(module, "parametrizations"):
            named += [(part, "spectral norm") for part in module.parametrizations["weight"]]
        for part, kind in named:
            part.forward = within(f"kind: {kind}", part.forward)


def within(name: str, function):
    """Return a function that runs under a name in the profile."""
    import torch

    def run(*given, **more):
        with torch.profiler.record_function(name):
            return function(*given, **more)

    return run


def sum_up(events, device: bool) -> dict[str, float]:
    """Sum the own time of events by kind, in seconds."""
    from torch.autograd import DeviceType

    own = "self_device_time_total" if device else "self_cpu_time_total"
    events = [e for e in events if e.device_type == DeviceType.CPU]
    forward: dict[int, str] = {}

    def kind_of(event) -> str:
        scope, at = None, event
        while at is not None and scope is None:
            if at.name.startswith("kind: "):
                scope = at.name.removeprefix("kind: ")
            elif at.name.startswith("Optimizer.step"):
                scope = "Adam"
            elif at.name.startswith("autograd::engine::evaluate_function"):
                scope = forward.get(at.sequence_nr, "other elementwise, backward")
                scope = None if scope.startswith("other") else scope
                break
            at = at.cpu_parent
        if scope in ("spectral norm", "Adam", "normalisation"):
            return scope
        named = None
        at = event
        while at is not None and named is None:
            named = by_name(at.name)
            at = at.cpu_parent
        return named or "other elementwise"

    for event in sorted(events, key=lambda e: e.time_range.start):
        if event.sequence_nr >= 0 and not event.name.startswith("autograd::"):
            scope = kind_of(event)
            if scope in ("spectral norm", "normalisation") or event.sequence_nr not in forward:
                forward[event.sequence_nr] = scope
    sums: dict[str, float] = collections.Counter()
    for event in events:
        sums[kind_of(event)] += getattr(event, own) / 1e6
    return sums


def main() -> None:
    """Measure, count and profile steps of one recipe and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, help="of all nets; else the recipe's own")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, default=5, help="to time; two are profiled")
    options = parser.parse_args()
    import torch
    from safetensors.torch import save_file
    from torch.utils.flop_counter import FlopCounterMode

    from facekit.nets.vgg import VGG
    from facekit.recipe_api.registry import find

    kind, preset = find(options.recipe)
    fields = kind.Params.model_fields
    params: dict = {name: options.width for name in ("width", "d_width") if options.width and name in fields}
    if "labels" in fields:
        params["labels"] = LABELS
    if "warmup" in fields:
        params["warmup"] = 0
    with tempfile.TemporaryDirectory() as folder:
        if "vgg" in fields:
            params["vgg"] = str(Path(folder) / "vgg19.safetensors")
            save_file(VGG("vgg19", ("pool5",)).state_dict(), params["vgg"])
        learner, batch = learner_of(
            kind, preset, options.recipe, options.size, options.batch, params, options.precision
        )
    every = max(phase.every for phase in learner.recipe.phases)

    def cycle() -> None:
        for _ in range(every):
            take_step(learner, batch)

    multiply = product()
    cycle(), multiply()
    times = [(seconds_of(cycle), seconds_of(multiply)) for _ in range(options.steps)]
    with FlopCounterMode(display=False) as counted:
        cycle()
    label(learner.nets)
    device = torch.cuda.is_available()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(2):
            cycle()
    sums = sum_up(profile.events(), device)
    flops, most = counted.get_total_flops(), 2 * SIDE**3
    took = statistics.median(step for step, _ in times)
    shares = [flops / step / (most / large) for step, large in times]
    print(f"{machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    what = f"{options.recipe}, {options.size} px, batch {options.batch}, {options.precision}, params {params}"
    print(f"{what}, a step is {every} of the first phase\n")
    print("| kind | share |\n|---|---|")
    for name, share in sorted(sums.items(), key=lambda item: -item[1]):
        print(f"| {name} | {share / sum(sums.values()):.1%} |")
    print(
        f"\n{took:.3f} s a step, {flops / 1e9:.1f} GFLOP of convolutions and products; of the rate of a large product"
    )
    print(f"beside it {statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%}), {len(times)} pairs")


if __name__ == "__main__":
    main()
