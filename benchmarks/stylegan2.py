"""A training step and an inversion of StyleGAN2: ours against rosinality/stylegan2-pytorch, which lies in a folder.

    git clone https://github.com/rosinality/stylegan2-pytorch && python benchmarks/stylegan2.py stylegan2-pytorch

Theirs is the code as it stands, run by its own `train.train` and its own script projector.py, with the operations that
it has for processors; its CUDA extensions are not built. Ours is `training.loop.train_step` and `nets.inversion`. The
widths are config F's at that size, weights, batch, learning rates and lazy terms are the same; images are compared by
the same features (the shipped facefeat) and by px. Both sides run at the same time, each a process with one thread,
because whatever else the machine does then slows both; what counts is the processor time of whole cycles of the lazy
terms (16 steps). Memory is the most that a process held, less what it held before there were nets.

Before that the images and logits of both for equal weights, latents and noise are compared.
"""

import argparse
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

from machine import machine

CYCLE = 16
FIRST = 1  # steps that do not count


def resident() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """Notes the processor time at the end of each step."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.before = resident()

    def __call__(self) -> None:
        self.marks.append(time.process_time())

    def report(self, count: int, **more: float) -> None:
        """Print the seconds of a step, over the last `count` of them, and the memory, as JSON."""
        seconds = (self.marks[-1] - self.marks[-1 - count]) / count
        print(json.dumps({"seconds": seconds, "memory": resident() - self.before, **more}), file=sys.stderr)


def shims(folder: Path, clock: Clock, size: int) -> None:
    """Put their folder on the path and replace what a processor does not have: extensions, LPIPS's weights, tqdm."""
    import torch
    import tqdm
    from torch.utils import cpp_extension

    cpp_extension.load = lambda *given, **more: None
    sys.path.insert(0, str(folder))
    os.chdir(tempfile.mkdtemp())

    class Bar:
        def __init__(self, steps, **more):
            self.steps = steps

        def __iter__(self):
            for step in self.steps:
                yield step
                clock()

        def set_description(self, text):
            self.text = text

    class Distance(torch.nn.Module):
        def __init__(self, *given, **more):
            super().__init__()
            self.look = look()

        def forward(self, x, y):
            from facekit.ops.losses import direction_distance

            found = zip(self.look.maps(x), self.look.maps(y), strict=True)
            return torch.stack([direction_distance(a, b) for a, b in found]).mean() * len(x)

    tqdm.tqdm = Bar
    for name, values in (("lpips", {"PerceptualLoss": Distance}), ("dataset", {"MultiResolutionDataset": None})):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(values)


def look():
    """Return what images are compared by on both sides."""
    from facekit.nets.face_look import open_look
    from facekit.recipe_api import checkpoint

    return open_look(checkpoint.load_model("facefeat").nets["face"])


def pictures(count: int, size: int):
    """Return the same random soft images [N, 3, S, S] for both sides."""
    import torch
    import torch.nn.functional as F

    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return F.interpolate(coarse, size, mode="bilinear", align_corners=False)


def their_step(folder: Path, size: int, batch: int, steps: int) -> None:
    """Run their training loop."""
    clock = Clock()
    shims(folder, clock, size)
    import torch
    from model import Discriminator, Generator
    from train import accumulate, train

    torch.manual_seed(0)
    clock.before = resident()
    g, d, average = Generator(size, 512, 8), Discriminator(size), Generator(size, 512, 8)
    average.eval()
    accumulate(average, g, 0)
    late = {"lr": 0.002 * 4 / 5, "betas": (0.0, 0.99**0.8)}, {"lr": 0.002 * 16 / 17, "betas": (0.0, 0.99 ** (16 / 17))}
    optimizers = [torch.optim.Adam(net.parameters(), **how) for net, how in zip((g, d), late, strict=True)]
    args = types.SimpleNamespace(
        iter=steps, start_iter=1, distributed=False, augment=False, augment_p=0, n_sample=1, latent=512, batch=batch,
        mixing=0.9, d_reg_every=16, g_reg_every=4, r1=10, path_batch_shrink=2, path_regularize=2, wandb=False,
    )  # fmt: skip
    train(args, [pictures(batch, size)], g, d, optimizers[0], optimizers[1], average, "cpu")
    clock.report(steps - FIRST)


def our_step(size: int, batch: int, steps: int) -> None:
    """Take our training steps."""
    import torch

    from facekit.recipe_api.base import Progress
    from facekit.recipes.stylegan2 import StyleGAN2
    from facekit.storage.card import TrainCard
    from facekit.training.loop import train_step
    from facekit.training.state import build_state, kernels, weighted_terms

    clock = Clock()
    card = TrainCard.model_validate(
        {
            "recipe": "stylegan2",
            "data": {"size": size},
            "optim": {"lr": 2e-3, "betas": [0, 0.99]},
            "run": {"ema": 0.998},
        }
    )
    state = build_state(StyleGAN2({}, size), weighted_terms(StyleGAN2, {}), card, torch.device("cpu"))
    data = [{"a": pictures(batch, size)}]
    for step in range(steps):
        with kernels(card.run, torch.device("cpu")):
            train_step(state, data, Progress(step, steps))
        clock()
    clock.report(steps - FIRST)


