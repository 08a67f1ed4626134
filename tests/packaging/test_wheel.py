"""The wheel and the sdist hold all that facekit needs, and an installed wheel works outside the checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

import facekit as package

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(*command: object, **more: object) -> str:
    """Run a command and return its output; the test fails with its errors where it fails."""
    around = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], env=around, capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder with the wheel and the sdist, built from the files that git knows or would add."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    return out


def test_wheel_and_sdist_hold_weights_cards_schema_types_and_licence(built):
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    assert wheel.name.startswith(f"facekit_anime-{package.__version__}-")
    with zipfile.ZipFile(wheel) as file:
        in_wheel = set(file.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    weights = {path.name for path in (ROOT / "src/facekit/weights").iterdir()}
    cards = {path.name for path in (ROOT / "examples/cards").glob("*.yaml")}
    assert {f"facekit/weights/{name}" for name in weights} <= in_wheel
    assert {f"src/facekit/weights/{name}" for name in weights} <= in_sdist
    assert {f"facekit/examples/cards/{name}" for name in cards} <= in_wheel
    assert {f"examples/cards/{name}" for name in cards} <= in_sdist
    assert {"facekit/py.typed", "facekit/examples/card.schema.json", "facekit/examples/Makefile"} <= in_wheel
    assert any(name.endswith("licenses/LICENSE") for name in in_wheel)
    assert {"LICENSE", "CHANGELOG.md", "README.md", "setup.py"} <= in_sdist
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")}
    assert sources <= in_wheel


def test_an_installed_wheel_translates_a_photo_and_writes_examples(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    scripts = "Scripts" if os.name == "nt" else "bin"
    python = tmp_path / "venv" / scripts / ("python.exe" if os.name == "nt" else "python")
    place = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, wheel)
    (place / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "work"
    (work / "photos").mkdir(parents=True)
    Image.fromarray(data.astronaut()).save(work / "photos" / "astronaut.png")
    facekit = (python, "-P", "-m", "facekit") if sys.version_info >= (3, 11) else (python, "-m", "facekit")
    where = run(python, "-c", "import facekit; print(facekit.__file__)", cwd=work).strip()
    assert Path(where).is_relative_to(tmp_path)
    run(*facekit, "align", "photos", "faces", "--size", 128, cwd=work)
    run(*facekit, "translate", "--to", "anime", "faces", "anime", "--sheet", cwd=work)
    with Image.open(work / "anime" / "astronaut.png") as made:
        assert made.size == (256, 256)
    run(*facekit, "examples", "mine", cwd=work)
    assert (work / "mine" / "cards" / "cyclegan.yaml").is_file()
    assert package.__version__ in run(*facekit, "--version", cwd=work)


def test_the_version_is_the_same_everywhere():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^## \[(\d[^\]]*)\]", changelog, re.M)[1] == package.__version__
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == package.__version__
