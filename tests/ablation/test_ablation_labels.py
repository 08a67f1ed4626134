"""`score-fid --labels` and `ablate` of labelled methods: scores per label, their mean, accuracy, what masks say."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import toy
import toy_scores
from facekit.errors import CardError
from facekit.recipe_api import checkpoint, registry
from facekit.scoring import extractors, label_accuracy
from facekit.storage import card

RECIPE = '''
import torch
from torch import nn
from facekit.recipe_api.labelled import Labelled, LabelledScene
from facekit.ops.losses import l1
from facekit.recipe_api.base import Phase, term

class ManyScene(LabelledScene):
    @term("G")
    def same(self):
        """An image stays as it is."""
        return l1(self.nets.level(self.image), self.image)

    @term("G")
    def noise(self):
        """Draws random numbers."""
        return (self.nets.level(self.image) * torch.randn_like(self.image)).mean()

class Many(Labelled):
    """Adds a colour per label."""

    Scene = ManyScene
    phases = (Phase("G", ("level",)),)
    presets = {"many": {}}
    exports = ("level",)
    masks = True

    def nets(self):
        return {"level": nn.Conv2d(3, 3, 1)}

    def translate(self, nets, x, to):
        return (nets.level(x) + self.vector(to, x)[:, :1, None, None]).clamp(-1, 1)

    def mask(self, nets, x, to):
        return torch.full_like(x[:, :1], 0.25)
'''


@pytest.fixture
def judge(tmp_path):
    """Weights of an untrained classifier of bright and dark."""
    kind, _ = registry.find("classifier")
    made = kind({"labels": ["bright", "dark"], "width": 4}, 16)
    torch.manual_seed(0)
    values = {"recipe": "classifier", "params": made.params.model_dump(mode="json"), "data": {"size": 16}}
    exported = nn.ModuleDict({name: net for name, net in made.nets().items() if name in made.exports})
    checkpoint.save_model(tmp_path / "judge.safetensors", exported, card.plain(card.TrainCard.model_validate(values)))
    return tmp_path / "judge.safetensors"


def grey(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 9, (16, 16, 3))
    Image.fromarray((noise + value).astype(np.uint8)).save(path)


class Bright:
    """A model that knows bright from dark."""

    path = Path("here")
    nets = nn.ModuleDict({"face": nn.Linear(1, 1)})
    card = card.TrainCard(recipe="classifier", data=card.Data(size=16))

    class recipe:
        class params:
            labels = ("bright", "dark")
            single = True

        @staticmethod
        def probabilities(nets, x):
            bright = x.mean((1, 2, 3)) > 0
            return torch.stack([bright, ~bright], 1).float()


def test_accuracy_is_the_share_that_has_the_label(tmp_path):
    for index, value in enumerate((200, 210, 220, 30)):
        grey(tmp_path / "out" / f"{index}.png", value)
    assert label_accuracy.accuracy(tmp_path / "out", Bright, "bright") == 0.75
    assert label_accuracy.accuracy(tmp_path / "out", Bright, "dark") == 0.25
    assert label_accuracy.accuracy(tmp_path / "out", Bright, "dark", limit=2) == 0
    with pytest.raises(CardError, match="did you mean 'bright'"):
        label_accuracy.accuracy(tmp_path / "out", Bright, "brigt")


def test_only_a_classifier_can_tell(tmp_path, facekit):
    toy.fill(tmp_path / "out", 2)
    with pytest.raises(CardError, match="not a classifier"):
        label_accuracy.accuracy(tmp_path / "out", checkpoint.load_model("facefeat"), "bright")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    for number, label in enumerate(("bright", "dark")):
        toy.fill(tmp_path / "out" / label, 6, seed=number)
        toy.fill(tmp_path / "ref" / label, 7, seed=number + 5)
    toy_scores.write_onnx(tmp_path / "net.onnx")
    return tmp_path


def test_every_label_is_scored_alone_and_their_mean_is_reported(facekit, here, judge):
    (here / "out" / "other").mkdir()  # not a label of REF
    done = facekit("score-fid", "out", "ref", "--labels", "--features", "net.onnx", "--classifier", judge,
                   "--save", "score.yaml")  # fmt: skip
    assert done.code == 0, done.err
    saved = yaml.safe_load((here / "score.yaml").read_text())["made"]["scores"]
    alone = json.loads(
        facekit("score-fid", "out/dark", "ref/dark", "--features", "net.onnx", "--json").out.splitlines()[-1]
    )
    assert saved["labels"]["dark"]["FID-48"] == pytest.approx(alone["FID-48"])
    assert list(saved["labels"]) == ["bright", "dark"]
    for name in ("FID-48", "KID-48", "accuracy"):
        assert saved[name] == pytest.approx(np.mean([saved["labels"][k][name] for k in ("bright", "dark")]))
    assert {line.split()[0] for line in done.out.splitlines()[1:] if line} == {"bright", "dark", "mean"}


def test_nets_are_loaded_once_for_all_labels(facekit, here, judge, monkeypatch):
    loaded = []
    for module, name in ((extractors, "load"), (checkpoint, "load_model")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, real=real: loaded.append(str(given[0])) or real(*given))
    given = (
        "score-fid",
        "out",
        "ref",
        "--labels",
        "--features",
        "net.onnx",
        "--classifier",
        judge,
        "--save",
        "score.yaml",
    )
    assert facekit(*given).code == 0 and sorted(loaded) == sorted(["net.onnx", str(judge)])
    loaded.clear()
    assert facekit(*given).code == 0 and loaded == []  # the card has the result


def test_folders_without_a_common_label_are_refused(facekit, here):
    (here / "ref" / "bright").rename(here / "ref" / "a")
    (here / "ref" / "dark").rename(here / "ref" / "b")
    done = facekit("score-fid", "out", "ref", "--labels", "--features", "net.onnx")
    assert done.code == 3 and "one folder per label" in done.err
    done = facekit("score-fid", "nowhere", "ref", "--labels", "--features", "net.onnx")
    assert done.code == 3 and "no such file or folder: nowhere" in done.err
    done = facekit("score-fid", "out", "ref", "--classifier", "x", "--features", "net.onnx")
    assert done.code == 2 and "--labels" in done.err


@pytest.mark.slow
def test_a_labelled_method_is_ablated_over_all_labels(tmp_path, facekit, tools, judge):
    (tmp_path / "many.py").write_text(RECIPE)
    for number, label in enumerate(("bright", "dark")):
        toy.fill(tmp_path / "data" / label, 20, seed=number)
    base, out = tmp_path / "base.yaml", tmp_path / "out"
    data = {"root": str(tmp_path / "data"), "size": 16, "batch": 2, "split": [6, 2, 2]}
    base.write_text(card.dump({"recipe": f"{tmp_path}/many.py", "data": data, "run": {"steps": 2}}))
    given = ("ablate", base, "--set", f"recipe={tmp_path}/many.py", "--out", out, *tools)
    given += ("--drop", "noise", "--classifier", judge)
    done = facekit(*given)
    assert done.code == 0, done.err
    rows = {row["variant"]: row["scores"] for row in yaml.safe_load((out / "table.yaml").read_text())["rows"]}
    assert list(rows) == ["many", "no-noise", "input"]
    assert rows["many"]["unchanged-mask"]["mean"] == pytest.approx(0.75, abs=0.01)
    assert 0 <= rows["many"]["accuracy"]["mean"] <= 1 and "unchanged-mask" not in rows["input"]
    assert rows["input"]["identity-cosine"]["mean"] == pytest.approx(1, abs=1e-5)
    assert rows["input"]["accuracy"]["mean"] == pytest.approx(0.5)  # of two labels, every face has one
    assert (out / "bright.png").exists() and (out / "dark.png").exists()
    assert "translated to each of 2 labels, against 40 images" in (out / "table.md").read_text()
    assert facekit(*given, "--to", "dark").code == 2
    again = facekit(*given)
    assert again.code == 0 and again.err.count("train: nothing to do") >= 2