def their_inversion(folder: Path, size: int, batch: int, steps: int) -> None:
    """Run their script projector.py, which writes itself for CUDA, on the processor."""
    clock = Clock()
    shims(folder, clock, size)
    import torch
    from model import Generator
    from PIL import Image

    torch.manual_seed(0)
    torch.save({"g_ema": Generator(size, 512, 8).state_dict()}, "g.pt")
    names = []
    for number, x in enumerate(pictures(batch, size)):
        names.append(f"{number}.png")
        Image.fromarray(((x + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(names[-1])
    source = (folder / "projector.py").read_text().replace('device = "cuda"', 'device = "cpu"')
    cut = source.index("    img_gen, _ = g_ema([latent_path[-1]]")  # what follows writes files
    Path("project.py").write_text(source[:cut])
    sys.argv = [
        "project.py",
        "--ckpt",
        "g.pt",
        "--size",
        str(size),
        "--step",
        str(steps),
        "--w_plus",
        "--mse",
        "1",
        *names,
    ]
    clock.before = resident()
    runpy.run_path("project.py", run_name="__main__")
    clock.report(steps - FIRST)


def our_inversion(size: int, batch: int, steps: int) -> None:
    """Invert with ours; `features` is called once before the steps, once in each, and once after them."""
    import torch

    from facekit.nets.inversion import invert
    from facekit.nets.stylegan2 import Generator

    clock = Clock()
    torch.manual_seed(0)
    seen, g = look(), Generator(size)
    clock.before = resident()

    def features(x):
        clock()
        return seen.maps(x)

    invert(g, pictures(batch, size), features, steps)
    clock.marks.pop(0)
    clock.report(steps - FIRST)


def compare(folder: Path, size: int) -> None:
    """Print how much images and logits differ for equal weights, latents and noise."""
    shims(folder, Clock(), size)
    import model
    import torch

    from facekit.nets import stylegan2, stylegan2_layout

    torch.manual_seed(0)
    theirs, judge = model.Generator(size, 512, 8), model.Discriminator(size)
    ours, own = stylegan2.Generator(size), stylegan2.Discriminator(size)
    ours.load_state_dict(stylegan2_layout.generator(theirs.state_dict()))
    own.load_state_dict(stylegan2_layout.discriminator(judge.state_dict()))
    z, x = torch.randn(2, 512), pictures(4, size)
    with torch.no_grad():
        a, b = theirs([z], randomize_noise=False)[0], ours.synthesis(ours.mapping(z), ours.noises)
        apart = (a - b).abs().max().item(), (judge(x) - own(x)).abs().max().item()
    print(json.dumps({"images": apart[0], "logits": apart[1]}), file=sys.stderr)


def run(arguments: argparse.Namespace) -> None:
    """Run both sides of each measurement at the same time and print the ratios."""
    common = [str(arguments.folder.resolve()), "--size", str(arguments.size), "--batch", str(arguments.batch)]

    def start(part: str, steps: int) -> subprocess.Popen:
        line = [sys.executable, __file__, *common, "--steps", str(steps), "--part", part]
        around = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return subprocess.Popen(line, env=around, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def result(process: subprocess.Popen) -> dict[str, float]:
        printed = process.communicate()[1]
        if process.returncode:
            sys.exit(printed)
        return json.loads(printed.strip().splitlines()[-1])

    print(machine())
    apart = result(start("compare", 1))
    print(
        f"equal weights, {arguments.size} px: images differ by {apart['images']:.1e}, logits by {apart['logits']:.1e}"
    )
    for name, steps in (("step", arguments.cycles * CYCLE + FIRST), ("inversion", arguments.inversion_steps)):
        both = [start(f"{side}_{name}", steps) for side in ("their", "our")]
        theirs, ours = map(result, both)
        faster, share = theirs["seconds"] / ours["seconds"], ours["memory"] / theirs["memory"]
        what = f"{name}, {arguments.size} px, batch {arguments.batch}"
        print(f"{what}: {faster:.2f} times as fast, {share:.2f} of the memory")
        for side, found in (("theirs", theirs), ("ours", ours)):
            print(f"  {side}: {found['seconds']:.2f} s, {found['memory']:.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a checkout of rosinality/stylegan2-pytorch")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--cycles", type=int, default=1, help="of 16 steps")
    parser.add_argument("--inversion-steps", type=int, default=21)
    parser.add_argument("--steps", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is None:
        run(given)
    elif given.part == "compare":
        compare(given.folder, given.size)
    elif given.part.startswith("their"):
        globals()[given.part](given.folder, given.size, given.batch, given.steps)
    else:
        globals()[given.part](given.size, given.batch, given.steps)
