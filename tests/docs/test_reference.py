"""The reference names every command, flag, card key and recipe; every command line in the docs is one."""

import importlib.util
import inspect
import re
import shlex
from pathlib import Path

import pytest
import yaml

import facekit as package
from facekit import cli
from facekit.commands.table import COMMANDS
from facekit.recipe_api.registry import catalogue, find
from facekit.storage import card

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SPEC = importlib.util.spec_from_file_location("docs_reference", ROOT / "tools" / "docs_reference.py")
docs_reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(docs_reference)

OURS = [entry.name for entry in catalogue().values() if entry.target.startswith("facekit.")]
PAGES = sorted(DOCS.rglob("*.md"))
LINES = [
    (page.relative_to(ROOT).as_posix(), line.strip())
    for page in [*PAGES, ROOT / "README.md"]
    for line in re.findall(r"^(?: {4}|\$ )(facekit [^|>\n]*)", page.read_text(encoding="utf-8"), re.M)
]


def text_of(name: str) -> str:
    """Return a page of docs/ with its markers expanded."""
    return docs_reference.expand((DOCS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_page_with_every_flag(name):
    page = text_of(f"commands/{name}.md")
    assert page.startswith(f"# facekit {name}\n")
    for parameter in cli.load_command(name).params:
        flags = [*parameter.opts, *parameter.secondary_opts]
        shown = [parameter.metavar.strip("[]")] if parameter.param_type_name == "argument" else flags
        if parameter.name != "help":
            assert all(f"`{word}`" in page for word in shown), shown


def test_the_reference_of_commands_has_all_of_them():
    page = text_of("reference/commands.md")
    assert re.findall(r"^## facekit (\S+)", page, re.M) == list(COMMANDS)


def test_the_python_reference_has_every_public_function_and_parameter():
    page = text_of("reference/api.md")
    for name in package.__all__[1:]:
        assert f"## {name}\n" in page
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert all(re.search(rf"\b{key}\b", section) for key in inspect.signature(getattr(package, name)).parameters)


def test_the_page_of_cards_has_every_key():
    page = text_of("cards.md")
    keys = {
        f"{prefix}{name}" for prefix, model in docs_reference.sections(card.TrainCard) for name in model.model_fields
    }
    sections = {prefix.rstrip(".") for prefix, _ in docs_reference.sections(card.TrainCard)}
    assert len(keys) > 30
    for key in keys - sections:
        assert re.search(rf"^\| `{re.escape(key)}` \|.*\| \S.* \|$", page, re.M), f"{key} needs a description"
    for key in ("losses.TERM.every", "optim.phases.PHASE.lr"):
        assert f"| `{key}` |" in page


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS)
def test_a_recipe_has_a_page_with_its_losses_and_parameters(name):
    page = docs_reference.method_pages().get(name)
    assert page, f"add <!-- facekit:recipe {name} --> to a page in docs/methods/"
    shown = docs_reference.recipe(name)
    cls, _ = find(name)
    for key in [*cls.terms(), *cls.Params.model_fields]:
        assert f"| `{key}` |" in shown
    text = (DOCS / page).read_text(encoding="utf-8")
    assert "## Equations" in text and "```math" in text


def test_presets_show_their_own_values():
    assert "| `light` | yes or no | `yes` |" in docs_reference.recipe("ugatit-light")
    assert "| `light` | yes or no | `no` |" in docs_reference.recipe("ugatit")


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/.-]+\.md", text.partition("\nnav:")[2]))
    there = {page.relative_to(DOCS).as_posix() for page in PAGES} | set(docs_reference.EXTRA)
    assert listed == there
    assert yaml.safe_load(text)["strict"] is True


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), LINES)
def test_every_command_line_in_the_docs_parses(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.rstrip("\\"), comments=True)
    if line.endswith("\\") or "card.yaml" in line or "..." in words or "$" in line or words[1] == "COMMAND":
        return  # continued, in need of a card that is not here, or a pattern
    name, *rest = words[1:]
    if name in COMMANDS:
        cli.load_command(name).make_context(name, rest)  # raises for what does not parse
    else:
        assert name.startswith("-")


def test_tex_becomes_mathml_and_links_out_of_docs_become_pages_or_names():
    shown = docs_reference.mathml("$`x_1`$\n\n```math\n\\frac{a}{b}\n```\n")
    assert shown.count("<math") == 2 and "<mfrac>" in shown and "$" not in shown
    links = "[a](../../benchmarks/RESULTS.md#x) [b](../../src/facekit/cli.py) [c](https://e.org) ![d](x.jpg)"
    moved = docs_reference.relink(links, "methods/p.md", "docs/methods/p.md")
    assert "[a](../benchmarks/results.md#x)" in moved and "b (`src/facekit/cli.py` in the repository)" in moved
    assert "[c](https://e.org)" in moved and "![d](x.jpg)" in moved


def test_the_pages_that_messages_name_exist():
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"docs/[\w/-]+\.md", text))
    assert named and not [page for page in sorted(named) if not (ROOT / page).is_file()]
