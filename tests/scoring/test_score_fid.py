"""`facekit score-fid`: what it prints and writes, what it warns about, and what it refuses."""

import inspect
import json
import re
import typing
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import facekit as package
import toy
import toy_scores
from facekit.recipe_api import checkpoint
from facekit.scoring import extractors, features, fid_kid


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A working folder with out/ and ref/ of 12 and 14 pictures and a features file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEKIT_CACHE", str(tmp_path / "cache"))
    toy.fill(tmp_path / "out", 12, seed=1)
    toy.fill(tmp_path / "ref", 14, seed=2)
    toy_scores.write_onnx(tmp_path / "net.onnx")
    return tmp_path


SCORE = ("score-fid", "out", "ref", "--features", "net.onnx")


def test_both_scores_come_with_units_counts_and_what_made_them(facekit):
    done = facekit(*SCORE)
    assert done.code == 0, done.err
    assert re.search(r"^FID-48 +\d+\.\d{3}$", done.out, re.M)
    assert re.search(r"^KID-48 \(x1\) +-?\d+\.\d{5} ± \d+\.\d{5} +100 subsets of 12, seed 2020$", done.out, re.M)
    assert re.search(r"^images +12 against 14$", done.out, re.M)
    assert re.search(r"^features +net.onnx +48-d$", done.out, re.M)
    assert re.search(r"^preprocessing +RGB, Pillow bicubic .* 32 px, .*\(v - 128\) / 128$", done.out, re.M)


def test_json_holds_the_same_as_the_function_returns(facekit):
    told = [json.loads(line) for line in facekit(*SCORE, "--json").out.splitlines()]
    (result,) = [{k: v for k, v in row.items() if k != "event"} for row in told if row["event"] == "result"]
    assert result == package.score_fid("out", "ref", features="net.onnx")
    assert result["images"] == {"out": 12, "reference": 14}
    assert result["kid"]["unit"] == "x1" and result["kid"]["seed"] == fid_kid.SEED
    assert result["features"]["dimension"] == 48


def test_scores_are_those_of_the_features():
    extractor = extractors.load("net.onnx")
    x, y = (features.extract(folder, extractor) for folder in ("out", "ref"))
    result = package.score_fid("out", "ref", features="net.onnx", seed=5)
    assert {k: v for k, v in result.items() if "-48" in k} == fid_kid.compare(x, y, "48", 5)


def test_a_card_holds_the_result_and_repeats_it(facekit, place):
    assert facekit(*SCORE, "--save", "score.yaml", "--seed", 3).code == 0
    card = yaml.safe_load((place / "score.yaml").read_text())
    assert card["command"] == "score-fid" and card["options"]["seed"] == 3
    assert set(card["inputs"]) == {"out", "reference", "features"}
    scores = card["made"]["scores"]
    assert scores["images"] == {"out": 12, "reference": 14} and "FID-48" in scores
    assert {"facekit", "clean-fid", "onnxruntime"} <= set(card["made"]["versions"])
    done = facekit("score-fid", "--card", "score.yaml", "--json")
    assert json.loads(done.out.splitlines()[-1])["KID-48"] == scores["KID-48"]


@pytest.mark.slow
def test_a_card_of_other_choices_or_images_is_not_replaced_unless_forced(facekit, place):
    assert facekit(*SCORE, "--save", "score.yaml").code == 0
    before = (place / "score.yaml").read_bytes()
    assert facekit(*SCORE, "--save", "score.yaml").code == 0  # the same again
    other = facekit(*SCORE, "--save", "score.yaml", "--seed", 9)
    assert other.code == 2 and "options.seed: 2020 -> 9" in other.err
    toy.picture(16, 99).save("out/000.png")
    before = (place / "score.yaml").read_bytes()
    other = facekit(*SCORE, "--save", "score.yaml")
    assert other.code == 2 and "inputs.out" in other.err
    assert (place / "score.yaml").read_bytes() == before
    assert facekit(*SCORE, "--save", "score.yaml", "--force").code == 0


def test_a_card_never_replaces_another_file(facekit, place):
    (place / "notes.txt").write_text("mine")
    assert facekit(*SCORE, "--save", "notes.txt").code == 2
    assert facekit(*SCORE, "--save", "out").code == 2
    assert (place / "notes.txt").read_text() == "mine"


def test_reference_features_are_kept_and_the_output_is_seen_once(facekit, monkeypatch):
    seen = []
    pixels = features.pixels
    monkeypatch.setattr(features, "pixels", lambda image, edge: seen.append(1) or pixels(image, edge))
    facekit(*SCORE)
    assert len(seen) == 12 + 14  # both metrics from one pass
    facekit(*SCORE)
    assert len(seen) == 12 + 14 + 12
    assert "read from the cache" in facekit(*SCORE).err
    seen.clear()
    facekit(*SCORE, "--no-cache")
    assert len(seen) == 12 + 14


def test_few_images_are_warned_about(facekit):
    done = facekit(*SCORE)
    assert "fewer than 2,048" in done.err and "do not fill subsets of 1000" in done.err
    assert "subsets of" not in facekit(*SCORE, "--subset-size", 6, "-q").err


