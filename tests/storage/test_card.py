"""Run cards: what they take, what they refuse and how they say it, and who holds an output folder."""

import json
import math
from pathlib import Path

import pytest
import yaml

import toy
from facekit.errors import CardError
from facekit.recipe_api import registry
from facekit.storage import card, claim, provenance

EXAMPLES = Path(__file__).parents[2] / "examples"
CARDS = sorted((EXAMPLES / "cards").glob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def check(values: dict) -> card.TrainCard:
    return card.validate(card.TrainCard, {"recipe": "toy", **values}, "card.yaml")


def refusal(values: dict) -> str:
    with pytest.raises(CardError) as caught:
        check(values)
    assert caught.value.code == 2 and caught.value.hint
    assert caught.value.message.startswith("card.yaml: ")
    return caught.value.message


# reading


def test_a_chain_of_cards_is_merged_with_the_nearest_on_top(tmp_path):
    (tmp_path / "base").mkdir()
    write(tmp_path / "base/far.yaml", "seed: 1\nrun: {steps: 1, ema: 0.1, save_every: 1}")
    write(tmp_path / "base/near.yaml", "extends: far.yaml\nrun: {steps: 2, ema: 0.2}")
    mine = write(tmp_path / "mine.yaml", "extends: base/near.yaml\nrun: {steps: 3}")
    assert card.load(mine) == {"seed": 1, "run": {"steps": 3, "ema": 0.2, "save_every": 1}}


@pytest.mark.parametrize("parent", ["a.yaml", "b.yaml"])
def test_cards_that_extend_in_a_loop_are_refused(tmp_path, parent):
    write(tmp_path / "b.yaml", "extends: a.yaml")
    with pytest.raises(CardError, match="loop"):
        card.load(write(tmp_path / "a.yaml", f"extends: {parent}"))


def test_a_missing_parent_is_named(tmp_path):
    with pytest.raises(CardError, match=r"nowhere\.yaml"):
        card.load(write(tmp_path / "a.yaml", "extends: nowhere.yaml"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("run: {steps: 1", "not YAML.*line 1"),
        ("a: 1\nb: c: d", "not YAML.*line 2"),
        ("- 1\n- 2", "not a card"),
        ("", "not a card"),
        ("just words", "not a card"),
        ("facekit: 2\nrecipe: toy", "format 2.*reads format 1"),
        ("extends: 5", "'extends'.*5"),
        ("run: fast", "'run' must be a section.*'fast'"),
    ],
)
def test_a_file_that_is_not_a_card_is_refused_by_name(tmp_path, text, says):
    with pytest.raises(CardError, match=rf"(?s)odd\.yaml.*{says}") as caught:
        card.load(write(tmp_path / "odd.yaml", text))
    assert caught.value.hint


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_bytes(b"a: \xff\xfe")])
def test_a_card_that_cannot_be_read_is_refused_by_name(tmp_path, make):
    make(tmp_path / "gone.yaml")
    with pytest.raises(CardError, match=r"cannot read card .*gone\.yaml"):
        card.load(tmp_path / "gone.yaml")


def test_what_happened_before_and_empty_sections_are_ignored(tmp_path):
    text = "made: {steps: 7, nonsense: [1]}\ndata:\nlosses:  # none yet\nrecipe: toy"
    assert card.load(write(tmp_path / "a.yaml", text)) == {"recipe": "toy"}


def test_odd_texts_survive_dump_and_load(tmp_path):
    values = {"recipe": "toy", "domains": {"a": "写真", "b": "1e5"}, "data": {"root": "my faces/ä\udcff"}}
    assert card.load(write(tmp_path / "a.yaml", card.dump(values))) == values


# validation


