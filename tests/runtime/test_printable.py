"""What is printed cannot control a terminal: escapes, bells, reordered and forged lines are shown, not obeyed."""

import pytest

import toy
from facekit.runtime import console
from facekit.runtime.printable import printable

NAME = "z\x1b]0;owned\x07\x1b[2J\x9b2J\u202egnp.exe\rx\nwarning: forged"


def test_control_characters_become_escapes():
    assert printable("a\x1b[2Jb\x9b\u202e\udcff\r") == "a\\x1b[2Jb\\x9b\\u202e\\udcff\\r"
    assert printable("é 顔 👩‍👧 \t\nx") == "é 顔 👩‍👧 \t\nx" and printable("a\nb", one_line=True) == "a\\nb"


@pytest.mark.parametrize("kind", [console.Plain, console.Rich, console.Json])
def test_no_reporter_prints_them_raw(kind, capsys):
    reporter = kind()
    reporter.note(NAME)
    reporter.warn(NAME)
    reporter.result(NAME)
    bar = reporter.bar(NAME, 2)
    bar.advance(1)
    bar.close()
    told = capsys.readouterr()
    assert not any(c in told.out + told.err for c in ("\x1b]0;", "\x1b[2J", "\x07", "\x9b", "\u202e"))


def test_a_warning_stays_one_line(capsys):
    console.Plain().warn(NAME)
    assert capsys.readouterr().err.count("\n") == 1


def test_names_of_files_and_errors_are_shown_escaped(facekit, tmp_path):
    folder = toy.fill(tmp_path / "in", 1)
    (folder / "z\x1b]0;owned\x07.jpg").write_bytes(b"no image")
    done = facekit("smooth-edges", folder, tmp_path / "out")
    assert done.code == 4 and "\x1b" not in done.out + done.err and "\\x1b]0;owned" in done.err
    done = facekit("smooth-edges", tmp_path / "no\x1b[2Jfolder", tmp_path / "out")
    assert done.code == 3 and "\x1b" not in done.err and "no\\x1b[2Jfolder" in done.err
