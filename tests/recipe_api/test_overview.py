"""The list of recipes and what is said of one."""

import importlib.util
from pathlib import Path

import pytest

from facekit.recipe_api import overview, registry
from facekit.storage import card


def test_the_list_says_where_to_start_and_how_presets_differ():
    rows = {row["name"]: row for row in overview.overview()}
    assert [name for name, row in rows.items() if row["start_here"]] == ["projected-cut"]
    assert rows["ugatit-light"]["differs"] == ["params.light=True"]
    assert (rows["ugatit-light"]["size"], rows["ugatit-light"]["steps"]) == (256, 1_000_000)
    lines = overview.overview_text(list(rows.values())).splitlines()
    line = next(line for line in lines if line.startswith("ugatit-light"))
    assert "params.light=True" in line and "1,000,000 steps" in line


def test_a_description_has_the_weights_of_the_preset():
    found = overview.describe("expression")
    assert found["terms"]["cycle"]["weight"] == 0 and found["terms"]["contextual"]["weight"] == 0.1
    assert overview.describe("stargan")["terms"]["cycle"]["weight"] == 10


def test_the_list_knows_the_size_and_length_that_a_recipe_inherits():
    rows = {row["name"]: row for row in overview.overview()}
    for name in ("ugatit-face", "cyclegan-angle", "face2anime", "unit-vgg", "stylegan2-freeze-g"):
        kind, preset = registry.find(name)
        values = card.merge(kind.defaults, preset)
        assert rows[name]["size"] == values["data"]["size"], name
        assert (rows[name]["steps"], rows[name]["epochs"]) == (values["run"].get("steps"), values["run"].get("epochs"))


def test_text_for_a_terminal_hangs_under_its_column():
    text = overview.overview_text(overview.overview())
    assert all(len(line) <= 80 for line in overview.wrapped(text, 80).splitlines())
    row = "name   64  one two three four"
    assert overview.wrapped(row, 20) == "name   64  one two\n           three\n           four"
    assert " ".join(overview.wrapped(text, 80).split()) == " ".join(text.split())


def test_the_list_says_what_a_recipe_costs():
    rows = {row["name"]: row for row in overview.overview()}
    assert rows["projected-cut"]["work"] == 1
    assert rows["ugatit"]["gib"] > rows["ugatit-light"]["gib"] > rows["projected-cut"]["gib"]
    assert "[work 1, " in overview.overview_text([rows["projected-cut"]])
    assert set(overview.COSTS) <= set(rows)


@pytest.mark.slow
def test_the_costs_are_those_that_the_benchmark_counts():
    path = Path(__file__).parents[2] / "benchmarks" / "recipe_costs.py"
    spec = importlib.util.spec_from_file_location("recipe_costs", path)
    recipe_costs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe_costs)
    assert recipe_costs.cost("cartoongan-16") == pytest.approx(overview.COSTS["cartoongan-16"], rel=0.05)
