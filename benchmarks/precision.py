"""Size, speed and KID of the files of `facekit export` in 32 and 16 bits and in int8: one run, by turns."""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from machine import machine

import facekit
from facekit.runtime import console
from facekit.storage import images
from facekit.storage.folder import Folder

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("data", type=Path, help="a folder with valA, valB and trainA")
parser.add_argument("--weights", default="anime")
parser.add_argument("--features", required=True, help="an ONNX file, for the scores")
parser.add_argument("--size", type=int, default=128)
parser.add_argument("--threads", type=int, default=1)
arguments = parser.parse_args()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = arguments.threads
print(machine())
print(f"{arguments.weights}, {arguments.size} px, threads: {arguments.threads}")
faces = [
    images.resize(images.square(images.read(s.path)), arguments.size) for s in Folder(arguments.data / "valA").sources()
]
with tempfile.TemporaryDirectory() as place:
    sessions, sizes = {}, {}
    for precision in ("fp32", "fp16", "int8"):
        path = Path(place) / f"{precision}.onnx"
        more = {"calibrate": arguments.data / "trainA"} if precision == "int8" else {}
        facekit.export(arguments.weights, path, precision=precision, size=arguments.size, **more)
        sessions[precision], sizes[precision] = onnxruntime.InferenceSession(str(path), options), path.stat().st_size
    times = {name: [] for name in sessions}
    for number, face in enumerate(faces):
        x = images.to_tensor(face).numpy()[None]
        for name, session in sessions.items():
            begun = time.perf_counter()
            (made,) = session.run(None, {"image": x})
            times[name].append(time.perf_counter() - begun)
            pixels = ((made[0].transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
            images.save(images.Image.fromarray(pixels), Path(place) / name / f"{number:04d}.png")
    for name in sessions:
        with console.silenced():
            scores = facekit.score_fid(
                Path(place) / name, arguments.data / "valB", features=arguments.features, resize=arguments.size
            )
        kid = next(value for key, value in scores.items() if key.startswith("KID-"))
        ratio = statistics.median(one / other for one, other in zip(times["fp32"], times[name], strict=True))
        took = 1000 * statistics.median(times[name])
        print(f"{name}: {sizes[name] / 1e6:.1f} MB, {took:.1f} ms, {ratio:.2f} times as fast as fp32, KID {kid:.5f}")