def test_the_warnings_stand_in_the_result():
    assert len(package.score_fid("out", "ref", features="net.onnx")["warnings"]) == 2


def test_sets_of_one_number_have_the_full_estimate_and_the_deviation_of_halves(facekit):
    done = facekit("score-fid", "out", "ref", "--features", "net.onnx", "--limit", 10)
    assert re.search(r"all images at once; deviation over 100 subsets of 5, seed", done.out)


def test_mixed_sizes_are_refused_with_the_way_out(facekit, place):
    toy.fill(place / "ref", 14, 32, seed=2)
    done = facekit(*SCORE)
    assert done.code == 3 and "16 x 16" in done.err and "32 x 32" in done.err and "--resize 16" in done.err
    done = facekit(*SCORE, "--resize", 16)
    assert done.code == 0 and "middle square, Pillow bicubic to 16 px" in done.out


def test_enlarging_is_warned_about(facekit):
    assert "enlarges" in facekit(*SCORE, "--resize", 64).err
    assert "enlarges" not in facekit(*SCORE, "--resize", 8).err


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_none_is_refused(facekit, seed):
    assert facekit(*SCORE, "--seed", seed).code == 2


def test_resize_crops_the_middle_square(place):
    wide = Image.new("RGB", (48, 16), "red")
    wide.paste(toy.picture(16, 3), (16, 0))
    for name, picture in (("a", wide), ("b", toy.picture(16, 3))):
        (place / name).mkdir()
        for i in range(2):
            picture.save(place / name / f"{i}.png")
    assert abs(package.score_fid("a", "b", features="net.onnx", resize=16)["FID-48"]) < 1e-6


def test_images_that_are_not_square_are_warned_about(facekit, place):
    for name in ("out", "ref"):
        for path in (place / name).iterdir():
            toy.picture(24).resize((24, 16)).save(path)
    assert "squeezed" in facekit(*SCORE).err
    assert "squeezed" not in facekit(*SCORE, "--resize", 16).err


def test_jpeg_against_png_is_warned_about(facekit, place):
    assert "compression" not in facekit(*SCORE).err
    for path in sorted((place / "ref").iterdir()):
        toy.picture(16, 7).save(path.with_suffix(".jpg"))
        path.unlink()
    assert "PNG against JPEG" in facekit(*SCORE).err


def test_a_folder_against_itself_is_warned_about(facekit):
    done = facekit("score-fid", "out", "out", "--features", "net.onnx")
    assert done.code == 0 and "same images" in done.err


def test_a_folder_against_itself_scores_zero_without_a_sign(facekit):
    done = facekit("score-fid", "out", "out", "--features", "net.onnx")
    assert re.search(r"^FID-48 +0\.000$", done.out, re.M)


def test_neighbours_add_precision_recall_density_and_coverage(facekit):
    done = facekit(*SCORE, "--neighbours", 3)
    for name in ("precision", "recall", "density", "coverage"):
        assert re.search(rf"^{name}-48 +\d\.\d{{3}} ± \d\.\d{{3}}$", done.out, re.M), name
    assert "precision" not in facekit(*SCORE).out
    assert facekit(*SCORE, "--neighbours", 12).code == 3


def test_a_saved_result_is_not_computed_again(facekit, place, monkeypatch):
    (place / "out" / "003.png").write_bytes((place / "out" / "003.png").read_bytes()[:60])
    first = facekit(*SCORE, "--save", "score.yaml", "--json")
    assert first.code == 4
    monkeypatch.setattr(extractors, "load", None)
    again = facekit(*SCORE, "--save", "score.yaml", "--json")
    assert again.code == 4 and "holds this result" in again.out
    results = [[row for row in map(json.loads, x.out.splitlines()) if row["event"] == "result"] for x in (first, again)]
    assert results[0] == results[1]


@pytest.mark.parametrize("folder", ["empty", "single", "missing", "net.onnx"])
def test_folders_that_make_no_set_are_refused(facekit, place, folder):
    (place / "empty").mkdir()
    toy.fill(place / "single", 1)
    for pair in ((folder, "ref"), ("out", folder)):
        done = facekit("score-fid", *pair, "--features", "net.onnx")
        assert done.code == 3 and folder in done.err and "next:" in done.err


def test_images_that_cannot_be_read_are_left_out_and_end_in_4(facekit, place):
    (place / "out" / "003.png").write_bytes(b"no image")
    done = facekit(*SCORE, "--save", "score.yaml", "--json")
    assert done.code == 4 and "003.png" in done.out
    (result,) = [row for row in map(json.loads, done.out.splitlines()) if row["event"] == "result"]
    assert result["images"]["out"] == 11 and list(result["failed"]["out"]) == ["003.png"]
    assert yaml.safe_load((place / "score.yaml").read_text())["made"]["scores"]["images"]["out"] == 11


