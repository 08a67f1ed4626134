"""The entries of a manifest, read one by one."""

import contextlib
import json
import os
import sys

import pytest

from facekit.runtime import console
from facekit.storage.entries import Entries
from facekit.storage.folder import Folder, Source

NAMES = ["a.png", "sub/b.png", "ü.png", "without.png"]


def opened(folder) -> contextlib.closing:
    return contextlib.closing(Entries(folder, [Source(folder, name) for name in sorted(NAMES)]))


def test_an_image_has_the_entry_that_the_whole_manifest_gives_it(tmp_path):
    rows = [{"file": name, "roll": place} for place, name in enumerate(NAMES[:3])]
    rows += [{"file": "gone.png"}, {"file": "../out.png"}, {"file": "a.png", "roll": 9}, {"roll": 1}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "manifest.jsonl").write_text("\n".join([lines[0], "{cut", *lines[1:4]]) + "\n", encoding="utf-8")
    (tmp_path / "manifest.2-of-2.jsonl").write_text("\n".join(lines[4:]), encoding="utf-8")
    whole = Folder(tmp_path).entries
    with opened(tmp_path) as entries:
        for name in [*NAMES, "sub/b.png", "gone.png", "a.pn"]:
            assert entries.get(name) == (whole.get(name, {}) if name in NAMES else {})
    assert whole["sub/b.png"] == {"file": "sub/b.png", "roll": 1}


def test_lines_of_other_folders_are_a_warning(tmp_path, capsys):
    (tmp_path / "manifest.jsonl").write_text('{"file": "../a.png"}\n{"file": "a.png"}\n{}\n')
    token = console.current.set(console.Plain())
    with opened(tmp_path) as entries:
        assert entries.get("a.png")
    console.current.reset(token)
    assert "2 lines do not name a file of this folder" in capsys.readouterr().err


def test_a_folder_without_manifest_has_no_entries(tmp_path):
    with opened(tmp_path) as entries:
        assert entries.get("a.png") == {}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / "manifest.jsonl")
    with opened(tmp_path) as entries:
        assert entries.get("a.png") == {}
