"""What pyproject.toml can't say: examples/ go into the wheel as facekit/examples, and URLs are the clone's own."""

import re
import shutil
import subprocess
from email.parser import HeaderParser
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


def urls() -> dict[str, str]:
    """Return where the source lies: what an sdist noted, or the public address that this checkout was cloned from."""
    noted = Path("PKG-INFO")
    if noted.is_file():
        lines = HeaderParser().parsestr(noted.read_text(encoding="utf-8")).get_all("Project-URL", [])
        return dict(line.split(", ", 1) for line in lines)
    if not Path(".git").exists():  # git would ask the folders above
        return {}
    try:
        origin = subprocess.run(["git", "remote", "get-url", "origin"], capture_output=True, text=True).stdout.strip()
    except OSError:
        return {}
    found = re.fullmatch(
        r"(?:https://|ssh://|)(?:[^/@]*@)?([\w-]+(?:\.[\w-]+)*\.[a-z]+)(?:/|:(?!\d))(.+?)(?:\.git)?/?", origin
    )
    if not found:
        return {}
    source = f"https://{found[1]}/{found[2]}"
    return {"Source": source, "Issues": f"{source}/issues"}


setup(cmdclass={"build_py": BuildWithExamples}, project_urls=urls())
