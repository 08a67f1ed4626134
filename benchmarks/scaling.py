"""How a training step scales: with batch, size, width, threads and processes, one changed at a time.

Every point is measured in a process of its own (for its peak memory), its first steps not counted, in two rounds, the
second backwards. Two processes are what `torchrun` starts: gloo, a batch for each. A cost model is fitted to the
points, told in words, and tried on a point where three things change at once. Memory beyond nets and libraries is what
the steps need: activations, gradients, Adam's moments. Images and the helpers' weights are random: they change no cost.
Linux only.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path

from machine import machine

RECIPES = ("cyclegan", "ugatit-light", "stargan", "projected-cut")
WIDTHS = ("width", "d_width", "head_width")  # what the width of a point sets, where the recipe has it
UNITS = {"batch": "images", "size": "px", "width": "channels"}
DOUBLED = {"batch": "batch", "size": "edge", "width": "width"}
AXES: dict[str, tuple[int, ...]] = {
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "size": (64, 96, 128, 192, 256),
    "width": (8, 16, 32, 64),
    "threads": (1, 2),
    "processes": (1, 2),
}
CORNER = {"batch": 2, "size": 192, "width": 8}
ROUNDS = 2
START = 1.0  # seconds of a process beside its steps


@dataclass(frozen=True)
class Point:
    """A training step to measure; `batch` is that of each process, `width` of generators and discriminators."""

    recipe: str
    batch: int = 1
    size: int = 128
    width: int = 16
    threads: int = 1
    processes: int = 1


@dataclass(frozen=True)
class Result:
    """Wall and processor seconds of a step, peak memory in MiB beyond nets and libraries and in all, and its FLOPs."""

    seconds: float
    processor: float
    beyond: float
    total: float
    flops: float
    parameters: int


def prepare(point: Point, vgg: str):
    """Return a point's recipe, card and weighted terms; raises CardError for what the recipe does not take."""
    from facekit.recipe_api.registry import find
    from facekit.storage import card
    from facekit.training.state import weighted_terms

    kind, preset = find(point.recipe)
    known = kind.Params.model_fields
    params = {name: point.width for name in WIDTHS if name in known} | ({"vgg": vgg} if "vgg" in known else {})
    own = {"recipe": point.recipe, "data": {"size": point.size, "batch": point.batch}, "params": params}
    checked = card.validate(card.TrainCard, card.merge(kind.defaults, preset, own), point.recipe)
    recipe = kind(card.validate(kind.Params, checked.params, point.recipe).model_dump(), point.size)
    recipe.check(point.size)
    return recipe, checked, weighted_terms(kind, checked.losses)


def make_step(recipe, card, terms):
    """Return a learner, and a function that takes its next step, in the middle of a run."""
    import torch

    from facekit.recipe_api.base import Progress
    from facekit.training.loop import train_step
    from facekit.training.state import build_state

    learner = build_state(recipe, terms, card, torch.device("cpu"))
    blank = recipe.blank(card.data.batch, card.data.size)
    batch = {name: torch.rand_like(x).mul(2).sub(1) if x.ndim == 4 else x for name, x in blank.items()}
    learner.step = 1000 * period(recipe, terms)
    steps = 2 * learner.step

    def step() -> None:
        train_step(learner, [batch], Progress(learner.step, steps))
        learner.step += 1
        learner.pending.clear()

    return learner, step


def period(recipe, terms) -> int:
    """Return after how many steps the same phases and terms come again."""
    return math.lcm(*(p.every for p in recipe.phases), *(t.every for t in terms.values() if t.weight))


