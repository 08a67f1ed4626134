"""CycleGAN for many labels, a model per pair (Rao et al., Table 2), beside a finished ablation of labelled methods.

Each held-out face of the ablation is translated by the model of its label and the one wanted; a face that has the label
already stays as it is. The scores are those of `facekit score-fid --labels`, as the ablation's.
"""

import argparse
import itertools
import shutil
from pathlib import Path

from facekit.ablation.scoring import LabelScoring
from facekit.commands.train import train
from facekit.commands.translate import translate
from facekit.scoring.scorer import Scorer, Settings
from facekit.storage import card as cards

NAME = "cyclegan-pairs"


def main() -> None:
    """Train what is missing, translate, score, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder of a finished ablation, run from where it was made")
    parser.add_argument("--data", type=Path, required=True, help="the folder of labels that it was trained on")
    parser.add_argument("--card", type=Path, default=Path(__file__).parent / "cards/labels/cyclegan.yaml")
    parser.add_argument("--train", action="store_true", help="only train")
    arguments = parser.parse_args()
    runs = arguments.runs
    labels = sorted(path.name for path in (runs / "real").iterdir()) if (runs / "real").exists() else []
    labels = labels or sorted(path.name for path in arguments.data.iterdir() if path.is_dir())
    models = {}
    for a, b in itertools.combinations(labels, 2):
        models[a, b] = models[b, a] = runs / "runs" / NAME / f"{a}-{b}"
        train(card=arguments.card, a=arguments.data / a, b=arguments.data / b, out=models[a, b], device="cpu")
    if arguments.train:
        return
    table = cards.load(runs / "table.yaml")
    tools = {key: table[key] for key in ("features", "segnet", "face", "classifier")}
    score = LabelScoring(runs, labels, Scorer(Settings(**tools, device="cpu")), translate)
    made = runs / "faces" / "all" / NAME
    for source, to in itertools.product(labels, labels):
        folder = made / to / source
        if source == to:
            shutil.copytree(score.faces / source, folder, dirs_exist_ok=True)
        else:
            translate(score.faces / source, folder, to=to, weights=str(models[source, to]), align=False, device="cpu")
    score.measure(NAME, made, score.path(NAME))
    figures = score.figures(NAME) or {}
    print(f"{NAME}: {len(models) // 2} models of {cards.load(arguments.card)['run']['steps']} steps")
    print(", ".join(f"{metric} {value:.5f}" for metric, value in figures.items()))


if __name__ == "__main__":
    main()
