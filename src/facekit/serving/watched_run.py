"""What a page shows of a run folder while it trains; reads only, and of the log only what is new."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from pathlib import Path
from typing import Any

from ..errors import CardError, InputError
from ..storage import card, lock
from ..training.run_page import LOG, PREVIEWS, PROGRESS, SCORES


class GrowingLines:
    """The objects in a JSON Lines file that grows; `generation` rises where the file was written anew."""

    def __init__(self, path: Path):
        self.path, self.generation = path, 0
        self.rows: list[dict[str, Any]] = []
        self._file: tuple[int, int] | None = None
        self._read = 0

    def update(self) -> None:
        """Read the lines that are complete since the last time."""
        try:
            with self.path.open("rb") as file:
                found = os.fstat(file.fileno())
                if self._file != (found.st_dev, found.st_ino) or found.st_size < self._read:
                    self._restart((found.st_dev, found.st_ino))
                file.seek(self._read)
                data = file.read()
        except OSError:
            if self._file is not None:
                self._restart(None)
            return
        whole = data.rfind(b"\n") + 1
        self._read += whole
        for line in data[:whole].splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(line.decode("utf-8", "replace"))
                if isinstance(row, dict) and isinstance(row.get("step"), int):
                    self.rows.append(row)

    def _restart(self, file: tuple[int, int] | None) -> None:
        self.rows, self._read, self._file = [], 0, file
        self.generation += 1


class WatchedRun:
    """One run folder. Raises InputError for a folder in which nothing was trained."""

    def __init__(self, folder: Path):
        self.folder = folder
        if self._card() is None:
            raise InputError(
                f"{folder} is no run folder: it has no {card.NAME} and no {card.UNFINISHED}",
                "give the folders that `facekit train` writes, such as runs/*",
            )
        self.losses, self.scores = GrowingLines(folder / LOG), GrowingLines(folder / SCORES)

    def previews(self) -> list[int]:
        """Return the steps of which there are previews, in order."""
        return sorted(int(path.stem) for path in self.folder.glob(PREVIEWS))

    def preview(self, step: int) -> Path:
        """Return where the preview of a step is."""
        return self.folder / "previews" / f"{step:08d}.png"

    def read(self, have: tuple[int, int]) -> dict[str, Any]:
        """Return the state of the run: its card's name and text, progress, memory, scores, steps of previews.

        `have` is (generation, number of rows) of the losses that the caller has; "losses" are those after them, or
        all where the log was written anew.
        """
        self.losses.update()
        self.scores.update()
        values, done = self._card() or ({}, False)
        progress = self._progress()
        generation, count = have
        start = count if generation == self.losses.generation else 0
        step = max([progress.get("step") or 0, *(row["step"] for row in self.losses.rows[-1:])])
        steps = progress.get("steps") or (values.get("run") or {}).get("steps")
        memory = None if done else self._memory()
        pace = progress.get("seconds_per_step")
        return {
            "name": self.folder.name or str(self.folder),
            "recipe": Path(str(values.get("recipe", ""))).stem,
            "state": "finished" if done else "running" if memory is not None else "stopped",
            "step": step,
            "steps": steps,
            "seconds_per_step": pace,
            "seconds_left": pace * max(0, steps - step) if pace and steps and memory is not None else None,
            "memory": memory,
            "generation": self.losses.generation,
            "start": start,
            "losses": [{"step": row["step"], "losses": row.get("losses")} for row in self.losses.rows[start:]],
            "scores": [{"step": row["step"], "scores": row.get("scores")} for row in self.scores.rows],
            "previews": self.previews(),
            "card": card.dump(values),
        }

    def _card(self) -> tuple[dict[str, Any], bool] | None:
        """Return the card's values and whether the run is finished; None where there is no card."""
        for name, done in ((card.UNFINISHED, False), (card.NAME, True)):
            with contextlib.suppress(CardError, InputError):
                if (self.folder / name).exists():
                    values = card.load(self.folder / name)
                    values.pop("made", None)
                    return values, done
        return None

    def _progress(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _memory(self) -> float | None:
        """Return the GiB that the process of the run holds, 0 where it is on another machine; None where none runs."""
        try:
            who = json.loads((self.folder / lock.NAME).read_text(encoding="utf-8"))
            process, host = int(who["process"]), who["host"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if host != platform.node():
            return 0.0
        try:
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return None if Path("/proc/self").exists() else 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
