"""`facekit align`: what it writes, what it refuses, how it continues."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from skimage.data import astronaut

from facekit.faces import find_detector, paste, roll, template
from facekit.faces.alignment import moved

PORTRAIT = Image.fromarray(astronaut()[20:220, 110:340])  # one face, about 95 px
EYES = np.array([[94.5, 81.5], [137.0, 83.0]])  # in it, read off by eye


def write(folder: Path, *names: str, photo: Image.Image = PORTRAIT) -> Path:
    """Save `photo` into a folder under each name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        photo.save(folder / name)
    return folder


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(out: Path) -> dict[str, dict]:
    """The manifest by file."""
    return {row["file"]: row for row in lines(out / "manifest.jsonl")}


def card(out: Path) -> dict:
    return yaml.safe_load((out / "card.yaml").read_text())


def left(out: Path) -> dict[str, bytes]:
    """Every image under a folder, by name."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}


def clockwise(degrees: float) -> Image.Image:
    return PORTRAIT.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=(120, 120, 120))


def two_faces() -> Image.Image:
    """A small face left, a larger one right."""
    canvas = Image.new("RGB", (480, 260), (128, 128, 128))
    head = PORTRAIT.crop((30, 20, 200, 180))
    canvas.paste(head, (20, 40))
    canvas.paste(head.resize((212, 200)), (220, 40))
    return canvas


@pytest.mark.slow
def test_the_manifest_says_where_the_face_was(facekit, tmp_path):
    result = facekit("align", write(tmp_path / "in", "ada.jpg"), tmp_path / "out")
    assert result.code == 0, result.err
    assert Image.open(tmp_path / "out" / "ada.png").size == (256, 256)
    (row,) = lines(tmp_path / "out" / "manifest.jsonl")
    assert row["file"] == "ada.png" and row["source"] == "ada.jpg"
    assert row["photo_size"] == list(PORTRAIT.size) and row["faces_in_photo"] == 1
    x0, y0, x1, y1 = row["box"]
    assert 40 < x0 < 90 < 140 < x1 < 190 and 20 < y0 < 80 < 120 < y1 < 180
    assert np.abs(np.array(row["landmarks"])[:2] - EYES).max() < 8
    assert row["landmarks_measured"] is True
    assert abs(row["roll"]) < 8
    assert 0 < row["score"] < 1
    away = moved(np.array(row["warp"]), np.array(row["landmarks"])) - template(256)
    assert (
        np.abs(away).max() < 12 and np.abs(away.mean(0)).max() < 0.5
    )  # the nearest similarity: no face is the mean face
    note = card(tmp_path / "out")
    assert note["command"] == "align" and note["options"]["detector"] == "facekit" and note["made"]["images"] == 1


def test_the_warp_puts_the_face_back(facekit, tmp_path):
    write(tmp_path / "in", "ada.png", photo=clockwise(20))
    facekit("align", tmp_path / "in", tmp_path / "out")
    row = rows(tmp_path / "out")["ada.png"]
    photo, face = clockwise(20), Image.open(tmp_path / "out" / "ada.png")
    same = np.asarray(paste(photo, face, np.array(row["warp"])), float) - np.asarray(photo, float)
    assert np.abs(same).mean() < 2
    red = np.asarray(paste(photo, Image.new("RGB", face.size, "red"), np.array(row["warp"])))
    x, y = np.mean(row["landmarks"], axis=0).astype(int)
    assert red[y, x].tolist() == [255, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [-25, 20])
def test_roll_is_the_angle_clockwise_and_the_face_is_level(facekit, tmp_path, degrees):
    write(tmp_path / "in", "ada.png", photo=clockwise(degrees))
    facekit("align", tmp_path / "in", tmp_path / "out")
    assert rows(tmp_path / "out")["ada.png"]["roll"] == pytest.approx(degrees, abs=6)
    (seen,) = find_detector("cascade").detect(np.asarray(Image.open(tmp_path / "out" / "ada.png")))
    assert abs(roll(seen.landmarks)) < 6


@pytest.mark.slow
def test_the_largest_face_or_all_of_them(facekit, tmp_path):
    write(tmp_path / "in", "pair.png", photo=two_faces())
    facekit("align", tmp_path / "in", tmp_path / "one")
    assert list(left(tmp_path / "one")) == ["pair.png"]
    facekit("align", tmp_path / "in", tmp_path / "all", "--faces", "all")
    found = rows(tmp_path / "all")
    assert sorted(found) == sorted(left(tmp_path / "all")) == ["pair.face2.png", "pair.png"]
    assert found["pair.face2.png"]["box"][0] > 220 > found["pair.png"]["box"][2]  # from left to right
    assert all(row["source"] == "pair.png" and row["faces_in_photo"] == 2 for row in found.values())
    assert rows(tmp_path / "one")["pair.png"]["box"] == pytest.approx(found["pair.face2.png"]["box"], abs=15)


def test_a_second_face_never_overwrites_another_photo(facekit, tmp_path):
    write(tmp_path / "in", "x.jpg", photo=two_faces())
    write(tmp_path / "in", "x.face2.jpg")
    assert facekit("align", tmp_path / "in", tmp_path / "out", "--faces", "all").code == 0
    assert {row["source"]: row["file"] for row in rows(tmp_path / "out").values()}["x.face2.jpg"] == "x.face2.png"
    assert len(rows(tmp_path / "out")) == len(left(tmp_path / "out")) == 3


@pytest.mark.slow
def test_photos_that_fail_do_not_stop_the_others(facekit, tmp_path):
    source = write(tmp_path / "in", "a.jpg", "z.jpg", "cut.jpg")
    write(source, "black.png", photo=Image.new("RGB", (64, 64)))
    write(source, "dot.png", photo=Image.new("RGB", (1, 1)))
    (source / "cut.jpg").write_bytes((source / "a.jpg").read_bytes()[:900])
    (source / "empty.jpg").write_bytes(b"")
    (source / "text.jpg").write_text("a shopping list")
    result = facekit("align", source, tmp_path / "out")
    assert result.code == 4
    assert "failed.jsonl" in result.err
    assert sorted(left(tmp_path / "out")) == ["a.png", "z.png"]
    failed = {row["path"]: (row["stage"], row["reason"]) for row in lines(tmp_path / "out" / "failed.jsonl")}
    assert {name: stage for name, (stage, _) in failed.items()} == {
        "black.png": "detect",
        "dot.png": "detect",
        "cut.jpg": "read",
        "empty.jpg": "read",
        "text.jpg": "read",
    }
    assert failed["black.png"][1].startswith("no face found by facekit")
    assert "is empty" in failed["empty.jpg"][1] and "is not an image" in failed["text.jpg"][1]
    again = facekit("align", source, tmp_path / "out")
    assert again.code == 4 and "nothing to do" in again.err


@pytest.mark.slow
def test_a_detector_that_does_not_suit_the_images_is_said(facekit, tmp_path):
    source = write(tmp_path / "in", "dot.png", photo=Image.new("RGB", (1, 1)))
    write(source, "black.png", photo=Image.new("RGB", (24, 24)))
    done = facekit("align", source, tmp_path / "out", "--detector", "cascade")
    assert done.code == 4 and "cascade finds no face in most images: another --detector" in done.err


def test_size_and_margin_frame_the_face(facekit, tmp_path):
    source = write(tmp_path / "in", "ada.png")
    eyes = {}
    for margin in ("0", "0.5"):
        facekit("align", source, tmp_path / margin, "--size", 64, "--margin", margin)
        row = rows(tmp_path / margin)["ada.png"]
        assert Image.open(tmp_path / margin / "ada.png").size == (64, 64)
        eyes[margin] = math.hypot(*np.diff(moved(np.array(row["warp"]), np.array(row["landmarks"][:2])), axis=0)[0])
    assert eyes["0"] == pytest.approx(64 / 2.4, abs=2)  # of a mean face
    assert eyes["0.5"] == pytest.approx(eyes["0"] / 2, abs=0.1)


@pytest.mark.parametrize("margin", ["-0.1", "nan", "inf"])
def test_an_impossible_margin_is_refused_before_any_work(facekit, tmp_path, margin):
    result = facekit("align", write(tmp_path / "in", "ada.png"), tmp_path / "out", "--margin", margin)
    assert result.code == 2
    assert "margin 0 or more" in result.err
    assert not (tmp_path / "out").exists()


def test_the_same_command_again_writes_nothing(facekit, tmp_path):
    source = write(tmp_path / "in", "ada.png")
    facekit("align", source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = facekit("align", source, tmp_path / "out")
    assert again.code == 0
    assert "nothing to do" in again.err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_new_photos_are_added(facekit, tmp_path):
    source = write(tmp_path / "in", "ada.png")
    facekit("align", source, tmp_path / "out")
    old = (tmp_path / "out" / "ada.png").stat().st_mtime_ns
    write(source, "bea.png")
    assert facekit("align", source, tmp_path / "out").code == 0
    assert sorted(rows(tmp_path / "out")) == ["ada.png", "bea.png"]
    assert (tmp_path / "out" / "ada.png").stat().st_mtime_ns == old


@pytest.mark.slow
def test_other_options_into_the_same_output_are_refused(facekit, tmp_path):
    source = write(tmp_path / "in", "ada.png")
    facekit("align", source, tmp_path / "out", "--size", 64)
    other = facekit("align", source, tmp_path / "out", "--size", 96)
    assert other.code == 2
    assert "options.size: 64 -> 96" in other.err
    assert "--force" in other.err
    assert Image.open(tmp_path / "out" / "ada.png").size == (64, 64)
    assert facekit("align", source, tmp_path / "out", "--size", 96, "--force").code == 0
    assert Image.open(tmp_path / "out" / "ada.png").size == (96, 96)


def test_a_single_photo_is_a_source(facekit, tmp_path):
    write(tmp_path, "ada.jpg", "bea.jpg")
    assert facekit("align", tmp_path / "ada.jpg", tmp_path / "out").code == 0
    assert list(left(tmp_path / "out")) == ["ada.png"]
    assert rows(tmp_path / "out")["ada.png"]["source"] == "ada.jpg"


@pytest.mark.slow
def test_names_and_folders_are_kept(facekit, tmp_path):
    write(tmp_path / "in", "a.jpg", "a.png", "sub folder/ä 顔.jpg", "sub folder/deep/a.webp")
    assert facekit("align", tmp_path / "in", tmp_path / "out").code == 0
    made = ["a_jpg.png", "a_png.png", "sub folder/deep/a.png", "sub folder/ä 顔.png"]
    assert sorted(left(tmp_path / "out")) == sorted(rows(tmp_path / "out")) == made
    assert rows(tmp_path / "out")["sub folder/ä 顔.png"]["source"] == "sub folder/ä 顔.jpg"


def test_a_photo_that_exif_turns_is_seen_upright(facekit, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    (tmp_path / "in").mkdir()
    PORTRAIT.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in" / "ada.png", exif=exif)
    facekit("align", write(tmp_path / "in", "upright.png"), tmp_path / "out")
    assert (tmp_path / "out" / "ada.png").read_bytes() == (tmp_path / "out" / "upright.png").read_bytes()
    assert rows(tmp_path / "out")["ada.png"]["photo_size"] == list(PORTRAIT.size)


def test_output_inside_the_input_is_not_read_again(facekit, tmp_path):
    write(tmp_path, "ada.jpg")
    assert facekit("align", tmp_path, tmp_path / "faces").code == 0
    again = facekit("align", tmp_path, tmp_path / "faces")
    assert (again.code, list(rows(tmp_path / "faces"))) == (0, ["ada.png"])
    assert "nothing to do" in again.err


def test_there_must_be_photos(facekit, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("hello")
    for name, words in {"empty": "no images", "notes": "1 other file", "missing": "no such file"}.items():
        result = facekit("align", tmp_path / name, tmp_path / "out")
        assert result.code == 3
        assert words in result.err and name in result.err
    assert facekit("align", write(tmp_path / "in", "ada.jpg"), tmp_path / "in").code == 2
    assert not (tmp_path / "out").exists()


def test_dry_run_writes_nothing(facekit, tmp_path):
    result = facekit("align", write(tmp_path / "in", "a.png", "b.png"), tmp_path / "out", "--dry-run")
    assert result.code == 0
    assert "2 photos with facekit" in result.out
    assert not (tmp_path / "out").exists()


def test_a_dry_run_counts_what_the_limit_leaves(facekit, tmp_path):
    source = write(tmp_path / "in", "a.png", "b.png", "c.png")
    done = facekit("align", source, tmp_path / "out", "--limit", 2, "--dry-run")
    assert done.code == 0 and "2 photos" in done.out and not (tmp_path / "out").exists()


def test_limit_takes_the_first_photos(facekit, tmp_path):
    facekit("align", write(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out", "--limit", 2)
    assert sorted(left(tmp_path / "out")) == ["a.png", "b.png"]


@pytest.mark.slow
def test_shards_together_are_the_whole(facekit, tmp_path):
    source = write(tmp_path / "in", "a.png", "b.png", "c.png")
    assert facekit("align", source, tmp_path / "out", "--shard", "1/2").code == 0
    assert sorted(left(tmp_path / "out")) == ["a.png", "c.png"]
    assert not (tmp_path / "out" / "card.yaml").exists()
    assert facekit("align", source, tmp_path / "out", "--shard", "2/2").code == 0
    assert sorted(left(tmp_path / "out")) == ["a.png", "b.png", "c.png"]
    assert card(tmp_path / "out")["made"]["images"] == 3


@pytest.mark.slow
def test_two_workers_make_what_one_makes(facekit, tmp_path):
    source = write(tmp_path / "in", "a.png", "b.png")
    write(source, "black.png", photo=Image.new("RGB", (64, 64)))
    write(source, "pair.png", photo=two_faces())
    codes = [facekit("align", source, tmp_path / n, "--workers", n, "--faces", "all").code for n in "12"]
    assert codes == [4, 4]
    assert left(tmp_path / "1") == left(tmp_path / "2")
    for name in ("manifest.jsonl", "failed.jsonl"):
        assert (tmp_path / "1" / name).read_text() == (tmp_path / "2" / name).read_text()


@pytest.mark.slow
def test_workers_of_the_neural_detector_end_and_make_what_one_makes(tmp_path):
    source = write(tmp_path / "in", *(f"{number}.png" for number in range(4)))
    work = "import sys, torch; torch.ones(2000, 2000) @ torch.ones(2000, 2000); "  # starts the threads of PyTorch
    work += "from facekit.cli import app; app(sys.argv[1:])"
    around = {**os.environ, "OMP_NUM_THREADS": "2"}
    for workers in "13":  # processes forked from one that has such threads hang in their first product
        line = ["align", source, tmp_path / workers, "--workers", workers, "--detector", "facekit", "--size", "32"]
        subprocess.run([sys.executable, "-c", work, *map(str, line)], timeout=120, check=True, env=around)
    assert left(tmp_path / "1") == left(tmp_path / "3") and len(left(tmp_path / "1")) == 4
    assert (tmp_path / "1/manifest.jsonl").read_text() == (tmp_path / "3/manifest.jsonl").read_text()


def test_a_card_repeats_the_run(facekit, tmp_path):
    source = write(tmp_path / "in", "ada.png")
    facekit("align", source, tmp_path / "out", "--size", 48)
    assert facekit("align", "--card", tmp_path / "out" / "card.yaml", source, tmp_path / "again").code == 0
    assert left(tmp_path / "again") == left(tmp_path / "out")


def test_an_unknown_detector_is_refused_with_a_suggestion(facekit, tmp_path):
    result = facekit("align", write(tmp_path / "in", "ada.png"), tmp_path / "out", "--detector", "cascad")
    assert result.code == 2
    assert "did you mean 'cascade'?" in result.err
    assert not (tmp_path / "out").exists()


def test_a_cascade_file_that_is_none_is_refused(facekit, tmp_path):
    source = write(tmp_path / "in", "ada.png")
    (tmp_path / "bad.xml").write_text("not xml")
    for name, words in {"gone.xml": "no cascade file", "bad.xml": "is not a cascade"}.items():
        result = facekit("align", source, tmp_path / "out", "--detector", f"cascade:{tmp_path / name}")
        assert result.code == 3
        assert words in result.err and name in result.err and "OpenCV" in result.err
    assert not (tmp_path / "out").exists()


def test_auto_is_our_own_where_there_are_no_models(facekit, tmp_path):
    source = write(tmp_path / "in", "ada.png")
    facekit("align", source, tmp_path / "out", "--detector", "auto", "--model-root", tmp_path / "none")
    assert card(tmp_path / "out")["options"]["detector"] == "facekit"


def test_models_that_cannot_be_fetched_are_exit_5_with_the_command_that_fixes_it(facekit, tmp_path, monkeypatch):
    storage = pytest.importorskip("insightface.utils.storage")

    def offline(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(storage, "download_file", offline)
    source = write(tmp_path / "in", "ada.png")
    result = facekit("align", source, tmp_path / "out", "--detector", "insightface", "--model-root", tmp_path / "none")
    assert result.code == 5
    said = " ".join(result.err.split())
    assert "no network" in said and "unzip" in said and "buffalo_l.zip" in said and "--model-root" in said
    assert not (tmp_path / "out").exists()


def test_insightface_that_is_not_installed_is_exit_5(facekit, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    monkeypatch.setitem(sys.modules, "insightface.model_zoo", None)
    result = facekit("align", write(tmp_path / "in", "ada.png"), tmp_path / "out", "--detector", "insightface")
    assert result.code == 5
    assert "pip install insightface" in result.err


def test_insightface_aligns_photos(facekit, tmp_path, shared):
    pytest.importorskip("insightface")
    root = shared / "weights" / "insightface"
    source = write(tmp_path / "in", "ada.png", photo=clockwise(20))
    result = facekit("align", source, tmp_path / "out", "--model-root", root)
    assert result.code == 0, result.err
    row = rows(tmp_path / "out")["ada.png"]
    assert row["landmarks_measured"] is True
    assert row["roll"] == pytest.approx(20, abs=5)
    assert card(tmp_path / "out")["options"]["detector"] == "insightface:buffalo_sc"


@pytest.mark.slow
def test_foreign_images_are_never_overwritten(facekit, tmp_path):
    write(tmp_path / "in", "ada.jpg", "deep/ada.jpg")
    write(tmp_path / "mine", "ada.png")
    before = left(tmp_path / "mine")
    refused = facekit("align", tmp_path / "in", tmp_path / "mine")
    assert refused.code == 2 and "was not created by facekit" in refused.err
    write(tmp_path / "mine", "bob.png")
    assert facekit("align", tmp_path / "mine" / "ada.png", tmp_path / "mine").code == 2
    assert left(tmp_path / "mine")["ada.png"] == before["ada.png"]


def test_the_function_takes_strings(tmp_path):
    import facekit

    facekit.align(str(write(tmp_path / "in", "ada.jpg")), str(tmp_path / "out"), size=64)
    assert Image.open(tmp_path / "out" / "ada.png").size == (64, 64)


def test_another_cascade_under_the_same_name_makes_another_run(facekit, tmp_path):
    from skimage.data import lbp_frontal_face_cascade_filename

    cascade = tmp_path / "cascade.xml"
    cascade.write_bytes(Path(lbp_frontal_face_cascade_filename()).read_bytes())
    command = ("align", write(tmp_path / "in", "ada.jpg"), tmp_path / "out", "--detector", f"cascade:{cascade}")
    assert facekit(*command).code == 0
    cascade.write_bytes(cascade.read_bytes() + b"\n")
    refused = facekit(*command)
    assert refused.code == 2 and "inputs.detector" in refused.err
