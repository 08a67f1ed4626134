"""A package names where its source lies: the public address that the checkout was cloned from, or none."""

import shutil
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with all that the metadata are made of."""
    folder = tmp_path / "checkout"
    (folder / "src" / "facekit").mkdir(parents=True)
    (folder / "src" / "facekit" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def clone_of(folder: Path, origin: str) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "remote", "add", "origin", origin], cwd=folder, check=True)


def urls(folder: Path) -> list[str]:
    """The URLs in the metadata that a build of `folder` makes."""
    subprocess.run([sys.executable, "setup.py", "--quiet", "dist_info"], cwd=folder, check=True, capture_output=True)
    (made,) = folder.glob("*.dist-info/METADATA")
    return HeaderParser().parsestr(made.read_text(encoding="utf-8")).get_all("Project-URL", [])


@pytest.mark.slow
@pytest.mark.parametrize(
    "origin",
    [
        "https://github.com/someone/facekit.git",
        "https://someone:secret@github.com/someone/facekit",
        "git@github.com:someone/facekit.git",
        "ssh://git@github.com/someone/facekit.git",
    ],
)
def test_a_clone_names_its_origin_without_secrets(checkout, origin):
    clone_of(checkout, origin)
    source = "https://github.com/someone/facekit"
    assert urls(checkout) == [f"Source, {source}", f"Issues, {source}/issues"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "origin",
    ["/srv/git/facekit", "file:///srv/facekit.git", "https://localhost/facekit", "C:/x", "ssh://git@a.org:22/x"],
)
def test_an_origin_on_this_machine_is_not_named(checkout, origin):
    clone_of(checkout, origin)
    assert urls(checkout) == []


@pytest.mark.slow
def test_a_folder_without_git_has_no_urls_and_an_sdist_those_it_was_made_with(checkout):
    assert urls(checkout) == []
    (checkout / "PKG-INFO").write_text(
        "Metadata-Version: 2.4\nName: facekit\nProject-URL: Source, https://a.org/facekit\n"
    )
    shutil.rmtree(next(checkout.glob("*.dist-info")))
    assert urls(checkout) == ["Source, https://a.org/facekit"]
