"""What face detectors find: recall by set and roll, by face size in scenes and groups, false faces, landmarks, speed.

    python benchmarks/detector.py --labelled labelled/test --detector facekit:runs/detector --detector cascade

`--labelled` holds folders with faces.jsonl, each a set; a set whose name ends in "-all" has boxes by rule of thumb and
counts for recall only. Nothing in it may have been trained on.
"""

import argparse
import itertools
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from machine import machine
from PIL import Image

from facekit.data import backgrounds
from facekit.data.face_boxes import BOX, KIND, WEIGHT, find_faces
from facekit.data.face_scenes import SceneReader, move_face
from facekit.faces import calibration, find_detector
from facekit.faces.trial import Trial, same_face
from facekit.storage import images

PHOTOS = ("lfw-raw", "selfie2anime-256-valA", "celebamask-256-test", "utkface-128-male")  # sets for group photos
ROLLS = (0, 30, 60, 90, 180)
SIZES = (16, 24, 32, 48, 96, 640)
CELL, ACROSS, DOWN = 200, 6, 4  # a group photo: px of a person's place, and how many places
OTHER = ("moon", "cell", "color", "logo", "microaneurysms", "motorcycle_right", "phantom", "chessboard_RGB")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--labelled", type=Path, required=True)
parser.add_argument("--detector", action="append", required=True, help="as of `facekit align`; may be repeated")
parser.add_argument("--model-root", type=Path)
parser.add_argument("--limit", type=int, default=100, help="pictures of each set")
parser.add_argument("--scenes", type=int, default=60)
parser.add_argument("--groups", type=int, default=20, help="group photos of up to 24 people")
parser.add_argument("--faceless", type=int, default=200)
parser.add_argument("--rolls", type=int, nargs="*", default=ROLLS)
arguments = parser.parse_args()
torch.set_num_threads(1)
print(machine())

sets = {folder.name: find_faces(folder) for folder in sorted(arguments.labelled.iterdir()) if folder.is_dir()}
sets = {name: faces for name, faces in sets.items() if any(len(rows) for rows in faces.values())}
reader = SceneReader("a", {p: rows for faces in sets.values() for p, rows in faces.items()}, ())


def spread(items, count):
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def rolled(picture, rows, degrees):
    """Turn a picture clockwise about its middle, with room for its corners in grey; its faces move along."""
    if not degrees:
        return picture, rows
    turned = Image.fromarray(picture).rotate(-degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(128,) * 3)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    linear = np.array([[cos, -sin], [sin, cos]])
    shift = np.array(turned.size) / 2 - linear @ (np.array(picture.shape[1::-1]) / 2)
    matrix = np.column_stack([linear, shift])
    return np.asarray(turned), np.stack([move_face(row, matrix) for row in rows])


