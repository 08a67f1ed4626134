"""References lead somewhere: docs/papers.md names every recipe, and every file and parameter that it names exists."""

import re
from pathlib import Path

import pytest

import facekit
from facekit.recipe_api import registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
SOURCE = Path(facekit.__file__).parent


@pytest.mark.parametrize("entry", registry.catalogue().values(), ids=lambda entry: entry.name)
def test_every_recipe_has_its_paper(entry):
    file = entry.target.split(":")[0].rpartition(".")[2]
    own = [name for name, other in registry.catalogue().items() if other.target == entry.target]
    assert f"recipes/{file}.py" in PAGE or any(f"`{name}`" in PAGE for name in own)


def test_every_file_that_the_page_names_exists():
    named = set(re.findall(r"`((?:recipes|nets|ops|data|sources)/\w+\.py)", PAGE))
    assert len(named) > 15
    assert [name for name in named if not (SOURCE / name).is_file()] == []


def test_every_parameter_that_the_page_names_exists():
    known = {field for name in registry.catalogue() for field in registry.find(name)[0].Params.model_fields}
    named = set(re.findall(r"`params\.(\w+)", PAGE))
    assert len(named) > 15 and named <= known


def test_nothing_refers_to_papers_or_notes_by_number():
    folders = (ROOT / name for name in ("src", "docs", "examples", "tests", "benchmarks"))
    texts = [
        p
        for folder in folders
        for p in folder.rglob("*")
        if p.suffix in (".py", ".md", ".yaml") and p != Path(__file__)
    ]
    numbered = re.compile(r"[Pp]aper 00\d|specs \d")
    assert [str(path) for path in texts if numbered.search(path.read_text(encoding="utf-8"))] == []
