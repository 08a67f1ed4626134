"""The user's settings file: which defaults it sets, what wins over it, what it may not hold."""

import json
from pathlib import Path

import pytest

import toy
from facekit.storage import settings


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the settings file."""
    path = tmp_path / "settings.yaml"
    monkeypatch.setenv("FACEKIT_SETTINGS", str(path))
    monkeypatch.chdir(tmp_path)
    return path.write_text


@pytest.fixture
def drawings(tmp_path) -> Path:
    return toy.fill(tmp_path / "in", 1, 24)


def kinds(folder: str) -> set[str]:
    return {path.suffix for path in Path(folder).iterdir()} & {".png", ".jpg", ".webp"}


@pytest.mark.slow
def test_a_default_holds_until_a_card_or_a_flag_says_otherwise(write, facekit, drawings):
    write("translate: {format: webp, no_such: 1}")
    assert facekit("recipes").code == 0
    write("all: {device: cpu, threads: 1}\ntranslate: {format: webp, align: false}")
    assert facekit("translate", drawings, "one").code == 0 and kinds("one") == {".webp"}
    assert facekit("translate", drawings, "two", "--format", "jpg").code == 0 and kinds("two") == {".jpg"}
    write("translate: {format: jpg, align: false}")
    done = facekit("translate", "--card", "one/card.yaml", drawings, "three")
    assert done.code == 0, done.err
    assert kinds("three") == {".webp"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("translate: {fromat: jpg}", "did you mean 'format'"),
        ("translat: {format: jpg}", "did you mean 'translate'"),
        ("all: {format: jpg}", "not of all commands"),
        ("train: {steps: 5}", "from a card"),
        ("translate: {force: true}", "no default for 'force'"),
        ("- format", "not made of sections"),
        ("translate: [", "cannot read"),
    ],
)
def test_what_does_not_fit_is_a_usage_error_that_names_the_file(write, facekit, text, says):
    write(text)
    done = facekit("translate", "in", "out")
    assert done.code == 2
    assert says in " ".join(done.err.split()) and "settings.yaml" in done.err


def test_env_says_where_it_is_and_what_it_sets(write, facekit):
    write("translate: {format: jpg}\nall: {device: cpu}")
    found = json.loads(facekit("env", "--json").out)
    assert found["settings"]["defaults set"] == "translate.format, all.device"
    assert found["folders"]["settings"].endswith("settings.yaml")


def test_it_lies_in_the_users_folder_for_settings(monkeypatch):
    monkeypatch.delenv("FACEKIT_SETTINGS", raising=False)
    assert settings.settings_file().parts[-2:] == ("facekit", "settings.yaml")
