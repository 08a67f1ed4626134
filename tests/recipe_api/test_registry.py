"""Finding recipes: a file of one's own that does not import, and a package that adds one."""

import pytest

from facekit.errors import CardError
from facekit.recipe_api import registry

FILE = '''
{}

class Own(object):
    """A method."""

    presets = {{"own": {{}}}}
'''


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("from facekit.recipe import Recipe", "facekit.recipe is facekit.recipe_api.base since facekit 0.2"),
        ("from facekit import losses", "facekit.losses is facekit.ops.losses since facekit 0.2"),
        ("import facekit.nets.patch", "facekit.nets.patch is facekit.nets.patchgan since facekit 0.2"),
        ("from facekit.recipe_api.base import Clock", "facekit.recipe_api.base.Progress since facekit 0.2"),
        ("import not_a_package.part", "pip install not_a_package"),
        ("from facekit.recipe_api.base import Nothing", "fix the import"),
    ],
)
def test_a_recipe_file_that_does_not_import_says_how_to_convert_it(tmp_path, line, hint):
    path = tmp_path / "own.py"
    path.write_text(FILE.format(line))
    with pytest.raises(CardError, match="cannot be imported") as caught:
        registry.find(str(path))
    assert hint in caught.value.hint


def test_modules_that_moved_are_where_the_hint_says():
    import importlib

    for target in registry.MOVED.values():
        module, _, name = target.rpartition(".")
        assert hasattr(importlib.import_module(module), name) or importlib.import_module(target)
