"""`facekit translate` of a film beside the plain loop over whole frames with the same net: speed and flicker.

The film is one photo under a slow pan, zoom and turn, with noise. Flicker is the mean change of a pixel (0 to 255) of
the face from one frame to the next, after the known movement has been undone; that of the input is noise and encoder.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from machine import machine
from PIL import Image
from skimage.data import astronaut

import facekit
from facekit.storage import images

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photo", type=Path, nargs="?", help="a photo of one face; else the astronaut of scikit-image")
parser.add_argument("--frames", type=int, default=60)
parser.add_argument("--edge", type=int, default=384, help="width of the film, px; its height is 3/4 of that")
parser.add_argument("--noise", type=float, default=4, help="standard deviation of the noise, of 255")
parser.add_argument("--weights", default="anime")
parser.add_argument("--detector", default="auto")
parser.add_argument("--model-root", type=Path)
parser.add_argument("--strip", type=Path, help="write frames of input and outputs side by side to this image")
arguments = parser.parse_args()
RATE = 25
WIDTH, HEIGHT = arguments.edge, arguments.edge * 3 // 4 // 2 * 2


def movement(number: int, size: tuple[int, int]) -> np.ndarray:
    """Return the (2, 3) that takes px of the photo to px of a frame."""
    t = number / RATE
    scale = 1.25 * HEIGHT / size[1] * (1 + 0.15 * np.sin(0.9 * t))
    turn = np.radians(6 * np.sin(1.1 * t))
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    middle = np.array([size[0] / 2, 0.42 * size[1]])
    goal = np.array([WIDTH / 2 + 0.06 * WIDTH * np.sin(0.7 * t), HEIGHT / 2 + 0.03 * HEIGHT * np.cos(1.3 * t)])
    return np.column_stack([linear, goal - linear @ middle])


def make_film(path: Path, photo: np.ndarray) -> list[np.ndarray]:
    """Encode the film; returns the movement of each frame."""
    random = np.random.default_rng(0)
    size = photo.shape[1], photo.shape[0]
    movements = [movement(number, size) for number in range(arguments.frames)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for matrix in movements:
            frame = cv2.warpAffine(photo, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
            noisy = frame + random.normal(0, arguments.noise, frame.shape)
            made = av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), format="rgb24")
            container.mux(stream.encode(made))
        container.mux(stream.encode(None))
    return movements


def read(path: Path) -> list[np.ndarray]:
    """Return the frames of a film."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def flicker(frames: list[np.ndarray], movements: list[np.ndarray], mask: np.ndarray) -> float:
    """Return the mean change between frames in the part `mask` of the photo, as the photo has it."""
    height, width = mask.shape
    still = []
    for frame, matrix in zip(frames, movements, strict=True):
        back = cv2.invertAffineTransform(matrix)
        still.append(cv2.warpAffine(frame, back, (width, height), flags=cv2.INTER_LINEAR).astype(np.float32)[mask])
    return float(np.mean([np.abs(b - a).mean() for a, b in itertools.pairwise(still)]))


def plain_loop(source: Path, out: Path) -> float:
    """Translate whole frames as public scripts do: read, net, write; returns frames per second of processor time."""
    model = facekit.load(arguments.weights, device="cpu").model
    side = facekit.load(arguments.weights, device="cpu").side
    multiple = max(model.recipe.multiple, 1)
    size = WIDTH // multiple * multiple, HEIGHT // multiple * multiple
    began = time.process_time()
    reader = cv2.VideoCapture(str(source))
    writer = cv2.VideoWriter(str(out), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (WIDTH, HEIGHT))
    count = 0
    while True:
        there, frame = reader.read()
        if not there:
            break
        x = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), size)
        with torch.inference_mode():
            y = model.recipe.translate(model.nets, images.from_bytes(x[None]), side)[0]
        made = ((y.permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)
        writer.write(cv2.cvtColor(cv2.resize(made, (WIDTH, HEIGHT)), cv2.COLOR_RGB2BGR))
        count += 1
    writer.release()
    return count / (time.process_time() - began)


print(machine())
photo = np.asarray(Image.open(arguments.photo).convert("RGB") if arguments.photo else Image.fromarray(astronaut()))
with tempfile.TemporaryDirectory() as folder:
    here = Path(folder)
    movements = make_film(here / "in.mp4", photo)
    films = {"input": read(here / "in.mp4")}
    rates = {}
    flags = {"weights": arguments.weights, "detector": arguments.detector, "model_root": arguments.model_root}
    facekit.translate(here / "in.mp4", here / "warm.mp4", end="0.2", device="cpu", **flags)  # imports, caches
    for name, smooth in (("smoothed", True), ("not smoothed", False)):
        began = time.process_time()
        facekit.translate(here / "in.mp4", here / f"{smooth}.mp4", smooth=smooth, device="cpu", **flags)
        rates[name] = arguments.frames / (time.process_time() - began)
        films[name] = read(here / f"{smooth}.mp4")
    rates["plain loop, whole frames"] = plain_loop(here / "in.mp4", here / "plain.mp4")
    films["plain loop, whole frames"] = read(here / "plain.mp4")
    changed = np.abs(films["smoothed"][0].astype(int) - films["input"][0]).max(2) > 40
    back = cv2.invertAffineTransform(movements[0])
    face = cv2.warpAffine(changed.astype(np.uint8), back, (photo.shape[1], photo.shape[0])) > 0
    print(f"{arguments.frames} frames of {WIDTH} x {HEIGHT} px, noise {arguments.noise:g}")
    base = flicker(films["input"], movements, face)
    print(f"input: flicker {base:.2f}")
    for name, rate in rates.items():
        found = flicker(films[name], movements, face)
        print(f"{name}: {rate:.2f} frames per processor second, flicker {found:.2f}, {found / base:.2f} of the input's")
    if arguments.strip:
        at = np.linspace(0, arguments.frames - 1, 5).round().astype(int)
        rows = [np.hstack([film[i] for i in at]) for film in films.values()]
        Image.fromarray(np.vstack(rows)).save(arguments.strip)