def count_flops(work) -> int:
    """Return the FLOPs of convolutions and matrix products, forwards and backwards, while `work` is done."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Count(TorchDispatchMode):  # torch's FlopCounterMode also follows modules, and fails within gradient penalties
        total = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            out = op(*args, **(kwargs or {}))
            flops = flop_registry.get(op._overloadpacket)
            self.total += flops(*args, **(kwargs or {}), out_val=out) if flops else 0
            return out

    with Count() as count:
        work()
    return count.total


def measure(point: Point, steps: int, rank: int, port: int, vgg: str) -> Result:
    """Measure steps of a point, as one of its processes."""
    import torch

    from facekit.runtime import distributed

    torch.set_num_threads(point.threads)
    if point.processes > 1:  # as torchrun sets them
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": point.processes, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in told.items()}, MASTER_ADDR="127.0.0.1")
    distributed.start("cpu")
    recipe, card, terms = prepare(point, vgg)
    learner, step = make_step(recipe, card, terms)
    every = period(recipe, terms)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    flops = count_flops(lambda: [step() for _ in range(every)]) / every
    distributed.barrier()
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if point.processes > 1:
        torch.distributed.destroy_process_group()
    parameters = sum(p.numel() for p in learner.nets.parameters())
    return Result(wall / steps, processor / steps, peak - before, peak, flops, parameters)


def run(context, point: Point, steps: int, vgg: str) -> Result:
    """Measure a point in new processes: the wall time of the slowest, the sum of their other figures."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ProcessPoolExecutor(point.processes, mp_context=context) as pool:
        jobs = [pool.submit(measure, point, steps, rank, port, vgg) for rank in range(point.processes)]
        found = [job.result() for job in jobs]
    sums = {name: sum(getattr(r, name) for r in found) for name in ("processor", "beyond", "total", "flops")}
    return Result(max(r.seconds for r in found), parameters=found[0].parameters, **sums)


@dataclass(frozen=True)
class Forecast:
    """What a point will take, from the base and from one of another width: proportional to batch and area."""

    seconds: float
    memory: float
    steps: int
    cost: float

    @classmethod
    def of(cls, point: Point, every: int, base: Result, wider: Result) -> Forecast:
        """Tell a point whose steps come again after `every`, from the base and twice its width."""
        first = Point(point.recipe)
        area, width = point.batch / first.batch * (point.size / first.size) ** 2, math.log2(point.width / first.width)
        seconds = base.seconds * area * (wider.processor / base.processor) ** width
        beyond = base.beyond * area * (wider.beyond / base.beyond) ** width
        steps = every * max(1, round(1 / (seconds * every)))  # whole periods, for about a second
        memory = point.processes * (base.total - base.beyond + beyond)
        return cls(seconds, memory, steps, ROUNDS * (START + (1.2 * every + steps) * seconds))


def choose(forecasts: dict[Point, Forecast], budget: float) -> dict[Point, str]:
    """Return why points are left out: the cheapest are taken first, until the seconds are spent."""
    room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20 / 2
    left = {}
    for point, foretold in sorted(forecasts.items(), key=lambda item: item[1].cost):
        if foretold.memory > room:
            left[point] = f"would take {foretold.memory / 1024:.1f} GiB, more than half of this machine's memory"
        elif foretold.cost > budget:
            left[point] = f"would take {foretold.seconds:.3g} s a step, more than the time budget allows"
        else:
            budget -= foretold.cost
    return left


def scale(recipes: Sequence[str], budget: float, vgg: str):
    """Measure all points of the recipes that fit the budget; returns each one's results, and why others are missing."""
    from facekit.errors import CardError
    from facekit.recipe_api.registry import find_entry

    end = time.monotonic() + budget
    modules = [find_entry(recipe).target.rpartition(":")[0] for recipe in recipes]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["facekit.training.loop", *(name for name in modules if not name.endswith(".py"))])
    forecasts, left = {}, {}
    for recipe in recipes:
        one = [{axis: value} for axis, values in AXES.items() for value in values]
        base, wider = Point(recipe), Point(recipe, width=2 * Point.width)
        every = period(*prepare(base, vgg)[::2])
        first = [run(context, point, every, vgg) for point in (base, wider)]
        for point in dict.fromkeys(Point(recipe, **change) for change in (*one, CORNER)):
            try:
                prepare(point, vgg)
                forecasts[point] = Forecast.of(point, every, *first)
            except CardError as error:
                left[point] = error.message
    left |= choose(forecasts, end - time.monotonic())
    chosen = [point for point in forecasts if point not in left]
    found: dict[Point, list[Result]] = {point: [] for point in chosen}
    for number in range(ROUNDS):
        for place, point in enumerate(chosen[:: -1 if number else 1], 1):
            print(f"round {number + 1} of {ROUNDS}, {place} of {len(chosen)}: {point}", file=sys.stderr, flush=True)
            try:
                found[point].append(run(context, point, forecasts[point].steps, vgg))
            except BrokenProcessPool:
                left[point] = "its process was killed, for memory as it seems"
    return {point: found[point] for point in chosen if point not in left}, left


