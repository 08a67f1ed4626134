"""`facekit env`: what a bug report needs, and nothing private."""

import getpass
import json
import os
import platform
import re
from pathlib import Path

import torch

import facekit as package
from facekit.runtime import environment

PYPROJECT = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")


def test_it_prints_versions_device_threads_models_and_folders(facekit):
    found = json.loads(facekit("env", "--json").out)
    assert found["versions"]["facekit"] == package.__version__
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["machine"]["threads"].startswith(f"{torch.get_num_threads()} ")
    assert "anime" in found["models"]["shipped weights"]
    text = facekit("env").out
    assert all(str(value) in text for section in ("versions", "machine") for value in found[section].values())


def test_it_keeps_user_and_host_to_itself(facekit, monkeypatch, tmp_path):
    home = tmp_path / "somebody"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FACEKIT_CACHE", str(home / "cache"))
    text = facekit("env").out
    assert str(home) not in text and f"~{os.sep}cache" in text
    assert not re.search(rf"\b{re.escape(platform.node())}\b", text)
    assert f"/{getpass.getuser()}/" not in text


def test_it_names_every_package_that_facekit_depends_on():
    block = PYPROJECT.partition("\ndependencies = [")[2].partition("\n]")[0]
    assert sorted(environment.PACKAGES) == sorted(re.findall(r'"([\w-]+)', block))
