"""Every dependency is used, declared and explained."""

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
MODULES = {
    "pyyaml": "yaml",
    "pillow": "PIL",
    "scikit-image": "skimage",
    "opencv-python": "cv2",
    "clean-fid": "cleanfid",
}
EXTRAS = {  # of the extras that facekit itself imports: extra -> packages
    extra: re.findall(r'"([\w-]+)', re.search(rf"^{extra} = (\[.*\])$", PYPROJECT, re.M)[1])
    for extra in ("coreml", "demo", "hub", "ray", "serve", "video")
}
DECLARED = re.findall(r'"([\w-]+)', PYPROJECT.partition("\ndependencies = [")[2].partition("\n]")[0])


@functools.cache
def imported() -> set[str]:
    """Return the top-level modules from outside that facekit's sources import, wherever the import stands."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"facekit"}


@pytest.mark.slow
def test_what_is_imported_is_declared():
    declared = {MODULES.get(name, name) for name in [*DECLARED, *(name for names in EXTRAS.values() for name in names)]}
    optional = {"pillow_heif", "pillow_jxl", "fsspec", "diffusers", "wandb", "mlflow"}
    optional |= {"litert_torch", "ai_edge_litert"}  # the extra litert
    optional |= {"IPython"}  # only inside a notebook
    assert imported() - declared - {"typing_extensions"} <= optional


@pytest.mark.parametrize("name", DECLARED)
def test_what_is_declared_is_imported(name):
    assert MODULES.get(name, name) in imported()


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_imported_and_explained(extra):
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    assert EXTRAS[extra] and set(EXTRAS[extra]) <= imported()
    assert re.search(rf"^\| `{extra}` \| .*{EXTRAS[extra][0]}.* \| \S", page, re.M)


@pytest.mark.parametrize("name", DECLARED)
def test_what_is_declared_is_explained(name):
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| [^|]*\b{name}\b[^|]*\| \S", page, re.M)
