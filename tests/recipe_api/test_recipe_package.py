"""A recipe in a package of its own: the template installs, is found by name, trains and translates."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import toy
from facekit.recipe_api import registry

TEMPLATE = Path(__file__).parents[2] / "examples" / "recipe-package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The template, installed by pip into a folder that is on the path."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(TEMPLATE, folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [*pip, "--target", folder / "site", folder / "source"], capture_output=True, text=True, timeout=300
    )
    if done.returncode and "No module named pip" in done.stderr:
        pytest.skip("pip is not installed")
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(folder / "site"))
    importlib.invalidate_caches()
    yield folder / "site"
    sys.path.remove(str(folder / "site"))


@pytest.mark.slow
def test_it_is_found_by_the_name_of_its_entry_point(installed, facekit):
    kind, preset = registry.find("tone")
    assert (kind.__name__, preset) == ("Tone", {})
    assert registry.catalogue()["tone"].target == "facekit_tone:Tone"
    shown = facekit("recipes", "tone")
    assert shown.code == 0 and "The colours stay near those of the photo" in shown.out


@pytest.mark.slow
def test_it_trains_and_translates(installed, facekit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.domains(tmp_path / "data", 6, 32)
    settings = ["--size", 32, "--steps", 4, "--set", "params.d_width=4", "--out", "run"]
    done = facekit("train", "tone", "--data", "data", *settings)
    assert done.code == 0, done.err
    done = facekit("translate", "data/trainA", "out", "--weights", "run", "--no-align")
    assert done.code == 0 and len(list(Path("out").glob("*.png"))) == 6, done.err


def test_an_entry_point_that_is_not_a_recipe_is_an_error(monkeypatch):
    monkeypatch.setattr(registry, "catalogue", lambda: {"x": registry.Entry("x", "pathlib:Path", "", {})})
    with pytest.raises(registry.CardError, match="is not a recipe"):
        registry.find("x")