def without_faces(count):
    """Pictures without a face: crops of pictures that have none, and what lies beside the faces of the photos."""
    folder = Path(skimage.data.__file__).parent
    others = [np.asarray(images.read(file)) for name in OTHER for file in sorted(folder.glob(f"{name}.png"))]
    for path, rows in reader.faces.items():
        others += [np.asarray(images.read(path))] * (not len(rows))
    for file in sorted(arguments.labelled.glob("faceless/*.*[gp]")):
        others.append(np.asarray(images.read(file)))
    photos = [reader.read(path, 256) for path in spread(list(reader.faces), count // 2)]
    step = next(step for step in range(7, 1000) if math.gcd(step, len(others)) == 1)  # each once before any again
    for index in range(count):
        rng = np.random.default_rng(index)
        if index % 2 and photos:
            yield backgrounds.beside(rng, *photos[index // 2 % len(photos)].values(), 320)
        else:
            yield backgrounds.crop(rng, others[index // 2 * step % len(others)], 320)


def scenes(count):
    """Compose scenes of 640 px, as training does, of labelled pictures."""
    samples = [reader.read(path, 256) for path in spread(list(reader.faces), 300)]
    for index in range(count):
        rng = np.random.default_rng(index)

        def draw(rng=rng):
            return samples[int(rng.integers(len(samples)))]

        scene = reader.present(samples[index % len(samples)], rng, 640, True, draw)
        yield scene["a"], scene["a_faces"]


def group(rng, paths):
    """Compose a group photo: in each place a photo of `paths`, scaled so that its largest face has 24 to 80 px."""
    canvas = backgrounds.noise(rng, CELL * ACROSS)[: CELL * DOWN].copy()
    found = []
    for number, index in enumerate(rng.choice(len(paths), ACROSS * DOWN)):
        photo, rows = images.read(paths[index]), reader.faces[paths[index]].copy()
        side = max(max(row[2] - row[0], row[3] - row[1]) for row in rows if row[WEIGHT] > 0)
        scale = float(np.exp(rng.uniform(np.log(24), np.log(80)))) / side
        shown = photo.resize(
            [max(1, round(edge * scale)) for edge in photo.size], Image.Resampling.LANCZOS, reducing_gap=3
        )
        row = max((row for row in rows if row[WEIGHT] > 0), key=lambda row: row[2] - row[0])
        middle = scale * (row[:2] + row[2:4]) / 2
        low = np.round(np.clip(middle - CELL / 2, 0, np.maximum(np.array(shown.size) - CELL, 0))).astype(int)
        shown = np.asarray(shown.crop((*low, *np.minimum(low + CELL, shown.size))))
        top, left = CELL * (number // ACROSS), CELL * (number % ACROSS)
        canvas[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
        for row in rows:
            row[:KIND] = row[:KIND] * scale - np.tile(low, 7)
            whole = (row[:2] > -4).all() and (row[2:4] < np.array(shown.shape[1::-1]) + 4).all()
            row[WEIGHT] *= whole and max(row[2:4] - row[:2]) >= 24
            row[:KIND] += np.tile((left, top), 7)
            found.append(row)
    return canvas, np.stack(found)


def groups(detector, count):
    paths = [
        path for name, faces in sets.items() if name in PHOTOS for path in faces if (faces[path][:, WEIGHT] > 0).any()
    ]
    trial, took, number = Trial(), [], 0
    for index in range(count if paths else 0):
        picture, rows = group(np.random.default_rng(index), paths)
        start = time.process_time()
        found = detector.detect(picture, "every")
        took.append(time.process_time() - start)
        number += len(found)
        trial.add(found, rows, 0.0)
    if trial.pictures:
        print(f"  {trial.pictures} group photos: {by_size(trial, (24, 32, 48, 64, 100))}; {trial.false} false")
        print(f"    one core: {1000 * np.median(took):.0f} ms for {number / count:.0f} faces in {picture.shape[1]} px")


def by_size(trial, sizes):
    parts = []
    for low, high in itertools.pairwise(sizes):
        seen = [hit for side, hit in trial.sides if low <= side < high]
        parts += [f"{low}-{high} px {100 * np.mean(seen):.0f} % of {len(seen)}"] if seen else []
    return ", ".join(parts)


def calibrated(detector):
    """Print how often faces of about a score are right: in the sets, shown whole, and in composed scenes."""
    inner = getattr(detector, "detector", detector)
    pictures = [
        (np.asarray(images.read(p)), f[p]) for f in sets.values() for p in spread(list(f), arguments.limit // 2)
    ]
    shown = ((inner.detect(picture, "every"), rows) for picture, rows in (*pictures, *scenes(arguments.scenes)))
    bins = calibration.table(*calibration.judged(shown))
    print("  score, faces, right:", "; ".join(f"{low}-{high} {n} {right:.2f}" for low, high, n, _, right in bins))


def speed(detector):
    photo = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((640, 640)))
    ten = np.tile(np.asarray(Image.fromarray(photo).resize((160, 160))), (3, 4, 1))[:, :640]
    times = {}
    for effort, picture in (("first", photo), ("every", photo), ("ten", np.vstack([ten, ten[:160]]))):
        took = []
        for _ in range(8):
            start = time.process_time()
            detector.detect(picture, "every" if effort == "ten" else effort)
            took.append(time.process_time() - start)
        times[effort] = 1000 * min(took)
    print(
        f"  640 px photo, one core: {times['first']:.1f} ms for one face, {times['every']:.1f} ms for every face,"
        f" {times['ten']:.1f} ms for every one of sixteen"
    )


def net_speed(net):
    import onnxruntime

    x = torch.rand(1, 3, 640, 640)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        file = Path(folder) / "net.onnx"
        torch.onnx.export(net, (x,), str(file), dynamo=False, input_names=["x"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for name, run in (("torch", lambda: net(x)), ("ONNX Runtime", lambda: session.run(None, {"x": x.numpy()}))):
            run()
            took = []
            for _ in range(8):
                start = time.process_time()
                run()
                took.append(time.process_time() - start)
            print(f"  the net alone at 640 x 640, one core, {name}: {1000 * min(took):.1f} ms")


for name in arguments.detector:
    detector = find_detector(name, arguments.model_root)
    print(f"\n{detector.name}")
    print(f"  {'recall by roll':22s}{''.join(f'{roll:>8d}' for roll in arguments.rolls)}   landmark error at 0, median")
    for label, faces in sets.items():
        recalls, largest, error = [], [], ""
        for roll in arguments.rolls:
            trial = Trial()
            largest.append([])
            for path in spread(list(faces), arguments.limit):
                picture, rows = rolled(np.asarray(images.read(path)), faces[path], roll)
                found = detector.detect(picture, "every")
                trial.add(found, rows, 0.0)
                rows = rows[rows[:, WEIGHT] > 0]
                if len(rows):
                    row = rows[(rows[:, 2] - rows[:, 0]).argmax()]
                    largest[-1].append(any(same_face(face.box, row[BOX]) for face in found))
            recalls.append(trial.recall)
            if not roll and not label.endswith("-all") and trial.errors:
                error = f"{100 * np.median(trial.errors):.1f} % of the eye distance"
                error += f", {trial.false} false in {trial.pictures}"
        print(f"  {label:22s}" + "".join(f"{100 * recall:7.1f}%" for recall in recalls) + f"   {error}")
        print("    the largest alone   " + "".join(f"{100 * np.mean(hits):7.1f}%" for hits in largest), flush=True)
    trial = Trial()
    for picture, rows in scenes(arguments.scenes):
        trial.add(detector.detect(picture, "every"), rows, 0.0)
    print(f"  scenes of 640 px, any roll, some faces partly hidden: {by_size(trial, SIZES)}; {trial.false} false")
    groups(detector, arguments.groups)
    false = [detector.detect(picture, "every") for picture in without_faces(arguments.faceless)]
    print(f"  false faces in {len(false)} pictures without one: {sum(map(len, false))} in {sum(map(bool, false))}")
    calibrated(detector)
    speed(detector)
    if detector.name.startswith("facekit"):
        net_speed(detector.detector.net)
