"""`--engine ray` beside the pool of this machine, with one to three nodes, and what its driver costs.

Needs the extra `ray`. Drawings are made here. `pool` maps them with smooth-edges by turns with the local processes and
with as many workers of a Ray on this machine, after both are warm; `nodes` does so with one, two and three nodes of one
core each; `driver` sends pieces of work that cost nothing and prints what one costs the driver in processor time.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image, ImageDraw

from facekit.data.smooth_folder import smooth_folder
from facekit.runtime import console
from facekit.runtime.engine import LOCAL, Engine
from facekit.runtime.workers import in_order, pool_of
from facekit.storage.folder import open_source

STORE = 80 * 2**20
os.environ.update(RAY_worker_niceness="0")  # as local processes have it


def fill(folder: Path, count: int, edge: int) -> Path:
    """Write drawings of flat shapes: 20 different ones, the rest are links to them."""
    folder.mkdir()
    for i in range(min(count, 20)):
        rng = np.random.default_rng(i)
        image = Image.new("RGB", (edge, edge), (250, 240, 255))
        draw = ImageDraw.Draw(image)
        for x, y, r in rng.integers(4, edge, (40, 3)):
            draw.ellipse((x - r // 8, y - r // 8, x + r // 8, y + r // 8), tuple(rng.integers(0, 256, 3).tolist()))
        image.save(folder / f"{i:06d}.png")
    for i in range(20, count):
        os.link(folder / f"{i % 20:06d}.png", folder / f"{i:06d}.png")
    return folder


def rate(folder: Path, out: Path, engine: Engine, workers: int) -> tuple[float, float]:
    """Return images/s of smooth-edges, start and end included, and ms of this process's processor time an image."""
    found = open_source(folder, out)
    begun, used = time.monotonic(), time.process_time()
    with console.silenced():
        smooth_folder(found, out, {"out": str(out)}, "opencv", None, workers, engine)
    return len(found) / (time.monotonic() - begun), 1000 * (time.process_time() - used) / len(found)


def pool(place: Path, folder: Path, rounds: int) -> None:
    """Print the rate of the cluster's workers over that of the local processes, by turns."""
    workers = os.cpu_count() or 1
    ratios = []
    with Engine("ray").connected() as engine:
        for turn in range(rounds):
            local, own = rate(folder, place / f"local{turn}", LOCAL, workers)
            ray, driver = rate(folder, place / f"ray{turn}", engine, workers)
            ratios.append(ray / local)
            print(
                f"  local {local:.1f}, ray {ray:.1f} images/s: {ratios[-1]:.2f}; processor time of the driver "
                f"{own:.2f} and {driver:.2f} ms an image",
                flush=True,
            )
    print(f"pool: {workers} workers, median {statistics.median(ratios):.2f} of the local rate")
    written = [path.stat().st_size for path in (place / "ray0").glob("*.png")]
    read = [path.stat().st_size for path in folder.iterdir()]
    print(f"  {statistics.mean(read):.0f} bytes read and {statistics.mean(written):.0f} written for each image")


def nodes(place: Path, folder: Path, most: int) -> None:
    """Print the rate with one node of one core, with two, and so on."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    first = 0.0
    for count in range(1, most + 1):
        cluster.add_node(num_cpus=1, object_store_memory=STORE, include_dashboard=False)
        found, _ = rate(folder, place / f"nodes{count}", Engine("ray", cluster.address), count)
        first = first or found
        print(f"nodes: {count} of one core, {found:.1f} images/s, {found / first:.2f} of one", flush=True)
    cluster.shutdown()


def driver(pieces: int) -> None:
    """Print what a piece of work costs the driver: processor time, and so the most that it can send in a second."""
    with pool_of(0, True, Engine("ray")) as workers:
        list(in_order(workers, abs, range(100), 8))
        wall, used = time.monotonic(), time.process_time()
        for _ in in_order(workers, abs, range(pieces), 8):
            pass
        wall, used = time.monotonic() - wall, time.process_time() - used
    print(
        f"driver: {1000 * used / pieces:.3f} ms of processor time a piece, at most {pieces / used:.0f} pieces/s; "
        f"{pieces / wall:.0f} pieces/s here"
    )


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=["pool", "nodes", "driver"], default=["pool", "nodes", "driver"])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--pieces", type=int, default=5000)
    given = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder = fill(place / "in", given.count, given.edge)
        if "driver" in given.what:
            driver(given.pieces)
        if "pool" in given.what:
            pool(place, folder, given.rounds)
        if "nodes" in given.what:
            nodes(place, folder, given.nodes)


if __name__ == "__main__":
    main()
