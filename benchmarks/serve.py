"""A load test of `facekit serve` on this machine: requests lost, median and p99 of their times, memory over many."""

import argparse
import collections
import http.client
import io
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from machine import machine
from PIL import Image
from skimage.data import astronaut

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--requests", type=int, default=200)
parser.add_argument("--clients", type=int, default=20)
parser.add_argument("--small", type=int, default=2000, help="requests with small images, for the memory")
parser.add_argument("--weights", default="anime")
parser.add_argument("--queue", type=int, default=32)
parser.add_argument("--timeout", type=float, default=60, help="of the service; more on a machine that is busy")
arguments = parser.parse_args()


def encoded(image: Image.Image) -> bytes:
    """Return an image as JPEG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def resident(process: int) -> float:
    """Return the MiB of memory that a process holds (Linux)."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096 / 2**20


def load(port: int, path: str, body: bytes, count: int, clients: int, each=lambda done: None):
    """Send `count` requests from `clients` threads; a client that gets 429 waits and tries again."""
    times: list[float] = []
    statuses: collections.Counter = collections.Counter()
    left, lock = [count], threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=arguments.timeout + 60)
        while True:
            with lock:
                if left[0] == 0:
                    return
                left[0] -= 1
            began = time.perf_counter()
            while True:
                connection.request("POST", path, body, {"Content-Type": "image/jpeg"})
                answer = connection.getresponse()
                data = answer.read()
                with lock:
                    statuses[answer.status] += 1
                if answer.status != 429:
                    break
                time.sleep(float(answer.headers["retry-after"]))
            if answer.status == 200:
                Image.open(io.BytesIO(data)).load()
                with lock:
                    times.append(time.perf_counter() - began)
                    each(len(times))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, statuses, time.perf_counter() - began


print(machine())
command = [sys.executable, "-m", "facekit", "serve", arguments.weights, "--port", "0", "--queue", str(arguments.queue)]
command += ["--timeout", str(arguments.timeout), "--json"]
process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
assert process.stdout is not None
port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
threading.Thread(target=lambda: collections.deque(process.stdout, maxlen=0), daemon=True).start()
try:
    photo = encoded(Image.fromarray(astronaut()))
    load(port, "/translate", photo, 4, 2)  # warm up
    times, statuses, took = load(port, "/translate?format=jpg", photo, arguments.requests, arguments.clients)
    times.sort()
    lost = arguments.requests - len(times)
    print(
        f"{arguments.requests} photos of 512 px from {arguments.clients} clients: {lost} lost, "
        f"{statuses[429]} times 429, {len(times) / took:.1f}/s, median {statistics.median(times):.2f} s, "
        f"p99 {times[int(0.99 * len(times))]:.2f} s"
    )
    small = encoded(Image.fromarray(astronaut()[60:160, 170:270]).resize((64, 64)))
    memory: list[float] = []
    tenth = max(1, arguments.small // 10)
    path = "/translate?align=false&format=jpg"
    times, statuses, took = load(
        port, path, small, arguments.small, 4, lambda done: done % tenth or memory.append(resident(process.pid))
    )
    shown = " ".join(f"{value:.0f}" for value in memory)
    print(f"{len(times)} small faces, {len(times) / took:.1f}/s; memory by tenths of the run, MiB: {shown}")
finally:
    process.terminate()
    print(f"exit code after SIGTERM: {process.wait(60)}")
