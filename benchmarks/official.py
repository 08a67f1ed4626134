"""A training step: ours against the official PyTorch code of the same method, which lies unpacked in a folder.

| METHOD | code | what runs |
|---|---|---|
| ugatit-light, ugatit | znxlwm/UGATIT-pytorch, the authors' | its class, and its loop `UGATIT.train` |
| cyclegan | taesungp/contrastive-unpaired-translation, of CycleGAN's authors | `CycleGANModel.optimize_parameters` |
| stargan | yunjey/stargan, the authors' | its class, and its loop `Solver.train` |
| cartoongan | znxlwm/pytorch-CartoonGAN | its script, after the pre-training |

Theirs is the code as it stands, run in its own loop: only the loader is ours, gives made batches and marks the time, on
both sides. Ours is `engine.train_step`. Widths, size, batch, losses, Adam, fp32 and the number of threads are the same;
a step of stargan is five of the discriminator with one of the generator. For cartoongan our judgements are logs and
VGG sees the full size, as theirs; its weights are random, and theirs also reads the classifier that it does not use.
Each side is a process; they take steps in turn, and what counts is the ratio. The first step of each does not count.
Where the memory does not hold both, `--apart` runs one after the other.
On a machine with CUDA both run there; the memory is then the device's.
"""

import argparse
import itertools
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
import types
import warnings
from pathlib import Path

from machine import machine

LABELS = [f"label {number}" for number in range(5)]
CYCLE = 5  # steps of stargan's discriminator to one of its generator
SHIMS = {
    "ugatit": "iterators have `.next`",
    "cyclegan": "`opt.amp` is False, `no_antialias` as in CycleGAN",
    "stargan": "`use_tensorboard` is False",
    "cartoongan": "`scipy.misc.imresize`, imported and not used, is there; `utils.data_load` gives our batches",
}


class Marks:
    """Called at the start of each step: reports the step that ends there, and waits for a line on stdin."""

    def __init__(self):
        self.out = os.fdopen(os.dup(1), "w")  # the official codes print
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self.start: tuple[float, float] | None = None
        self.libraries = 0.0

    def imported(self) -> None:
        """Note the memory before there are nets."""
        self.libraries = resident()

    def __call__(self) -> None:
        synchronise()
        if self.start:
            wall, cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
            print(json.dumps({"wall": wall, "cpu": cpu}), file=self.out, flush=True)
        if not sys.stdin.readline():
            print(json.dumps(memory(self.libraries)), file=self.out, flush=True)
            os._exit(0)  # their loops catch whatever is raised
        self.start = time.perf_counter(), time.process_time()


def resident() -> float:
    """Return the memory that this process holds, in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def memory(libraries: float) -> dict[str, float]:
    """Return the peak in MiB, and what the libraries hold of it."""
    import torch

    if torch.cuda.is_available():
        return {"peak": torch.cuda.max_memory_allocated() / 2**20, "libraries": 0.0}
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "libraries": libraries}


def synchronise() -> None:
    """Wait for the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Batches:
    """A loader without an end: one made batch, over and over; `mark` is called before each."""

    def __init__(self, batch, mark=lambda: None):
        self.batch, self.mark = batch, mark

    def __iter__(self):
        return self

    def __next__(self):
        self.mark()
        return self.batch

    next = __next__


def made(batch: int, size: int, width: int = 0):
    """Return random images [N, 3, size, width or size] in [-1, 1]."""
    import torch

    return torch.rand(batch, 3, size, width or size).mul(2).sub(1)


def ugatit(options: argparse.Namespace, mark: Marks) -> None:
    """Run the authors' loop of U-GAT-IT."""
    import torch
    import UGATIT

    mark.imported()
    UGATIT.ImageFolder = lambda *arguments: [0]
    values = {
        "light": options.method == "ugatit-light",
        "result_dir": "results",
        "dataset": "made",
        "iteration": 10**9,
        "decay_flag": True,
        "batch_size": options.batch,
        "print_freq": 10**9,
        "save_freq": 10**9,
        "lr": 1e-4,
        "weight_decay": 1e-4,
        "ch": options.width,
        "adv_weight": 1,
        "cycle_weight": 10,
        "identity_weight": 10,
        "cam_weight": 1000,
        "n_res": 4,
        "n_dis": 6,
        "img_size": options.size,
        "img_ch": 3,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "benchmark_flag": False,
        "resume": False,
    }
    model = UGATIT.UGATIT(types.SimpleNamespace(**values))
    model.build_model()
    model.trainA_loader = Batches((made(options.batch, options.size), 0), mark)
    model.trainB_loader = Batches((made(options.batch, options.size), 0))
    model.train()


