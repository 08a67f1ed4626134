"""Memory of `facekit align` over a long run: photos/s, faces, and the peak of each tenth of the run (Linux only).

The photos are links to those of a folder, over and over, up to --count; options after -- go to `align`. Its memory is
the proportional set size of all its processes: what they share counts once.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

from facekit.storage.folder import Folder

PROC = Path("/proc")


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, as far as they are still there."""
    try:
        tasks = list((PROC / str(pid) / "task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(found for child in children for found in family(child))]


def shared_fairly(pid: int) -> float:
    """Return the proportional set size of a process in MiB; 0 where it has ended."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (OSError, StopIteration):
        return 0.0


def watched(command: list[str], every: float) -> tuple[int, float, list[tuple[float, float]]]:
    """Run a command; return its exit code, how long it took in s, and (s, MiB) of each sample."""
    start, samples = time.perf_counter(), []
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        try:
            code = child.wait(every)
            return code, time.perf_counter() - start, samples
        except subprocess.TimeoutExpired:
            memory = sum(shared_fairly(pid) for pid in family(child.pid))
            samples.append((time.perf_counter() - start, memory))


def tenths(samples: list[tuple[float, float]], took: float) -> list[str]:
    """Return the peak of each tenth of the run in MiB; - where none of the samples fell into it."""
    parts: list[list[float]] = [[] for _ in range(10)]
    for at, memory in samples:
        parts[min(9, int(10 * at / took))].append(memory)
    return [f"{max(part):.0f}" if part else "-" for part in parts]


if not (PROC / "self" / "smaps_rollup").exists():
    sys.exit("this benchmark reads /proc/PID/smaps_rollup, which only Linux has")
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--photos", type=Path, required=True)
parser.add_argument("--count", type=int, default=10000)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--every", type=float, default=2.0, help="seconds between samples")
parser.add_argument("options", nargs="*", help="options of `align`, after --")
arguments = parser.parse_args()
print(machine())
with tempfile.TemporaryDirectory() as folder:
    source, out = Path(folder) / "in", Path(folder) / "out"
    source.mkdir()
    photos = [photo.path.resolve() for photo in Folder(arguments.photos).sources()]
    for index in range(arguments.count):
        (source / f"{index:05d}.jpg").symlink_to(photos[index % len(photos)])
    command = [sys.executable, "-m", "facekit", "align", str(source), str(out)]
    command += ["--workers", str(arguments.workers), *arguments.options]
    code, took, samples = watched(command, arguments.every)
    if code not in (0, 4):  # 4: some photos have no face
        sys.exit(f"align ended with {code}")
    faces = len(list(out.rglob("*.png")))
    peak = max((memory for _, memory in samples), default=0.0)
    rate = arguments.count / took
    print(f"{arguments.count} photos in {took:.0f} s ({rate:.1f} photos/s with start-up), {faces} faces")
    print(f"peak {peak:.0f} MiB, all processes; by tenths of the run: {' '.join(tenths(samples, took))}")
