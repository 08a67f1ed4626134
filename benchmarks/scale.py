"""Folder commands on ever more images: seconds and peak memory of the first half, the second half and a no-op rerun.

The images are hard links to 20 small pictures, for `align` to 20 photos of one face. `map` is folder_map with work that
costs nothing: what facekit itself takes for each image. `translate` and `score-fid` use the smallest nets there are.
`score-fid` compares a folder with itself; it does not continue, so its second half is the whole. `train` and `labels-K`
go up to the first batch of a training on two folders, or on K folders of labels, twice: the second time headers come
from the cache. `packed` is `train` on the same images in shards. Their seconds and memory are those beyond
`import torch`. `clean-measured` is `clean` where all images were measured before and no two are alike: it reads the
measures, compares and writes the report, then finds nothing to do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image

SOURCES = 20
MANY = 1_000_000  # from here on the images lie in 100 sub-folders

MAP = """
import sys
from pathlib import Path
from facekit.storage.folder import open_source, output_names
from facekit.storage.folder_map import folder_map
from facekit.storage.manifest import Output
source, out = map(Path, sys.argv[1:3])
limit = int(sys.argv[-1]) if len(sys.argv) > 3 else None
found = open_source(source, out)
names = output_names(found)
work = lambda one: [Output(names[one.name], b"x" * 100)]
folder_map("map", found, out, {"facekit": 1, "command": "map"}, work, names=names, processes=True, limit=limit)
"""
START = """
import json, resource, sys, time
import torch
from facekit.training import plan, run
def now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.process_time(), used.ru_maxrss / 1024
(seconds, memory), root = now(), sys.argv[1]
recipe = "classifier" if sys.argv[2] == "labels" else "cyclegan"
values = {"recipe": recipe, "data": {"root": root, "size": 32, "holdout": 1}, "run": {"steps": 1}}
made = plan.make_plan([values], "scale")
batches = run.make_batches(made, torch.device("cpu"))
batches(0)
print(json.dumps([now()[0] - seconds, now()[1] - memory]))
"""
MEANS = """
import torch
torch.jit.script(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())).save("mean.pt")
"""
STARTS = ("train", "packed", "labels-10", "labels-100", "labels-1000")
FACEKIT = [sys.executable, "-m", "facekit"]
COMMANDS = {
    "map": [sys.executable, "-c", MAP, "in", "out"],
    "align": [*FACEKIT, "align", "-q", "in", "out", "--size", "32", "--detector", "facekit"],
    "translate": [*FACEKIT, "translate", "-q", "in", "out", "--no-align", "--weights", "small", "--to", "b"],
    "smooth-edges": [*FACEKIT, "smooth-edges", "-q", "in", "out"],
    "clean": [*FACEKIT, "clean", "-q", "in", "out", "--min-size", "16"],
    "clean-measured": [*FACEKIT, "clean", "-q", "in", "out", "--min-size", "16"],
    "score-fid": [*FACEKIT, "score-fid", "-q", "in", "in", "--features", "mean.pt", "--input-size", "32"],
}


def small_nets(folder: Path) -> None:
    """Write a translation net of 8 channels, `small`, and features of 48 numbers, the means of 8 x 8 px, `mean.pt`."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", MEANS], check=True, cwd=folder)
    data = ["--a", "originals", "--b", "originals", "--size", "32", "--batch", "1", "--steps", "1"]
    width = ["--set", "params.width=8", "--set", "params.blocks=1", "--set", "data.holdout=1", "--out", "small"]
    train = [*FACEKIT, "train", "cyclegan", "-q", *data, *width]
    subprocess.run(train, check=True, cwd=folder, stdout=subprocess.DEVNULL)


def fill(folder: Path, count: int, names: list[str], faces: bool = False) -> None:
    """Make `count` images, all links to a few, in folders of these names."""
    originals = folder / "originals"
    originals.mkdir(parents=True)
    if faces:
        from skimage import data

        photo = Image.fromarray(data.astronaut()[:256, 96:352])
    for seed in range(SOURCES):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = photo.resize((128 + seed,) * 2) if faces else Image.fromarray(coarse).resize((32, 32))
        image.save(originals / f"{seed}.png")
    tops = [folder / "in" / name for name in names]
    for top in tops:
        top.mkdir(parents=True)
    for index in range(count):
        os.link(originals / f"{index % SOURCES}.png", tops[index % len(tops)] / f"{index:07d}.png")


