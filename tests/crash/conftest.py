"""Kills a command at every place where it changes a file, lets it continue, and compares with an undisturbed run."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PLACES = int(os.environ.get("FACEKIT_CRASH_PLACES", "8"))  # at most, of one command; .ci/run asks for 50
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
TIMES = re.compile(rb'"time": "[^"]*"|"(source_)?ctime": \d+')
MOMENTS = ("argv", "start", "end", "last_start", "requests")  # what a card notes of one run


class Places:
    """Counts the changes of files below a folder, in this process, and dies at the `fatal`-th (never at 0).

    A rename counts twice: the process may die before it and right after.
    """

    def __init__(self, top: Path, fatal: int):
        self.top, self.fatal, self.count, self.process = os.path.realpath(top), fatal, 0, os.getpid()
        sys.addaudithook(self.seen)
        for name in ("rename", "replace"):
            setattr(os, name, self.with_a_place_after(getattr(os, name)))

    def seen(self, event: str, arguments: tuple) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            self.passed(arguments[1] if event == "os.rename" else arguments[0])

    def passed(self, path: object) -> None:
        if os.getpid() != self.process or not isinstance(path, str | bytes | os.PathLike):
            return
        if os.path.abspath(os.fsdecode(path)).startswith(self.top):
            self.count += 1
            if self.count == self.fatal:
                os.kill(self.process, signal.SIGKILL)

    def with_a_place_after(self, function: Callable) -> Callable:
        def call(source, target, **more):
            function(source, target, **more)
            self.passed(target)

        return call


def _run(top: Path, fatal: int, arguments: list[str], answer) -> None:
    """Run a command in a forked child; its exit code and the number of places are the answer."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(os.open(str(top / "../log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    from facekit.cli import app

    places = Places(top, fatal)
    try:
        app(arguments, prog_name="facekit")
        code = 0
    except SystemExit as done:
        code = done.code
    answer.send((code, places.count))
    answer.close()
    os._exit(0)


def snapshot(top: Path, ignore: tuple[str, ...]) -> dict[str, object]:
    """Return what a command left: every file by name, without times; of JSON lines the set."""
    import yaml

    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        name = path.relative_to(top).as_posix()
        if path.is_dir() or name.endswith(ignore):
            continue
        data = path.read_bytes()
        if path.suffix == ".yaml":
            values = yaml.safe_load(data)
            made = values.pop("made", {})
            found[name] = values, {key: value for key, value in made.items() if key not in MOMENTS}
        elif path.suffix == ".jsonl":
            lines = TIMES.sub(b"", data).split(b"\n")
            assert lines[-1] == b"", f"{name} ends in half a line"
            for line in filter(None, data.split(b"\n")):
                json.loads(line)
            found[name] = sorted(lines)
        elif path.name == "state.pt":  # equal states may differ in how they are packed
            import torch

            found[name] = _plain(torch.load(path, weights_only=True))
        else:
            found[name] = data
    return found


def _plain(value: object) -> object:
    """Return a state with its tensors as lists."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.fixture
def survives(tmp_path, facekit, monkeypatch):
    """Checks that a command can be killed anywhere, at up to PLACES places; returns how many places there are.

    `prepare` fills a folder, `command` are the arguments of facekit with that folder as the working folder. `exit` is
    the exit code of a whole run, `ignore` the endings of files that may differ.
    """
    fork = multiprocessing.get_context("fork")

    def once(top: Path, fatal: int, command: list[str]) -> tuple[int | None, int]:
        listener, answer = fork.Pipe(duplex=False)
        child = fork.Process(target=_run, args=(top, fatal, command, answer))
        before = os.getcwd()
        os.chdir(top)
        try:
            child.start()
        finally:
            os.chdir(before)
        answer.close()
        child.join(120)
        try:
            return listener.recv()
        except EOFError:
            assert child.exitcode == -signal.SIGKILL, (top / "../log").read_text()
            return None, fatal

    def check(prepare: Callable[[Path], None], *command: object, exit: int = 0, ignore: tuple[str, ...] = ()) -> int:
        arguments = [str(a) for a in command]
        start, whole = tmp_path / "start", tmp_path / "whole"
        start.mkdir()
        prepare(start)
        shutil.copytree(start, tmp_path / "first")
        monkeypatch.chdir(tmp_path / "first")
        facekit(*command)  # the children inherit what it imports
        shutil.copytree(start, whole)
        code, count = once(whole, 0, arguments)
        assert code == exit, (tmp_path / "log").read_text()
        expected = snapshot(whole, ignore)
        fatal = range(1, count + 1)
        chosen = fatal if count <= PLACES else sorted(random.Random(0).sample(fatal, PLACES))
        for place in chosen:
            top = tmp_path / "killed"
            shutil.copytree(start, top)
            assert once(top, place, arguments)[0] is None, f"was not killed at place {place} of {count}"
            code, _ = once(top, 0, arguments)
            said = (tmp_path / "log").read_text()
            assert code == exit, f"exit {code} after a kill at place {place} of {count}: {said}"
            found = snapshot(top, ignore)
            assert found.keys() == expected.keys(), f"other files after a kill at place {place} of {count}"
            different = [name for name in expected if found[name] != expected[name]]
            assert not different, f"{different} differ after a kill at place {place} of {count}"
            shutil.rmtree(top)
        return count

    return check
