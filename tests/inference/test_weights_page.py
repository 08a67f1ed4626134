"""The page of `facekit weights --page`: what each of the weights draws."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

import facekit as package
from facekit.errors import InputError
from facekit.recipe_api import checkpoint

ADDRESS = re.compile(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]*)"')


def pictures(page: Path) -> list[tuple[str, Image.Image]]:
    """What the page shows, by title."""
    found = ADDRESS.findall(page.read_text())
    return [(title, Image.open(io.BytesIO(base64.b64decode(data)))) for data, title in found]


@pytest.mark.slow
def test_the_face_of_a_photo_before_and_after(tmp_path, facekit):
    photo, page = tmp_path / "me.png", tmp_path / "all.html"
    Image.fromarray(astronaut()[:, ::-1].copy()).save(photo)
    done = facekit("weights", "anime", "--page", page, "--photo", photo)
    assert done.code == 0 and f"open {page}" in done.out
    (_, before), (title, after) = pictures(page)
    assert title == "anime" and before.size == after.size == (192, 192)
    anime = package.load("anime")
    direct = np.asarray(anime(photo).resize(after.size), float)
    assert np.abs(np.asarray(after.convert("RGB"), float) - direct).mean() < 6  # another crop size, and WebP
    text = page.read_text()
    assert "What it does badly" in text and "Research only" in text and "http" not in text.partition("<details>")[0]


@pytest.mark.slow
def test_runs_show_their_preview_and_helpers_say_why_they_show_none(tmp_path, facekit, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/<b>mine")
    (run / "previews").mkdir(parents=True)
    (run / checkpoint.FILE).write_bytes(checkpoint.shipped()["features"].read_bytes())
    for step, colour in ((5, "red"), (1000, "blue")):
        Image.new("RGB", (300, 200), colour).save(run / f"previews/{step:08d}.png")
    Path("runs/broken").mkdir()
    (Path("runs/broken") / checkpoint.FILE).write_bytes(b"x")
    assert facekit("weights", "--page", "all.html").code == 0
    shown = dict(pictures(Path("all.html")))
    assert {"anime", "cartoon", "game", "parts", "faces"} <= set(shown)
    blue = np.asarray(shown["step 1,000"].convert("RGB"), int)
    assert blue.shape == (200, 300, 3) and blue[..., 2].min() > 240
    text = Path("all.html").read_text()
    assert "a helper of other commands" in text and "&lt;b&gt;mine" in text and "<b>mine" not in text
    assert re.search(r"<h2>runs/broken</h2>.*?No picture: [^<]{10}", text, re.S)


@pytest.mark.slow
def test_other_files_are_not_overwritten(tmp_path, facekit):
    mine = tmp_path / "mine.html"
    mine.write_text("my own")
    done = facekit("weights", "anime", "--page", mine)
    assert done.code == 2 and "not created by facekit" in done.err and mine.read_text() == "my own"
    assert "is a folder" in facekit("weights", "anime", "--page", tmp_path).err
    page = tmp_path / "page.html"
    assert (
        facekit("weights", "upscaler", "--page", page).code == facekit("weights", "upscaler", "--page", page).code == 0
    )


@pytest.mark.parametrize(("flags", "code"), [(("--photo", "me.png"), 2), (("--page", "p.html", "--photo", "x.png"), 3)])
def test_a_photo_that_cannot_be_shown(tmp_path, facekit, monkeypatch, flags, code):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "teal").save("x.png")
    done = facekit("weights", "anime", *flags)
    assert done.code == code and "next:" in done.err and not Path("p.html").exists()


def test_the_functions_in_python(tmp_path):
    (row,) = package.weights("upscaler", page=tmp_path / "p.html")
    assert row["name"] == "upscaler" and (tmp_path / "p.html").is_file()
    with pytest.raises(InputError):
        package.watch([tmp_path])
