"""The files in examples/: the recipe and the Makefile of the whole pipeline."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageOps
from skimage.data import astronaut

import facekit as package
import toy
from booru import Booru, Entry
from facekit import cli
from facekit.storage.folder import Folder

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = [f"--set=params.{key}={value}" for key, value in {"width": 4, "blocks": 1, "d_width": 4, "pool": 2}.items()]


@pytest.mark.slow
def test_the_example_recipe_trains_and_translates(facekit, tmp_path):
    data = toy.domains(tmp_path / "data", 4, 32)
    recipe = EXAMPLES / "blur_cycle.py"
    done = facekit("train", recipe, "--data", data, "--out", tmp_path / "run", "--size", 32, "--steps", 2, *SMALL)
    assert done.code == 0, done.err
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert row["step"] == 2 and row["losses"]["cycle"] > 0
    assert package.load(tmp_path / "run", to="b", device="cpu")(toy.picture(32), align=False).size == (32, 32)


def test_the_example_recipe_has_its_own_term_and_inherits_the_rest(facekit):
    told = json.loads(facekit("recipes", EXAMPLES / "blur_cycle.py", "--json").out)
    assert told["recipe"].endswith("blur_cycle.py") and told["terms"]["cycle"]["weight"] == 20
    assert "blurred" in told["terms"]["cycle"]["about"] and "identity" in told["terms"]


@pytest.fixture
def plan(tmp_path):
    """The commands that the Makefile would run, in order."""

    def make(*settings):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "drawings").mkdir(exist_ok=True)
        command = ["make", "-n", "-f", EXAMPLES / "Makefile", *settings]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return [
            line.partition("||")[0].split()[1:]
            for line in done.stdout.replace("\\\n", " ").splitlines()
            if line.startswith("facekit ")
        ]

    return make


def test_the_makefile_runs_the_chain_with_commands_that_parse(plan):
    steps = plan("RECIPE=cyclegan", "SIZE=64", "TRAIN=--seed 1")
    assert [name for name, *_ in steps] == ["align", "align", "train", "translate"]
    for name, *rest in steps:
        cli.load_command(name).make_context(name, rest)  # raises for what does not parse
    assert "cyclegan" in steps[2] and steps[2][-2:] == ["--seed", "1"]


@pytest.mark.slow
def test_the_makefile_goes_from_a_board_to_a_folder_to_train_on(tmp_path, facekit):
    """Five portraits, one of them twice but for its compression, and a picture without a face."""
    photo = Image.fromarray(astronaut()[:256, 96:352])
    posts = [Entry(number, data=portrait(photo, number)) for number in range(1, 6)]
    posts += [Entry(6, data=portrait(photo, 5, quality=60)), Entry(7, size=(256, 256))]
    settings = ["TAGS=solo", "LIMIT=20", "SIZE=64", f"FACEKIT={sys.executable} -m facekit", "DRAWN_DETECTOR=cascade"]
    with Booru(posts) as board:
        crawl = f"CRAWL=--address {board.address} --allow-local --rate 1000"
        command = ["make", "-f", EXAMPLES / "Makefile", "drawn", *settings, crawl]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "Nothing to be done" in subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    work = tmp_path / "work"
    counts = {name: len(Folder(work / name).names) for name in ("raw", "cut", "drawn", "smooth")}
    assert counts == {"raw": 7, "cut": 6, "drawn": 5, "smooth": 5}
    assert Folder(work / "drawn").names == Folder(work / "smooth").names
    told = facekit("train", "cyclegan", "--a", work / "drawn", "--b", work / "smooth", "--size", 64, "--dry-run")
    assert told.code == 0 and "drawn: " in told.err


@pytest.mark.slow
def test_the_makefile_stops_where_most_drawings_have_no_face(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "drawings").mkdir()
    face = Image.fromarray(astronaut()[:256, 96:352])
    face.save(tmp_path / "photos" / "a.png")
    face.save(tmp_path / "drawings" / "a.png")
    for number in range(2):
        toy.picture(64, number).save(tmp_path / "drawings" / f"{number}.png")
    settings = ["SIZE=64", f"FACEKIT={sys.executable} -m facekit", "DRAWN_DETECTOR=cascade"]
    command = ["make", "-f", EXAMPLES / "Makefile", "work/anime/card.yaml", *settings]
    for _ in range(2):  # not done the second time, either
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode and not (tmp_path / "work/anime/card.yaml").exists()
    other = ["make", "-f", EXAMPLES / "Makefile", "other/anime/card.yaml", "WORK=other", *settings]
    first = subprocess.run(other, cwd=tmp_path, capture_output=True, text=True)
    assert "no face in most images" in first.stderr
    photos = ["make", "-f", EXAMPLES / "Makefile", "work/photo/card.yaml", *settings]
    assert subprocess.run(photos, cwd=tmp_path, capture_output=True).returncode == 0


def portrait(photo: Image.Image, number: int, quality: int = 95) -> bytes:
    """Return a photo in one of several tints and framings, as JPEG."""
    left = 6 * number
    cut = photo.crop((left, 0, left + 220, 220)).resize((256, 256))
    if number % 2:
        cut = ImageOps.mirror(cut)
    out = io.BytesIO()
    ImageEnhance.Color(cut).enhance(0.4 * number).save(out, "JPEG", quality=quality)
    return out.getvalue()


def test_the_makefile_compares_methods_on_equal_terms(plan):
    name, *rest = plan("compare", "SEEDS=3", "COMPARE=--features own.onnx")[-1]
    context = cli.load_command(name).make_context(name, rest)
    assert name == "ablate" and context.params["card"] == "ugatit-face" and context.params["seeds"] == 3
    assert list(context.params["against"]) == ["ugatit", "cyclegan"] and context.params["features"] == "own.onnx"


def test_the_makefile_does_what_is_finished_no_more(plan, tmp_path):
    plan()
    for step in ("photo", "anime", "run"):
        (tmp_path / "work" / step).mkdir(parents=True)
        (tmp_path / "work" / step / "card.yaml").touch()
    assert [name for name, *_ in plan()] == ["translate"]


def test_the_makefile_says_every_setting_in_its_head():
    text = (EXAMPLES / "Makefile").read_text()
    used, set_ = set(re.findall(r"\$\(([A-Z_]+)\)", text)), set(re.findall(r"^([A-Z_]+) \?=", text, re.M))
    assert used == set_


def test_examples_are_written_and_what_differs_is_kept(facekit, tmp_path):
    out = tmp_path / "mine"
    assert facekit("examples", out).code == 0
    originals = {path.relative_to(EXAMPLES): path.read_bytes() for path in EXAMPLES.rglob("*") if is_example(path)}
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == originals
    (out / "Makefile").write_text("mine")
    again = facekit("examples", out)
    assert again.code == 0 and "Makefile differs and was kept" in again.err
    assert (out / "Makefile").read_text() == "mine"
    assert facekit("examples", out, "--force").code == 0
    assert (out / "Makefile").read_bytes() == originals[Path("Makefile")]


def is_example(path: Path) -> bool:
    """Whether a file under examples/ is shipped."""
    return path.is_file() and "__pycache__" not in path.parts


def test_a_dry_run_lists_the_examples_and_writes_nothing(facekit, tmp_path):
    told = json.loads(facekit("examples", tmp_path / "mine", "--dry-run", "--json").out.splitlines()[-1])
    assert "cards/cyclegan.yaml" in told["files"] and "card.schema.json" in told["files"]
    assert not (tmp_path / "mine").exists()