def timed(command: list[str], folder: Path) -> tuple[float, float, float, float]:
    """Run a command in a folder; return its seconds, its seconds of processor time, its peak memory, and the memory
    that was its own at most, without the pages of libraries and other files (0 where the system does not say), in MiB.
    """
    start, around = time.perf_counter(), {**os.environ, "FACEKIT_CACHE": str(folder / "cache")}
    process, own = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder, env=around), 0.0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        own = max(own, own_memory(process.pid))
        time.sleep(0.05)
    _, status, used = ended
    if status:
        raise SystemExit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, own


def own_memory(process: int) -> float:
    """Return the MiB that a process holds beside pages of files (Linux); 0 where that is not said."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0)


def starts(name: str, count: int, folder: Path) -> None:
    """Print what the first and the second start of a training take up to the first batch."""
    kind, _, labels = name.partition("-")
    fill(folder, count, [f"{k:04d}" for k in range(int(labels))] if labels else ["trainA", "trainB"])
    around, root = {**os.environ, "FACEKIT_CACHE": str(folder / "cache")}, folder / "in"
    if kind == "packed":
        pack = [sys.executable, "-m", "facekit", "pack", "-q", str(root), str(folder / "shards")]
        print(f"pack {count:,}: {timed(pack, folder)[1]:.1f} s used")
        root = folder / "shards"
    for title in ("first", "second"):
        command = [sys.executable, "-c", START, str(root), kind]
        said = subprocess.run(command, env=around, check=True, capture_output=True, text=True).stdout
        used, memory = json.loads(said.splitlines()[-1])
        print(
            f"{name} {count:>7,} {title:11} {used:7.1f} s used  {1e6 * used / count:.0f} us an image  {memory:5.0f} MiB"
        )


def measured_before(folder: Path) -> None:
    """Write measures of all images as `clean` does: those of the original pictures, with hashes that no other has."""
    timed([*FACEKIT, "clean", "-q", "originals", "out"], folder)
    notes, draw = folder / "out/measures.jsonl", np.random.default_rng(0)
    known = {(folder / "originals" / row["file"]).stat().st_ino: row for row in map(json.loads, notes.open())}
    with notes.open("w") as file:
        for path in sorted((folder / "in").rglob("*.png")):
            own = {"file": path.relative_to(folder / "in").as_posix(), "phash": draw.bytes(8).hex()}
            own |= {"pixels": draw.bytes(12).hex(), "content": draw.bytes(12).hex()}
            file.write(json.dumps({**known[path.stat().st_ino], **own}) + "\n")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("commands", nargs="*", default=["map"], help=", ".join([*COMMANDS, *STARTS]))
parser.add_argument("--counts", default="1000,10000,100000")
parser.add_argument("--limit", type=int, help="make only the first images of a command: what so large a folder takes")
arguments = parser.parse_args()
print(machine())
for name in arguments.commands:
    for count in map(int, arguments.counts.split(",")):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if name in STARTS:
                starts(name, count, folder)
                continue
            fill(folder, count, [""] if count < MANY else [f"{k:02d}" for k in range(100)], faces=name == "align")
            if name in ("translate", "score-fid"):
                small_nets(folder)
            more = ["--workers", "1"] if name != "map" else []
            half, whole = (["--save", "half.yaml"], ["--save", "whole.yaml"]) if name == "score-fid" else ([], [])
            runs = [
                ("first half", [*more, "--limit", str(count // 2), *half], count // 2),
                ("second half", [*more, *whole], count if whole else count // 2),
                ("no-op", [*more, *whole], count),
            ]
            if name == "clean-measured":
                measured_before(folder)
                runs = [("the report", more, count), runs[-1]]
            if arguments.limit:
                runs = [(f"first {arguments.limit:,}", [*more, "--limit", str(arguments.limit)], arguments.limit)]
            for title, extra, done in runs:
                seconds, used, memory, own = timed([*COMMANDS[name], *extra], folder)
                each = f"{1e6 * used / done:.0f} us of processor time an image"
                held = f"{memory:5.0f} MiB, {own:.0f} without pages of files"
                print(f"{name} {count:>7,} {title:11} {seconds:7.1f} s  {used:7.1f} s used  {each}  {held}", flush=True)
