"""The gallery of methods: a picture of the same faces by every one, and a table of what each costs and scores.

Give it the folder of a finished `facekit ablate` (see docs/gallery.md for the command). The faces are two photos in the
public domain that come with scikit-image and matplotlib, as they are, turned, and in grey. Processor time and memory of
a step are measured here, each method in a process of its own, in the middle of its run.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml
from machine import machine

FIRST, SECOND = ("happiness", "female"), ("neutral", "female")  # what the two faces are, for methods that must know
METRICS = ("KID-768", "FID-768", "accuracy", "IoU-parts", "identity-cosine", "unchanged", "unchanged-mask")


def cost(card_path: str, steps: int) -> None:
    """Print processor seconds and peak memory of a training step of a card's method."""
    import torch

    from facekit.recipe_api.base import Progress
    from facekit.runtime import console
    from facekit.storage import card
    from facekit.training.loop import train_step
    from facekit.training.plan import make_plan
    from facekit.training.run import make_batches
    from facekit.training.state import build_state

    with console.silenced():
        plan = make_plan([card.load(Path(card_path))], card_path)
        batches = make_batches(plan, torch.device("cpu"))
        learner = build_state(plan.recipe, plan.terms, plan.card, torch.device("cpu"))
    length = plan.steps(batches.epoch_steps)
    learner.step, seconds = length // 2, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for step in range(steps + 1):
        batch = batches(step)
        start = time.process_time()
        train_step(learner, batch, Progress(learner.step, length, batches.epoch_steps))
        seconds.append(time.process_time() - start)
        learner.step += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": statistics.mean(seconds[1:]), "peak": peak / 1024, "step": (peak - before) / 1024}))


def faces(size: int, margin: float) -> list:
    """Return two faces [S, S], smiling and not, cut from their photos with `margin` around."""
    import matplotlib
    import numpy as np
    from PIL import Image
    from skimage.data import astronaut

    from facekit.faces import align_face, find_detector

    hopper = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photos = [astronaut(), np.asarray(Image.open(hopper).convert("RGB"))]
    detector = find_detector("cascade")
    return [align_face(photo, detector.detect(photo)[0], size, margin).image for photo in photos]


def draw(runs: Path, names: list[str], path: Path) -> None:
    """Write the picture: a row per method, the faces as they are first.

    Methods between two domains get both faces, turned and in grey, too; those of many labels each face to all labels.
    """
    from facekit.data.roll import tilt
    from facekit.inference import translator
    from facekit.reports import contact_sheet
    from facekit.storage import card

    values = card.load(runs / "cards" / f"{names[0]}-s0.yaml")
    size, labels = values["data"]["size"], values["params"].get("labels")
    models = [
        translator.load(runs / "runs" / f"{name}-s0", (labels or [values["domains"]["b"]])[0], device="cpu")
        for name in names
    ]
    first, second = faces(size, 0.0 if labels else 0.35)
    if not labels:
        shown = [first, tilt(first, 20), second, second.convert("L").convert("RGB")]
        rows = [shown, *(model.batch(shown) for model in models)]
        contact_sheet.save_sheet(path, rows, labels=["input", *names], size=size, groups=2)
        return
    rows = [[first, *[first] * (len(labels) - 1), second, *[second] * (len(labels) - 1)]]
    for model in models:
        row = []
        for face, known in ((first, FIRST), (second, SECOND)):
            source = next((name for name in known if name in labels), labels[0])
            told = {"source": [source]} if model.model.recipe.takes("source") else {}
            row += [model.fitted([model.fit(face)], label, **told)[0] for label in labels]
        rows.append(row)
    contact_sheet.save_sheet(path, rows, titles=labels * 2, labels=["input", *names], size=size)


def main() -> None:
    """Print the table, and draw the picture where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of a finished ablation, run from where it was made")
    parser.add_argument("--picture", type=Path, help="also draw this picture")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each method")
    parser.add_argument("--cost", metavar="CARD", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cost:
        cost(arguments.cost, arguments.steps)
        return
    rows = yaml.safe_load((arguments.runs / "table.yaml").read_text())["rows"]
    names = [row["variant"] for row in rows if row["variant"] != "input"]
    metrics = [name for name in METRICS if name in rows[0]["scores"]]
    head = ["method", "parameters", "processor s/step", "memory, MiB", *metrics]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        name, told = row["variant"], ["-", "-", "-"]
        if name in names:
            card = arguments.runs / "cards" / f"{name}-s0.yaml"
            common = [sys.executable, __file__, str(arguments.runs), "--steps", str(arguments.steps)]
            out = subprocess.run([*common, "--cost", str(card)], capture_output=True, text=True, check=True).stdout
            found = json.loads(out.splitlines()[-1])
            told = [f"{row['parameters'] / 1e6:.2f} M", f"{found['seconds']:.2f}", f"{found['step']:.0f}"]
        for metric in metrics:
            value = row["scores"].get(metric, {}).get("mean")
            told.append("-" if value is None else f"{value:.{5 if metric.startswith('KID') else 3}f}")
        print(f"| {name} | " + " | ".join(told) + " |", flush=True)
    print(f"\nmemory is what the steps took beyond the nets and libraries; {machine()}")
    if arguments.picture:
        draw(arguments.runs, names, arguments.picture)


if __name__ == "__main__":
    main()
