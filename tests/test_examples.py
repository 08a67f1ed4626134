"""What stands in examples/: the recipe of one's own and the Makefile of the whole chain."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import facekit as package
import toy
from facekit import cli

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = [f"--set=params.{key}={value}" for key, value in {"width": 4, "blocks": 1, "d_width": 4, "pool": 2}.items()]


def test_the_recipe_of_ones_own_trains_and_translates(facekit, tmp_path):
    data = toy.domains(tmp_path / "data", 4, 32)
    recipe = EXAMPLES / "blur_cycle.py"
    done = facekit("train", recipe, "--data", data, "--out", tmp_path / "run", "--size", 32, "--steps", 2, *SMALL)
    assert done.code == 0, done.err
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 2 and row["losses"]["cycle"] > 0
    assert package.load(tmp_path / "run", to="b", device="cpu")(toy.picture(32)).size == (32, 32)


def test_the_recipe_of_ones_own_has_its_own_term_and_inherits_the_rest(facekit):
    told = json.loads(facekit("recipes", EXAMPLES / "blur_cycle.py", "--json").out)
    assert told["recipe"].endswith("blur_cycle.py") and told["terms"]["cycle"]["weight"] == 20
    assert "blurred" in told["terms"]["cycle"]["about"] and "identity" in told["terms"]


@pytest.fixture
def plan(tmp_path):
    """The commands that the Makefile would run, in order."""

    def make(*settings):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "drawings").mkdir(exist_ok=True)
        command = ["make", "-n", "-f", EXAMPLES / "Makefile", *settings]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return [line.partition("||")[0].split()[1:] for line in done.stdout.splitlines() if line.startswith("facekit ")]

    return make


def test_the_makefile_runs_the_chain_with_commands_that_parse(plan):
    steps = plan("RECIPE=cyclegan", "SIZE=64", "TRAIN=--seed 1")
    assert [name for name, *_ in steps] == ["align", "align", "train", "translate"]
    for name, *rest in steps:
        cli.load_command(name).make_context(name, rest)  # raises for what does not parse
    assert "cyclegan" in steps[2] and steps[2][-2:] == ["--seed", "1"]


def test_the_makefile_does_what_is_finished_no_more(plan, tmp_path):
    plan()
    for step in ("photo", "anime", "run"):
        (tmp_path / "work" / step).mkdir(parents=True)
        (tmp_path / "work" / step / "card.yaml").touch()
    assert [name for name, *_ in plan()] == ["translate"]


def test_the_makefile_says_every_setting_in_its_head():
    text = (EXAMPLES / "Makefile").read_text()
    used, set_ = set(re.findall(r"\$\(([A-Z_]+)\)", text)), set(re.findall(r"^([A-Z_]+) \?=", text, re.M))
    assert used == set_