def least(rounds: Sequence[Result]) -> Result:
    """Return each figure's least disturbed value over the rounds."""
    return Result(*(min(getattr(result, field.name) for result in rounds) for field in fields(Result)))


def line(x: Sequence[float], y: Sequence[float]):
    """Fit y = a + b x by least relative squares, a not below 0; returns (a, b) and the largest relative error."""
    import numpy as np

    rows = np.array([[1 / v, u / v] for u, v in zip(x, y, strict=True)])
    a, b = np.linalg.lstsq(rows, np.ones(len(y)), rcond=None)[0]
    if a < 0:
        a, b = 0.0, rows[:, 1].sum() / (rows[:, 1] ** 2).sum()
    return (float(a), float(b)), float(abs(rows @ (a, b) - 1).max())


def power(x: Sequence[float], y: Sequence[float]):
    """Fit y = c x^e by least squares of the logarithms; returns (c, e) and the largest relative error."""
    import numpy as np

    e, c = np.polyfit(np.log(x), np.log(y), 1)
    return (float(np.exp(c)), float(e)), float(abs(np.exp(c + e * np.log(x)) / np.array(y) - 1).max())


class Curves:
    """What was measured of one recipe, and the cost model of processor time and memory that is fitted to it."""

    def __init__(self, recipe: str, results: dict[Point, Result]):
        self.base, self.results = Point(recipe), results
        self.fits = {what: self.fit(what) for what in ("processor", "beyond", "flops")}

    def get(self, **changes: int) -> Result | None:
        """Return what was measured where the base is changed so."""
        return self.results.get(replace(self.base, **changes))

    def axis(self, axis: str, what: str) -> tuple[list[int], list[float]]:
        """Return the measured values of an axis, and a figure at each of them."""
        points = [replace(self.base, **{axis: value}) for value in AXES[axis]]
        points = [point for point in points if point in self.results]
        return [getattr(point, axis) for point in points], [getattr(self.results[point], what) for point in points]

    def fit(self, what: str) -> dict:
        """Fit a line over the batch and powers of size and width, each where it has three points at least."""
        fits = {}
        for axis, fitter in (("batch", line), ("size", power), ("width", power)):
            x, y = self.axis(axis, what)
            if len(x) > 2:
                fits[axis] = fitter(x, y)
        return fits

    def along(self, axis: str, what: str, x: float) -> float:
        """Return what the fit over an axis says at x."""
        first, second = self.fits[what][axis][0]
        return first + second * x if axis == "batch" else first * x**second

    def doubled(self, axis: str, what: str) -> float:
        """Return what twice the base's value of an axis multiplies a figure by."""
        start = getattr(self.base, axis)
        return self.along(axis, what, 2 * start) / self.along(axis, what, start)

    def told(self, what: str, point: Point) -> float:
        """Return what the whole model says of a point."""
        cost = self.along("batch", what, point.batch)
        for axis in ("size", "width"):
            cost *= (getattr(point, axis) / getattr(self.base, axis)) ** self.fits[what][axis][0][1]
        return cost

    def formula(self, what: str) -> str:
        """Return the model as a formula of batch n, size s and width w."""
        fits = self.fits[what]
        if len(fits) < 3:
            return "too few points"
        (fixed, each), _ = fits["batch"]
        powers = (f"({axis[0]}/{getattr(self.base, axis)})^{fits[axis][0][1]:.2f}" for axis in ("size", "width"))
        return f"({fixed:.3g} + {each:.3g} n) {' '.join(powers)}"

    def sentences(self) -> list[str]:
        """Return what it costs to double each thing."""
        out = [self.speeds()]
        for axis, unit in UNITS.items():
            if axis not in self.fits["processor"]:
                out.append(f"twice the {DOUBLED[axis]}: too few points to say.")
                continue
            x, _ = self.axis(axis, "processor")
            errors = [self.fits[what][axis][1] for what in ("processor", "beyond")]
            time, flops, memory = (self.doubled(axis, what) for what in ("processor", "flops", "beyond"))
            out.append(
                f"twice the {DOUBLED[axis]}: {time:.2f} times the time ({flops:.2f} times the FLOPs) and {memory:.2f} "
                f"times the memory beyond the nets; fitted from {x[0]} to {x[-1]} {unit}, at most {errors[0]:.0%} off "
                f"in time and {errors[1]:.0%} in memory."
            )
        return [*out, *self.parallel(), *self.tried()]

    def speeds(self) -> str:
        """Return parameters, FLOPs and the FLOP/s reached."""
        base, speeds = self.results[self.base], []
        for axis in ("batch", "width"):
            x, seconds = self.axis(axis, "processor")
            _, flops = self.axis(axis, "flops")
            rates = [f / s / 1e9 for f, s in zip(flops, seconds, strict=True)]
            speeds.append(f"{rates[0]:.0f} to {rates[-1]:.0f} GFLOP/s from {axis} {x[0]} to {x[-1]}")
        return (
            f"{base.parameters / 1e6:.2f} M parameters and {base.flops / self.base.batch / 1e9:.3g} GFLOP an image at "
            f"{self.base.size} px, width {self.base.width}; a core reaches {' and '.join(speeds)}."
        )

    def parallel(self) -> list[str]:
        """Return what a second thread and a second process give."""
        base, thread, pair = self.results[self.base], self.get(threads=2), self.get(processes=2)
        out = []
        if thread:
            out.append(f"a second thread: a step in {thread.seconds / base.seconds:.2f} of the time.")
        if pair:
            longer = pair.seconds / base.seconds
            text = f"a second process with a batch of its own: {longer:.2f} times the time of a step, so "
            text += f"{2 / longer:.2f} times the images/s, in {pair.total / base.total:.2f} times the memory in all"
            whole = self.get(batch=2 * self.base.batch)
            if whole:
                share = pair.seconds / whole.seconds
                text += f"; the same {2 * self.base.batch} images shared by both: {share:.2f} of one process's time"
            out.append(f"{text}.")
        return out

    def tried(self) -> list[str]:
        """Return what the model says of the point that it was not fitted to, and what was measured there."""
        found, point = self.get(**CORNER), replace(self.base, **CORNER)
        if not found or len(self.fits["processor"]) < 3:
            return []
        seconds, memory = self.told("processor", point), self.told("beyond", point)
        return [
            f"tried on batch {point.batch}, {point.size} px, width {point.width}: the model says {seconds:.3g} s and "
            f"{memory:.0f} MiB, measured {found.processor:.3g} s and {found.beyond:.0f} MiB "
            f"({seconds / found.processor - 1:+.0%}, {memory / found.beyond - 1:+.0%})."
        ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table, its head first."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def points_table(results: dict[Point, Result]) -> str:
    """Return all points with their figures."""
    figures = ("s/step", "processor s", "images/s", "GFLOP", "GFLOP/s", "MiB beyond nets", "MiB in all")
    rows = [[*(field.name for field in fields(Point)), *figures]]
    for point, found in results.items():
        flops = found.flops / 1e9
        told = (found.seconds, found.processor, point.batch * point.processes / found.seconds, flops)
        short = [f"{x:.3g}" for x in (*told, flops / found.seconds)]
        rows.append([*map(str, astuple(point)), *short, f"{found.beyond:.0f}", f"{found.total:.0f}"])
    return markdown(rows)


def summary(every: Sequence[Curves]) -> str:
    """Return what doubling costs over all recipes."""
    parts = []
    for axis in UNITS:
        fitted = [c for c in every if axis in c.fits["processor"]]
        if fitted:
            time, memory = ([c.doubled(axis, what) for c in fitted] for what in ("processor", "beyond"))
            parts.append(
                f"twice the {DOUBLED[axis]} costs {min(time):.2f} to {max(time):.2f} times the time and "
                f"{min(memory):.2f} to {max(memory):.2f} times the memory beyond the nets"
            )
    pairs = [(c.results[c.base].seconds, c.get(processes=2)) for c in every]
    gains = [2 * alone / pair.seconds for alone, pair in pairs if pair]
    if gains:
        parts.append(f"a second process gives {min(gains):.2f} to {max(gains):.2f} times the images/s")
    return f"Over these recipes {'; '.join(parts)}." if parts else "Too few points for a model."


def draw(every: Sequence[Curves], path: Path) -> None:
    """Draw time and memory over each axis, dots as measured and lines as fitted, and what a second core gives."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
    from PIL import Image

    figure = Figure(figsize=(12, 5.8), dpi=90, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(2, 4)
    labels = {"processor": "processor seconds a step", "beyond": "MiB beyond nets and libraries"}
    for row, (what, label) in zip(panels, labels.items(), strict=True):
        for panel, (axis, unit) in zip(row, UNITS.items(), strict=False):
            if panel is not row[0]:
                panel.sharey(row[0])
            for index, curves in enumerate(every):
                x, y = curves.axis(axis, what)
                panel.plot(x, y, "o", markersize=4.5, color=f"C{index}")
                if axis in curves.fits[what]:
                    panel.plot(x, [curves.along(axis, what, v) for v in x], linewidth=1, color=f"C{index}")
            ticks = sorted({v for curves in every for v in curves.axis(axis, what)[0]})
            panel.set(xscale="log", yscale="log", xlabel=f"{axis}, {unit}")
            panel.xaxis.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator())
            panel.xaxis.set_major_formatter("{x:g}")
            panel.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
            panel.yaxis.set_major_formatter("{x:g}")
        row[0].set_ylabel(label)
    beside = {"1 process": {}, "2 threads": {"threads": 2}, "2 processes": {"processes": 2}}
    width = 0.8 / len(every)
    for index, curves in enumerate(every):
        found = [curves.get(**changes) for changes in beside.values()]
        places = [place - 0.4 + (index + 0.5) * width for place in range(len(beside))]
        images = [curves.get().seconds / f.seconds * n if f else 0 for f, n in zip(found, (1, 1, 2), strict=True)]
        totals = [f.total / curves.get().total if f else 0 for f in found]
        for panel, heights in zip(panels[:, 3], (images, totals), strict=True):
            panel.bar(places, heights, 0.9 * width, color=f"C{index}", label=curves.base.recipe)
    for panel, label in zip(panels[:, 3], ("images/s", "memory in all"), strict=True):
        panel.set(xticks=range(len(beside)), xticklabels=beside, ylabel=f"{label}, one process = 1")
        panel.axhline(1, color="0.4", linewidth=0.8, linestyle="--")
    for panel in panels.flat:
        panel.grid(alpha=0.25)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8)
        panel.yaxis.label.set_size(9)
    figure.legend(
        *panels[0][3].get_legend_handles_labels(), loc="outside upper center", ncols=len(every), frameon=False
    )
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(48).save(
        path, optimize=True
    )  # a third of the bytes


def main() -> None:
    """Measure, print tables, model and sentences, and draw where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES, metavar="RECIPE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the curves, as PNG")
    parser.add_argument("--budget", type=float, default=660, metavar="SECONDS", help="for all measuring")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from facekit.nets.vgg import VGG
    from facekit.runtime import console

    with tempfile.TemporaryDirectory() as folder, console.silenced():
        vgg = str(Path(folder) / "vgg19.pt")
        torch.save(VGG("vgg19", ["relu4_2"]).state_dict(), vgg)
        rounds, left = scale(arguments.recipes, arguments.budget, vgg)
    results = {point: least(found) for point, found in rounds.items()}
    every = [Curves(recipe, results) for recipe in arguments.recipes if Point(recipe) in results]
    print(f"{machine()}, torch {torch.__version__}\n\n{points_table(results)}\n")
    apart = [max(r.processor for r in found) / least(found).processor - 1 for found in rounds.values()]
    differ = f"they differ by {statistics.median(apart):.0%} (median), {max(apart):.0%} at most"
    print(f"the lower of {ROUNDS} rounds; {differ} in processor time")
    for point, reason in left.items():
        base = asdict(Point(point.recipe))
        changes = ", ".join(f"{axis} {value}" for axis, value in asdict(point).items() if value != base[axis])
        print(f"left out: {point.recipe}, {changes}: {reason}")
    models = [["recipe", "processor seconds a step", "MiB beyond nets"]]
    models += [[curves.base.recipe, curves.formula("processor"), curves.formula("beyond")] for curves in every]
    print(f"\nThe model, n images of s px at width w:\n\n{markdown(models)}\n")
    for curves in every:
        print("\n- ".join([f"{curves.base.recipe}:\n", *curves.sentences()]) + "\n")
    print(summary(every))
    if arguments.plot:
        draw(every, arguments.plot)


if __name__ == "__main__":
    main()