@pytest.mark.parametrize(
    ("shape", "more", "code"),
    [(("n", 3, 32, 24), (), 5), (("n", 1, 32, 32), (), 5), (("n", 3, 32, 32), ("--input-size", 64), 2)],
)
def test_a_features_file_with_the_wrong_input_is_refused(facekit, place, shape, more, code):
    toy_scores.write_onnx(place / "odd.onnx", shape)
    done = facekit("score-fid", "out", "ref", "--features", "odd.onnx", *more)
    assert done.code == code and "odd.onnx" in done.err and "next:" in done.err


def test_features_that_are_not_finite_are_refused(facekit, monkeypatch):
    load = extractors.load

    def broken(*arguments):
        found = load(*arguments)
        return extractors.Extractor(**{**vars(found), "run": lambda x: found.run(x) * np.nan})

    monkeypatch.setattr(extractors, "load", broken)
    done = facekit(*SCORE)
    assert done.code == 3 and "not finite" in done.err


def test_clean_fid_that_cannot_be_downloaded_names_the_flag(facekit, monkeypatch):
    from cleanfid import downloads_helper

    def fail(fpath):
        raise OSError("no network")

    monkeypatch.setattr(extractors, "CLEAN_FILE", "inception-of-a-test.pt")
    monkeypatch.setattr(downloads_helper, "check_download_inception", fail)
    done = facekit("score-fid", "out", "ref")
    assert done.code == 5 and "no network" in done.err and "--features" in done.err


@pytest.mark.slow
def test_clean_fid_is_the_default(facekit, place, monkeypatch):
    path = toy_scores.write_clean(place / "kept" / "inception-2015-12-05.pt")
    monkeypatch.setattr(extractors, "clean_file", lambda: path)
    done = facekit("score-fid", "out", "ref")
    assert done.code == 0, done.err
    assert re.search(r"^FID-clean ", done.out, re.M) and re.search(r"^KID-clean \(x1\) ", done.out, re.M)
    assert re.search(r"^features +clean-fid inception-2015-12-05.pt +2048-d$", done.out, re.M)


def test_a_dry_run_computes_nothing(facekit, place):
    done = facekit(*SCORE, "--dry-run", "--save", "score.yaml")
    assert done.code == 0 and "12 images of out against 14 of ref" in done.out
    assert not (place / "cache").exists() and not (place / "score.yaml").exists()


def test_the_source_needs_weights_that_are_here(facekit, place):
    toy.fill(place / "in", 12)
    done = facekit(*SCORE, "--source", "in", "--segnet", "gone.safetensors")
    assert done.code == 5 and "'gone.safetensors'" in done.err and "--segnet" in done.err and "--source" in done.err


def test_the_source_adds_what_the_translation_keeps(facekit, place, monkeypatch):
    for name in ("in", "out"):
        for path in toy.fill(place / name, 12).glob("*.png"):
            toy_scores.draw(path, toy_scores.FACE)
    models = {"parts": toy_scores.segnet(), "likeness": toy_scores.face()}
    for name in models:
        (place / name).write_text(name)
    monkeypatch.setattr(checkpoint, "find_weights", Path)
    monkeypatch.setattr(checkpoint, "load_model", lambda path, device: models[path.name])
    flags = ("--source", "in", "--segnet", "parts", "--face", "likeness", "--save", "score.yaml")
    done = facekit(*SCORE, *flags)
    assert done.code == 0, done.err
    for name in ("IoU-parts", "IoU-eyes", "IoU-nose", "IoU-mouth", "IoU-skin", "identity-cosine"):
        assert re.search(rf"^{name} +1.000$", done.out, re.M), name
    for name in ("landmark-distance", "colour-skin", "colour-eyes"):
        assert re.search(rf"^{name} +0.000 ± 0.000$", done.out, re.M), name
    assert re.search(r"^pairs +12", done.out, re.M)
    card = yaml.safe_load((place / "score.yaml").read_text())
    assert card["made"]["scores"]["IoU-parts"] == 1 and {"source", "segnet", "face"} <= set(card["inputs"])


def test_defaults_of_the_command_are_those_of_the_library():
    known = inspect.signature(package.score_fid).parameters
    assert known["features"].default == extractors.CLEAN
    assert (known["subsets"].default, known["subset_size"].default) == (fid_kid.SUBSETS, fid_kid.SUBSET_SIZE)
    hint = typing.get_type_hints(package.score_fid)["preprocessing"]
    assert typing.get_args(hint) == tuple(extractors.SCALES)


def test_help_names_the_extractors(facekit):
    done = facekit("score-fid", "--help")
    assert done.code == 0 and "--features" in done.out and "TorchScript" in done.out


@pytest.mark.slow
def test_the_shared_inception_tells_photos_from_drawings(shared):
    """On the first 3 images of each."""
    data, file = shared / "data" / "selfie2anime-128", shared / "weights" / "inception-2015-12-05-768.onnx"
    near = package.score_fid(data / "valB", data / "trainB", features=str(file), limit=3)
    far = package.score_fid(data / "valA", data / "trainB", features=str(file), limit=3)
    assert far["FID-768"] > near["FID-768"] and far["KID-768"] > near["KID-768"]
    assert far["features"]["dimension"] == 768
