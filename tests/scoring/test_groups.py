"""Scores by kind of photo: which images are in which group, what is scored, and the gap."""

import numpy as np
import pytest

import facekit as package
import toy
import toy_scores
from facekit.errors import CardError, InputError
from facekit.scoring import fid_kid, groups
from facekit.scoring.pairing import Table


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    toy_scores.write_onnx(tmp_path / "net.onnx")
    toy.fill(tmp_path / "out", 24, size=32, seed=1)
    toy.fill(tmp_path / "ref", 14, size=32, seed=2)
    rows = [f"{i:03}.jpg,sex={'female' if i < 12 else 'male'}|{'glasses' if i % 2 else 'bare'}" for i in range(24)]
    (tmp_path / "groups.csv").write_text("file,labels\n" + "\n".join(rows) + "\n")
    return tmp_path


def test_labels_are_kinds_and_groups_and_plain_labels_are_one_kind(place):
    found = groups.read(place / "groups.csv")
    assert {kind: sorted(members) for kind, members in found.items()} == {
        "sex": ["female", "male"],
        "label": ["bare", "glasses"],
    }
    assert found["sex"]["female"] == {f"{i:03}" for i in range(12)}
    (place / "empty.csv").write_text("file,labels\n1.png,\n")
    with pytest.raises(InputError, match="no group"):
        groups.read(place / "empty.csv")


def test_a_group_is_scored_on_its_own_rows_against_the_whole_reference():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(20, 4)), draw.normal(size=(15, 4))
    x[10:] += 1
    table = Table()
    for i in range(20):
        table.add(f"{i}.png", {"identity-cosine": i / 10, **({"landmark-distance": 1.0} if i < 10 else {})})
    members = {"kind": {"low": {str(i) for i in range(10)}, "high": {str(i) for i in range(10, 20)}}}
    names = [f"{i}.png" for i in range(20)]
    found = groups.score(members, names, x, y, "4", {"density-4": np.arange(20.0)}, [table], 50, 0)
    low, high = found["groups"]["kind"]["low"], found["groups"]["kind"]["high"]
    assert low["KID-4"] == pytest.approx(fid_kid.kid_full(x[:10], y))
    assert high["KID-4"] == pytest.approx(fid_kid.kid_full(x[10:], y))
    assert (low["density-4"], high["density-4"]) == (4.5, 14.5)
    assert low["identity-cosine"] == pytest.approx(0.45)
    assert low["identity-cosine low"] < 0.45 < low["identity-cosine high"]
    assert low["landmark-distance"] == 1 and "landmark-distance" not in high  # no pair of these shows it
    gaps = found["gaps"]["kind"]
    assert gaps["KID-4"] == pytest.approx(high["KID-4"] - low["KID-4"])
    assert gaps["identity-cosine"] == pytest.approx(1) and set(gaps) == {"KID-4", "density-4", "identity-cosine"}


def test_small_groups_are_left_out_and_none_is_an_error(monkeypatch):
    told = []
    monkeypatch.setattr(groups.console, "warn", told.append)
    x = np.random.default_rng(0).normal(size=(20, 4))
    names = [f"{i}.png" for i in range(20)]
    members = {"kind": {"many": set(map(str, range(15))), "few": {"16", "17"}}}
    found = groups.score(members, names, x, x, "4", {}, [], None, 0)
    assert set(found["groups"]["kind"]) == {"many"}
    assert told == ["kind few: 2 images, of 10 at least; left out"]
    with pytest.raises(CardError, match="no group"):
        groups.score({"kind": {"few": {"1"}}}, names, x, x, "4", {}, [], None, 0)


def test_the_command_prints_a_table_for_each_kind(facekit):
    command = ("score-fid", "out", "ref", "--features", "net.onnx", "--groups", "groups.csv", "--neighbours", 3)
    done = facekit(*command, "--bootstrap", 30)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["sex", "female", "male", "gap"] in lines and ["label", "bare", "glasses", "gap"] in lines
    assert ["images", "12", "12"] in lines
    result = package.score_fid("out", "ref", features="net.onnx", groups="groups.csv", neighbours=3, bootstrap=30)
    assert set(result["gaps"]) == {"sex", "label"}
    female = result["groups"]["sex"]["female"]
    assert female["images"] == 12 and female["KID-48 low"] < female["KID-48"] < female["KID-48 high"]
    assert {"precision-48", "density-48"} <= set(female) and "FID-48" not in female


def test_groups_and_folders_of_labels_exclude_each_other(facekit):
    done = facekit("score-fid", "out", "ref", "--features", "net.onnx", "--groups", "groups.csv", "--labels")
    assert done.code == 2 and "leave out one" in done.err
    done = facekit("score-fid", "out", "ref", "--features", "net.onnx", "--groups", "none.csv")
    assert done.code == 3 and "none.csv" in done.err


def test_a_saved_score_is_of_its_groups(facekit, place):
    command = ("score-fid", "out", "ref", "--features", "net.onnx", "--groups", "groups.csv", "--save", "score.yaml")
    assert facekit(*command).code == 0
    assert facekit(*command).code == 0
    (place / "groups.csv").write_text("file,labels\n" + "".join(f"{i:03}.png,a\n" for i in range(24)))
    done = facekit(*command)
    assert done.code == 2 and "inputs.groups" in done.err


def test_patches_and_intervals_are_printed(facekit):
    done = facekit("score-fid", "out", "ref", "--features", "net.onnx", "--patches", "--bootstrap", 20)
    assert done.code == 0, done.err
    told = {line.split()[0]: line for line in done.out.splitlines()}
    assert {"SWD-32", "SWD-16", "SWD"} <= set(told)
    assert " to " in told["KID-48"] and "±" in told["SWD-16"]
