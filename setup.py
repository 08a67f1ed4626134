"""Puts examples/ into the wheel as facekit/examples, for `facekit examples`; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExamples(build_py):
    """Also copies the examples, except in editable installs, where the checkout has them."""

    def run(self) -> None:
        """Build the package, then add the examples."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "facekit", "examples")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("examples", target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithExamples})