def cyclegan(options: argparse.Namespace, mark: Marks) -> None:
    """Run the step of the CycleGAN authors' later repository."""
    import torch
    from models.cycle_gan_model import CycleGANModel

    mark.imported()
    values = {
        "isTrain": True,
        "gpu_ids": [0] if torch.cuda.is_available() else [],
        "checkpoints_dir": ".",
        "name": "made",
        "preprocess": "none",
        "direction": "AtoB",
        "input_nc": 3,
        "output_nc": 3,
        "ngf": options.width,
        "ndf": options.width,
        "netG": "resnet_9blocks",
        "netD": "basic",
        "n_layers_D": 3,
        "normG": "instance",
        "normD": "instance",
        "no_dropout": True,
        "init_type": "normal",
        "init_gain": 0.02,
        "no_antialias": True,
        "no_antialias_up": True,
        "lambda_A": 10.0,
        "lambda_B": 10.0,
        "lambda_identity": 0.5,
        "pool_size": 50,
        "gan_mode": "lsgan",
        "lr": 2e-4,
        "beta1": 0.5,
        "amp": False,
    }
    model = CycleGANModel(types.SimpleNamespace(**values))
    batch = {name: made(options.batch, options.size) for name in "AB"}
    while True:
        mark()
        model.set_input({**batch, "A_paths": [], "B_paths": []})
        model.optimize_parameters()


def stargan(options: argparse.Namespace, mark: Marks) -> None:
    """Run the authors' loop of StarGAN, in its mode of one label to an image."""
    import torch
    from solver import Solver

    mark.imported()
    calls = itertools.count()

    def mark_cycle() -> None:
        if next(calls) % CYCLE == 1:  # the first call is for images to show
            mark()

    labels = torch.arange(options.batch) % len(LABELS)
    values = {
        "c_dim": len(LABELS),
        "c2_dim": 0,
        "image_size": options.size,
        "g_conv_dim": options.width,
        "d_conv_dim": options.width,
        "g_repeat_num": 6,
        "d_repeat_num": 6,
        "lambda_cls": 1,
        "lambda_rec": 10,
        "lambda_gp": 10,
        "dataset": "RaFD",
        "batch_size": options.batch,
        "num_iters": 10**9,
        "num_iters_decay": 10**5,
        "g_lr": 1e-4,
        "d_lr": 1e-4,
        "n_critic": CYCLE,
        "beta1": 0.5,
        "beta2": 0.999,
        "resume_iters": None,
        "selected_attrs": None,
        "test_iters": None,
        "use_tensorboard": False,
        "log_dir": ".",
        "sample_dir": ".",
        "model_save_dir": ".",
        "result_dir": ".",
        "log_step": 10**9,
        "sample_step": 10**9,
        "model_save_step": 10**9,
        "lr_update_step": 10**9,
    }
    batches = Batches((made(options.batch, options.size), labels), mark_cycle)
    Solver(None, batches, types.SimpleNamespace(**values)).train()


def cartoongan(options: argparse.Namespace, mark: Marks) -> None:
    """Run the script of pytorch-CartoonGAN, from a generator that counts as pre-trained."""
    unused = types.ModuleType("scipy.misc")
    unused.imresize = None  # type: ignore[attr-defined]
    sys.modules["scipy.misc"] = unused
    import networks
    import torch
    import torchvision.transforms  # noqa: F401
    import utils

    mark.imported()
    torch.save(networks.generator(3, 3, options.width, 8).state_dict(), "generator.pth")
    Path("data/drawings/pair").mkdir(parents=True)
    pairs = made(options.batch, options.size, 2 * options.size), 0
    photos = made(options.batch, options.size), 0

    def load(path: str, part: str, *rest, **more) -> Batches:
        return Batches(pairs) if part == "pair" else Batches(photos, mark)

    utils.data_load = load
    values = {
        "tgt_data": "drawings",
        "vgg_model": options.vgg,
        "latest_generator_model": "generator.pth",
        "batch_size": options.batch,
        "input_size": options.size,
        "ngf": options.width,
        "ndf": options.width // 2,
    }
    sys.argv = ["CartoonGAN.py", *(f"--{name}={value}" for name, value in values.items())]
    runpy.run_path(str(Path(options.path) / "CartoonGAN.py"), run_name="__main__")


def learner_of(
    kind, preset: dict, name: str, size: int, batch: int, params: dict, precision: str = "fp32", changes: list[str] = ()
):
    """Return a facekit learner of a recipe as its name sets it up, with some `params`, and a made batch for it.

    `changes` are further values of the card, as `facekit train --set` takes them.
    """
    import torch

    from facekit.storage.card import TrainCard, assignment, merge
    from facekit.training.state import build_state, weighted_terms

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    own = {"recipe": name, "data": {"size": size, "batch": batch}, "params": params, "run": {"precision": precision}}
    card = TrainCard.model_validate(merge(kind.defaults, preset, own, *map(assignment, changes)))
    recipe = kind(card.params, size)
    learner = build_state(recipe, weighted_terms(kind, card.losses), card, device)
    images = recipe.blank(batch, size)
    for image in images.values():
        if image.dim() == 4:
            image.uniform_(-1, 1)
    return learner, {key: image.to(device) for key, image in images.items()}


def take_step(learner, batch) -> None:
    """Take one step, as `facekit train` does."""
    from facekit.recipe_api.base import Progress
    from facekit.training.loop import train_step

    train_step(learner, [batch], Progress(learner.step, 10**6))
    learner.step += 1
    if learner.step % learner.card.run.log_every == 0:
        learner.pending.clear()


