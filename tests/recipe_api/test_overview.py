"""The list of recipes and what is said of one."""

from facekit.recipe_api import overview


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
