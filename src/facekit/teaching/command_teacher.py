"""Any program as a teacher: a command line that reads one image file and writes another."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path

from PIL import Image

from ..errors import CardError, InputError, MissingError
from ..storage import images
from .teachers import SIZE, Drawn

IN, OUT = "{in}", "{out}"
LAST = 300  # characters of what a failed command printed that are kept
POSIX = os.name == "posix"


class CommandTeacher:
    """Runs `template` once for each face, with `{in}` and `{out}` replaced by the names of two PNG files.

    The line is split into words as a shell would, but no shell runs it: names with spaces or quotes are safe. `batch`
    commands run side by side; one that takes more than `timeout` seconds is ended with all processes it started.
    Raises CardError for a template without both places, MissingError where there is no such program.
    """

    def __init__(self, template: str, size: int | None = None, timeout: float = 600, workers: int = 1):
        try:
            self.words = shlex.split(template, posix=POSIX)
        except ValueError as error:
            raise CardError(f"--teacher-command cannot be split into words: {error}", "close the quotes") from error
        for place in (IN, OUT):
            if not any(place in word for word in self.words):
                hint = f"write {place} where the name of the file belongs: 'python my_edit.py {IN} {OUT}'"
                raise CardError(f"--teacher-command has no {place}", hint)
        if shutil.which(self.words[0]) is None:
            raise MissingError(f"--teacher-command: no program {self.words[0]!r}", "check its name, or give its path")
        self.size, self.batch, self.timeout = size or SIZE, max(1, workers), timeout
        self.inputs = dict[str, str]()
        self._running: set[subprocess.Popen] = set()
        self._lock, self._stopped = threading.Lock(), False

    def draw(self, names: Sequence[str], faces: Sequence[Image.Image]) -> list[Drawn]:
        pool = futures.ThreadPoolExecutor(self.batch)
        try:
            return list(pool.map(self._one, faces))
        except BaseException:  # Ctrl-C: the commands end with us
            with self._lock:
                self._stopped = True
                for process in self._running:
                    _end(process)
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _one(self, face: Image.Image) -> Drawn:
        with tempfile.TemporaryDirectory(prefix="facekit-") as folder:
            given, made, log = Path(folder) / "in.png", Path(folder) / "out.png", Path(folder) / "log.txt"
            given.write_bytes(images.encode(face))
            words = [word.replace(IN, str(given)).replace(OUT, str(made)) for word in self.words]
            try:
                code = self._run(words, log)
                if code != 0:
                    return _failure(f"the teacher's command ended with exit code {code}{_tail(log)}")
                return images.read(made) if made.is_file() else _failure(f"the command wrote no {OUT}{_tail(log)}")
            except subprocess.TimeoutExpired:
                return _failure(f"the teacher's command took more than {self.timeout:g} seconds")
            except InputError as error:
                return _failure(f"the teacher's command wrote no readable image: {error.message}")
            except OSError as error:
                return _failure(f"the teacher's command cannot be run: {error.strerror}")

    def _run(self, words: list[str], log: Path) -> int:
        with log.open("wb") as printed:
            with self._lock:
                if self._stopped:
                    raise OSError(0, "stopped")
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, start_new_session=POSIX
                )
                self._running.add(process)
            try:
                return process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                _end(process)
                process.wait()
                raise
            finally:
                with self._lock:
                    self._running.discard(process)


def _end(process: subprocess.Popen) -> None:
    """End a command with the processes that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if POSIX:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _tail(log: Path) -> str:
    text = " ".join(log.read_text(encoding="utf-8", errors="replace").split())
    return f": {text[-LAST:]}" if text else ""


def _failure(reason: str) -> InputError:
    error = InputError(reason)
    error.stage = "teacher"  # type: ignore[attr-defined]
    return error