def ours(options: argparse.Namespace, mark: Marks) -> None:
    """Run facekit's engine."""
    import torch

    from facekit.recipe_api.registry import find
    from facekit.training import loop  # noqa: F401

    params: dict = {"width": options.width, "d_width": options.width}
    kind, preset = find(options.method)
    if options.method == "stargan":
        params["labels"] = LABELS
    if options.method == "cartoongan":
        params |= {"d_width": options.width // 2, "affine": False, "pool": 0, "warmup": 0, "gan": "log"}
        params["vgg"] = options.vgg

        class AtFullSize(kind.Scene):
            def features(self, x: torch.Tensor) -> torch.Tensor:
                return self.helpers.vgg(x)[self.params.layer]

        kind = type("CartoonGAN", (kind,), {"Scene": AtFullSize})
    mark.imported()
    learner, batch = learner_of(
        kind, preset, options.method, options.size, options.batch, params, options.precision, options.set
    )
    while True:
        mark()
        for _ in range(CYCLE if options.method == "stargan" else 1):
            take_step(learner, batch)


THEIRS = {
    "ugatit-light": ugatit,
    "ugatit": ugatit,
    "cyclegan": cyclegan,
    "stargan": stargan,
    "cartoongan": cartoongan,
}


def take_turns(
    runs: dict[str, subprocess.Popen], steps: int, warm: int
) -> tuple[dict[str, list[dict]], dict[str, dict]]:
    """Return each side's steps, the first `warm` ones left out, and its memory."""
    found: dict[str, list[dict]] = {side: [] for side in runs}
    for _ in range(steps + warm):
        for side, run in runs.items():
            run.stdin.write("\n")  # type: ignore[union-attr]
            run.stdin.flush()  # type: ignore[union-attr]
            line = run.stdout.readline()  # type: ignore[union-attr]
            if not line:
                raise SystemExit(f"{side} ended early with status {run.wait()}")
            found[side].append(json.loads(line))
    return {side: taken[warm:] for side, taken in found.items()}, {
        side: json.loads(run.communicate()[0]) for side, run in runs.items()
    }


def main() -> None:
    """Run both in turn and print their medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=THEIRS)
    parser.add_argument("path", help="the unpacked official repository")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--width", type=int, default=64, help="of all nets; cartoongan's discriminator has half of it")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of ours; theirs is fp32")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of our card")
    parser.add_argument("--warm", type=int, default=1, help="first steps that do not count")
    parser.add_argument("--apart", action="store_true", help="run one side after the other")
    parser.add_argument("--side", choices=["ours", "official"], help=argparse.SUPPRESS)
    parser.add_argument("--vgg", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        warnings.filterwarnings("ignore")
        sys.path.insert(0, options.path)
        (ours if options.side == "ours" else THEIRS[options.method])(options, Marks())
        return
    import torch

    with tempfile.TemporaryDirectory() as folder:
        vgg = ""
        if options.method == "cartoongan":
            from torchvision.models import vgg19

            vgg = str(Path(folder) / "vgg19.pth")
            torch.save(vgg19(weights=None).state_dict(), vgg)
        sizes = ["--size", options.size, "--batch", options.batch, "--width", options.width]
        sizes += ["--precision", options.precision, f"--vgg={vgg}", *(f"--set={change}" for change in options.set)]
        common = [sys.executable, str(Path(__file__).resolve()), options.method, str(Path(options.path).resolve())]
        found: dict[str, list[dict]] = {}
        peaks: dict[str, dict] = {}
        for sides in (["ours"], ["official"]) if options.apart else (["ours", "official"],):
            runs = {}
            for side in sides:
                Path(folder, side).mkdir()
                runs[side] = subprocess.Popen(
                    [*common, *map(str, sizes), "--side", side],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=Path(folder, side),
                    env={**os.environ, "MPLBACKEND": "Agg"},
                )
            try:
                taken, peak = take_turns(runs, options.steps, options.warm)
            finally:
                for run in runs.values():
                    run.kill()
                    run.wait()
            found |= taken
            peaks |= peak
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    print(f"{machine()}, torch {torch.__version__}, {where}")
    what = f"{options.method}, {options.size} px, batch {options.batch}, width {options.width}, {options.steps} steps"
    own = " ".join([options.precision, *options.set])
    print(f"{what}, ours {own}; shims: {SHIMS[options.method.removesuffix('-light')]}\n")
    print("| | s a step | processor s | peak MiB | of it beyond libraries |\n|---|---|---|---|---|")
    for side, taken in found.items():
        wall, cpu = (statistics.median(step[kind] for step in taken) for kind in ("wall", "cpu"))
        peak = peaks[side]
        beyond = peak["peak"] - peak["libraries"]
        print(f"| {side} | {wall:.3f} | {cpu:.3f} | {peak['peak']:.0f} | {beyond:.0f} |")
    for kind, name in (("wall", "time"), ("cpu", "processor time")):
        ratios = [t[kind] / o[kind] for o, t in zip(found["ours"], found["official"], strict=True)]
        print(f"\n{name}, official / ours: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