@pytest.mark.parametrize(
    ("values", "key", "nearest"),
    [
        ({"recipie": "toy"}, "recipie", "recipe"),
        ({"data": {"siz": 64}}, "data.siz", "size"),
        ({"domains": {"c": "x"}}, "domains.c", "known: a, b"),
        ({"losses": {"cam": {"wieght": 1}}}, "losses.cam.wieght", "weight"),
        ({"optim": {"beta": 1}}, "optim.beta", "betas"),
        ({"optim": {"phases": {"G": {"lrr": 1}}}}, "optim.phases.G.lrr", "lr"),
        ({"run": {"stpes": 1}}, "run.stpes", "steps"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(values, key, nearest):
    said = refusal(values)
    assert f"unknown key {key!r}" in said and nearest in said.partition(key)[2]


@pytest.mark.parametrize(
    ("values", "key", "got"),
    [
        ({"seed": "many"}, "seed", "'many'"),
        ({"seed": -1}, "seed", "-1"),
        ({"data": {"size": 3}}, "data.size", "3"),
        ({"data": {"size": 64.5}}, "data.size", "64.5"),
        ({"data": {"flip": "perhaps"}}, "data.flip", "'perhaps'"),
        ({"domains": {"a": 1}}, "domains.a", "1"),
        ({"losses": {"cam": "heavy"}}, "losses.cam", "'heavy'"),
        ({"losses": {"cam": None}}, "losses.cam", "None"),
        ({"losses": {"cam": {"every": 0}}}, "losses.cam.every", "0"),
        ({"optim": {"betas": [0.5]}}, "optim.betas.1", ""),
        ({"optim": {"lr": 0}}, "optim.lr", "0"),
        ({"optim": {"lr": math.inf}}, "optim.lr", "inf"),
        ({"optim": {"lr": math.nan}}, "optim.lr", "nan"),
        ({"run": {"precision": "fp16"}}, "run.precision", "'fp16'"),
        ({"run": {"ema": 1}}, "run.ema", "1"),
        ({"recipe": 5}, "recipe", "5"),
        ({"command": "align"}, "command", "'align'"),
        ({"domains": {"a": "x", "b": "x"}}, "domains", "same name"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_once(values, key, got):
    said = refusal(values)
    assert said.count(f"'{key}") == 1 and got in said.partition(key)[2]


def test_all_wrong_keys_are_named_at_once():
    said = refusal({"seed": "x", "run": {"steps": "y"}})
    assert "'seed'" in said and "'run.steps'" in said


def test_keys_that_are_not_words_are_refused():
    assert "'1'" in refusal({1: 2})


def test_a_card_without_a_recipe_says_so():
    with pytest.raises(CardError, match="'recipe' is missing"):
        card.validate(card.TrainCard, {}, "card.yaml")


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    """YAML 1.1 reads `1e-4` as text."""
    text = "optim: {lr: 1e-4, betas: [5E-1, .9e0], phases: {D: {lr: +4.e-4}}}\nlosses: {cam: 1e3, cycle: {weight: 1e1}}"
    values = check(card.load(write(tmp_path / "a.yaml", text + "\nrun: {steps: 1e5}")))
    assert values.optim.lr == 1e-4 and values.optim.betas == (0.5, 0.9) and values.optim.phases["D"].lr == 4e-4
    assert values.losses["cam"] == 1000.0 and values.losses["cycle"].weight == 10.0 and values.run.steps == 100_000


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1", {"a": {"b": 1}}),
        ("seed=", {"seed": None}),
        ("losses.cam={weight: 2, start: 5}", {"losses": {"cam": {"weight": 2, "start": 5}}}),
        ("domains.b=a=b", {"domains": {"b": "a=b"}}),
    ],
)
def test_an_assignment_is_a_key_and_a_yaml_value(text, values):
    assert card.assignment(text) == values


@pytest.mark.parametrize("text", ["steps", "=5", " =5", "a=[1", "run=5"])
def test_a_wrong_assignment_is_refused_and_quoted(text):
    with pytest.raises(CardError, match="--set") as caught:
        card.assignment(text)
    assert repr(text) in caught.value.message and caught.value.hint


@pytest.mark.parametrize("lr", [2e-4, 1e-5, 1 / 3, 1e-17])
def test_dump_and_load_are_equal(tmp_path, lr):
    values = card.plain(
        check({"optim": {"lr": lr}, "losses": {"cam": {"weight": 2.5, "start": 3}}, "run": {"steps": 5}})
    )
    loaded = card.load(write(tmp_path / "a.yaml", card.dump(values)))
    assert loaded == values
    assert card.plain(check(loaded)) == values


# examples


def test_the_schema_in_examples_is_that_of_the_code():
    found = json.loads((EXAMPLES / "card.schema.json").read_text())
    assert found == card.schema(), 'write it again: json.dumps(card.schema(), indent=2) + "\\n"'


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_an_example_card_holds_only_what_its_recipe_knows(path, tmp_path):
    values = card.validate(card.TrainCard, card.load(path), path.name)
    kind, _ = registry.find(values.recipe)
    card.validate(kind.Params, values.params, path.name)
    assert values.losses.keys() <= kind.terms().keys()
    plain = card.plain(values)
    again = card.load(write(tmp_path / "a.yaml", card.dump(plain)))
    assert card.plain(check(again)) == plain


def test_every_recipe_has_an_example_card():
    recipes = {card.load(path)["recipe"] for path in CARDS}
    assert recipes == set(registry.catalogue())


# precedence, through the command


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return toy.domains(tmp_path_factory.mktemp("pictures"), 3)


@pytest.fixture
def planned(facekit, pictures):
    """The card that `facekit train` would run."""

    def plan(*arguments: object) -> dict:
        done = facekit("train", "--data", pictures, *arguments, "--dry-run", "--json")
        assert done.code == 0, done.err
        events = [json.loads(line) for line in done.out.splitlines()]
        return next(event["card"] for event in events if event["event"] == "result")

    return plan


MANY = '''
from toy import Toy

class Many(Toy):
    """Toy with a preset that changes something."""
    presets = {"many": {"run": {"save_every": 20, "log_every": 20}}}
    defaults = {**Toy.defaults, "run": {"steps": 10, "save_every": 10, "log_every": 10, "ema": 0.1}}
'''


@pytest.mark.slow
def test_later_layers_win(tmp_path, planned):
    """Recipe default < preset < extends < card < --set < flag; each layer sets one thing that the next does not."""
    write(
        tmp_path / "parent.yaml", "seed: 30\ndata: {batch: 30}\noptim: {lr: 0.3}\nrun: {log_every: 30, accumulate: 30}"
    )
    recipe_file = write(tmp_path / "many.py", MANY)
    text = "extends: parent.yaml\nseed: 40\ndata: {batch: 40}\noptim: {lr: 0.4}\nrun: {accumulate: 40}"
    mine = write(tmp_path / "mine.yaml", text)
    sets = ["--set", "seed=50", "--set", "data.batch=50", "--set", "optim.lr=5e-1"]
    run = planned(recipe_file, "--card", mine, *sets, "--set", "optim.lr=5e-2", "--seed", 60)
    assert run["run"]["ema"] == 0.1  # recipe
    assert run["run"]["save_every"] == 20  # preset
    assert run["run"]["log_every"] == 30  # extends
    assert run["run"]["accumulate"] == 40  # card
    assert run["data"]["batch"] == 50 and run["optim"]["lr"] == 0.05  # --set, the last one
    assert run["seed"] == 60  # flag


def test_a_later_length_replaces_an_earlier_one_of_the_other_kind(tmp_path, planned):
    mine = write(tmp_path / "mine.yaml", "run: {epochs: 3}")
    assert "steps" not in planned(toy.FILE, "--card", mine)["run"]
    assert "epochs" not in planned(toy.FILE, "--card", mine, "--steps", 5)["run"]


def test_a_planned_card_repeats_its_run(tmp_path, planned):
    first = planned(toy.FILE, "--set", "params.width=2e0", "--set", "losses.noise=0", "--lr", "1e-4")
    assert first["params"] == {"width": 2} and first["losses"]["noise"] == 0 and first["optim"]["lr"] == 1e-4
    assert planned("--card", write(tmp_path / "again.yaml", card.dump(first))) == first


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("losses.judgee=1", "judgee", "judge"),
        ("params.widht=1", "widht", "width"),
        ("data.sise=1", "data.sise", "size"),
        ("rnu.steps=1", "rnu", "run"),
    ],
)
def test_a_misspelt_setting_exits_2_with_a_suggestion(facekit, pictures, text, key, nearest):
    done = facekit("train", toy.FILE, "--data", pictures, "--set", text, "--dry-run")
    assert done.code == 2
    assert f"'{key}'" in done.err and f"did you mean '{nearest}'?" in done.err and "next: " in done.err


# who holds a folder

VALUES = {"facekit": 1, "command": "align", "options": {"size": 64, "out": "x"}}
OTHER = {"facekit": 1, "command": "align", "options": {"size": 96, "out": "x", "margin": 0.5}}


def test_a_run_is_new_then_unfinished_then_finished(tmp_path):
    assert claim.take(tmp_path / "out", VALUES) == "new"
    assert claim.take(tmp_path / "out", VALUES) == "unfinished"
    claim.finish(tmp_path / "out", VALUES, {"images": 3})
    assert claim.take(tmp_path / "out", VALUES) == "finished"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["card.yaml"]


@pytest.mark.parametrize("finished", [False, True])
def test_another_run_is_refused_with_the_differences_unless_forced(tmp_path, finished):
    claim.take(tmp_path, VALUES)
    if finished:
        claim.finish(tmp_path, VALUES, {})
    with pytest.raises(CardError, match=r"options\.margin: absent -> 0\.5; options\.size: 64 -> 96") as caught:
        claim.take(tmp_path, OTHER)
    assert "--force" in caught.value.hint and str(tmp_path) in caught.value.message
    assert claim.take(tmp_path, OTHER, force=True) == "new"
    assert claim.take(tmp_path, OTHER) == "unfinished"


def test_a_finished_card_tells_what_happened_and_can_be_read_back(tmp_path):
    claim.take(tmp_path, VALUES)
    claim.finish(tmp_path, VALUES, {**provenance.collect("numpy", "nonsuch"), "images": 3})
    made = yaml.safe_load((tmp_path / card.NAME).read_text())["made"]
    assert made["images"] == 3 and made["start"] <= made["end"] and made["versions"]["nonsuch"] == "absent"
    assert card.load(tmp_path / card.NAME) == VALUES


def test_two_single_files_in_one_folder_have_cards_of_their_own(tmp_path):
    claim.take(tmp_path, VALUES, "a.card.yaml")
    claim.finish(tmp_path, VALUES, {}, "a.card.yaml")
    assert claim.take(tmp_path, OTHER, "b.card.yaml") == "new"
    assert claim.take(tmp_path, VALUES, "a.card.yaml") == "finished"


def test_a_reopened_run_is_unfinished(tmp_path):
    claim.take(tmp_path, VALUES)
    claim.finish(tmp_path, VALUES, {})
    claim.reopen(tmp_path)
    assert claim.take(tmp_path, VALUES) == "unfinished"


def test_equal_values_have_equal_digests_whatever_their_order():
    assert card.digest({"a": 1, "b": {"c": 2}}) == card.digest({"b": {"c": 2}, "a": 1})
    assert card.digest({"a": 1}) != card.digest({"a": 2})
