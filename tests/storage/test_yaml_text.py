"""Cards are YAML 1.2: what is text, what is a number, and what is refused."""

import os

import pytest
import yaml

from facekit.errors import CardError
from facekit.storage import card, yaml_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("Off", "Off"), ("yes", "yes"), ("on", "on"), ("y", "y"), ("true", True), ("False", False),
        ("010", 10), ("0o17", 15), ("0x1F", 31), ("-7", -7), ("1:30", "1:30"), ("190:20:30", "190:20:30"),
        ("1e-4", 1e-4), ("1E5", 1e5), ("+.5", 0.5), ("4.", 4.0), ("1_000", "1_000"), (".inf", float("inf")),
        ("~", None), ("null", None), ("", None), ("2020-01-01", "2020-01-01"), ("0b11", "0b11"), ("=", "="),
        ("'010'", "010"), ('"no"', "no"), ("1.2.3", "1.2.3"), ("e5", "e5"), (".", "."),
    ],
)  # fmt: skip
def test_a_value_is_what_yaml_1_2_says(text, value):
    found = yaml_text.parse(f"a: {text}")["a"]
    assert found == value and type(found) is type(value)


TEXTS = ["no", "010", "0o17", "1e5", "1:30", "2020-01-01", "~", "", "true", "1_000", "=", "<<", "a: b", " x ", "\u2028"]


@pytest.mark.parametrize("text", [*TEXTS, "é", "caf\udce9", "- a", "#", "@x", "0x1f", ".5", ".nan", "line\nbreak"])
def test_a_text_comes_back_as_that_text(text):
    written = yaml_text.dump({"a": text, text: 1, "b": [text, text]})
    assert yaml_text.parse(written) == {"a": text, text: 1, "b": [text, text]}


@pytest.mark.parametrize("text", TEXTS)
def test_readers_of_yaml_1_1_see_the_same_text(text):
    assert yaml.safe_load(yaml_text.dump({"a": text})) == {"a": text}


def test_nothing_written_is_an_alias():
    betas = [0.5, 0.999]
    assert "&" not in yaml_text.dump({"a": betas, "b": betas})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "duplicate key 'a': lines 1 and 3"),
        ("x:\n  cycle: 3\n  'cycle': 4", "duplicate key 'cycle': lines 2 and 3"),
        ("{a: 1, a: 1}", "duplicate key 'a': lines 1 and 1"),
        ("x:\n- {b: 1, c: 2, b: 3}", "duplicate key 'b'"),
        ("a:\n\tb: 1", "line 2"),
        ("a: b: c", "line 1"),
        ("a: &x [*x]", "contains itself"),
        ("a: *nothing", "undefined alias"),
        ("[" * 5000, "nested too deeply"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: " + "9" * 5000, "digits"),
        ("? [a, b]\n: c", "unhashable key"),
        ("a: \x07", "not allowed"),
    ],
)
def test_what_is_refused_is_named(text, says):
    with pytest.raises(yaml_text.YamlError, match=says):
        yaml_text.parse(text)


def test_an_alias_bomb_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    with pytest.raises(yaml_text.YamlError, match="aliases"):
        yaml_text.parse("\n".join(lines))


def test_anchors_and_merges_of_a_card_are_read():
    text = "base: &b {lr: 1, ema: 2}\nx: {<<: *b, ema: 3}\ny: {<<: [*b], lr: 4}\nz: *b"
    found = yaml_text.parse(text)
    assert found["x"] == {"lr": 1, "ema": 3} and found["y"] == {"lr": 4, "ema": 2} and found["z"] == {"lr": 1, "ema": 2}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marks_and_line_ends_of_windows_are_read(tmp_path, encoding):
    (tmp_path / "a.yaml").write_bytes("recipe: é\r\nseed: 1\r\n".encode(encoding))
    assert yaml_text.read(tmp_path / "a.yaml") == {"recipe": "é", "seed": 1}


def no_end(path):
    os.mkfifo(path)


def huge(path):
    with open(path, "wb") as file:
        file.truncate(100_000_000)


@pytest.mark.parametrize("make", [no_end, huge, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("parent", [False, True])
def test_a_card_that_would_never_end_is_refused(tmp_path, make, parent):
    make(tmp_path / "odd.yaml")
    (tmp_path / "a.yaml").write_text("extends: odd.yaml")
    with pytest.raises(CardError, match=r"cannot read card .*odd\.yaml.*(not a regular file|100 MB)"):
        card.load(tmp_path / ("a.yaml" if parent else "odd.yaml"))


@pytest.mark.parametrize(("key", "value"), [("data.a", 1), ("data.b", 2.5), ("data.root", True)])
def test_a_number_where_text_belongs_suggests_quotes(key, value):
    with pytest.raises(CardError, match="put it in quotes"):
        card.validate(card.TrainCard, {"recipe": "x", **card.assignment(f"{key}={str(value).lower()}")}, "card")
