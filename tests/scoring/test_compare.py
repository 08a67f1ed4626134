"""Blind comparison: strengths from votes, a page that gives nothing away, and votes counted by its key."""

import json
import re

import numpy as np
import pytest

import toy
from facekit.scoring.blind_comparison import plan_trials
from facekit.scoring.bradley_terry import Choice, fit, strengths


def test_the_fit_finds_the_strengths_that_made_the_wins():
    true = np.array([1.0, 0.0, -1.0])
    chance = 1 / (1 + np.exp(true[None] - true[:, None]))
    wins = 10_000 * chance * (1 - np.eye(3))
    assert np.allclose(fit(wins), true, atol=0.01)


def test_one_that_always_wins_has_a_bounded_strength():
    found = strengths([Choice(f"face {i}", 0, 1) for i in range(10)], 2)
    assert 0.8 < found[0].share < 1 and found[0].low <= found[0].share <= found[0].high
    assert found[0].share + found[1].share == pytest.approx(1)
    assert found[0].votes == 10


def test_ties_make_equals():
    found = strengths([Choice("a", 0, 1, tie=True), Choice("b", 1, 0, tie=True)], 2)
    assert [row.share for row in found] == pytest.approx([0.5, 0.5])


def test_every_pair_of_every_face_comes_once_and_every_face_before_one_comes_twice():
    faces = ["a", "b", "c", "d"]
    trials = plan_trials(faces, 3, seed=1)
    assert {(t.face, *sorted((t.left, t.right))) for t in trials} == {
        (face, i, j) for face in faces for i, j in ((0, 1), (0, 2), (1, 2))
    }
    assert sorted(t.face for t in trials[:4]) == faces
    assert trials == plan_trials(faces, 3, seed=1) != plan_trials(faces, 3, seed=2)
    assert {t.left < t.right for t in plan_trials([str(i) for i in range(20)], 2, 0)} == {True, False}


@pytest.fixture
def folders(tmp_path):
    for seed, name in enumerate(("ours", "theirs", "photos")):
        toy.fill(tmp_path / name, 4, seed=seed)
    (tmp_path / "ours" / "003.png").unlink()
    return tmp_path


def test_the_page_gives_no_names_away(folders, facekit):
    line = ("compare", folders / "ours", folders / "theirs", "--source", folders / "photos", "--page", folders / "vote")
    assert facekit(*line).code == 0
    text = (folders / "vote" / "index.html").read_text()
    assert "ours" not in text and "theirs" not in text and "001" not in re.sub(r"[0-9a-f]{12}", "", text)
    shown = json.loads(re.search(r"const trials = (.*);", text)[1])
    assert len(shown) == 3
    assert all((folders / "vote" / row[side]).is_file() for row in shown for side in ("left", "right", "source"))
    assert "nothing to do" in facekit(*line).err


def votes(folder, choose, name="votes.json"):
    key = json.loads((folder / "vote" / "key.json").read_text())
    rows = [{"id": id_, "choice": choose(trial)} for id_, trial in key["trials"].items()]
    (folder / name).write_text(json.dumps({"votes": rows}))
    return folder / name


def test_votes_are_counted_by_the_key(folders, facekit):
    page = folders / "vote"
    facekit("compare", folders / "ours", folders / "theirs", "--page", page)
    file = votes(folders, lambda trial: "left" if trial["left"] == 1 else "right")
    done = facekit("compare", "--page", page, "--votes", file, "--votes", file, "--json")
    rows = json.loads(done.out.splitlines()[-1])["strengths"]
    assert rows["theirs"]["share"] > 0.8 > 0.2 > rows["ours"]["share"]
    assert rows["ours"]["votes"] == 6
    assert facekit("compare", "--page", page, "--votes", file).out.splitlines()[1].startswith("theirs")


@pytest.mark.parametrize("text", ["", "[]", '{"votes": [{"id": "0", "choice": "left"}]}', '{"votes": [1]}'])
def test_a_file_without_votes_on_this_page_is_refused(folders, facekit, text):
    facekit("compare", folders / "ours", folders / "theirs", "--page", folders / "vote")
    (folders / "votes.json").write_text(text)
    assert facekit("compare", "--page", folders / "vote", "--votes", folders / "votes.json").code == 3


def test_bad_folders_are_refused(folders, facekit):
    (folders / "empty").mkdir()
    (folders / "mine").mkdir()
    (folders / "mine" / "index.html").write_text("my page")
    ours, theirs = folders / "ours", folders / "theirs"
    assert facekit("compare", ours, "--page", folders / "a").code == 2
    assert facekit("compare", ours, ours, "--page", folders / "a").code == 2
    assert facekit("compare", ours, folders / "empty", "--page", folders / "a").code == 3
    assert facekit("compare", ours, theirs, "--page", folders / "mine").code == 2
    assert (folders / "mine" / "index.html").read_text() == "my page"
    assert facekit("compare", "--page", folders / "none", "--votes", folders / "none.json").code == 3
