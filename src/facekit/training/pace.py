"""The speed of a training run, and the time that it still needs."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Pace:
    """Progress and speed of a run; timing starts after the first step since the (re)start, which is slow."""

    steps: int
    step: int = 0
    timed: int = 0
    began: float | None = None
    seconds: float = 0.0

    def reach(self, step: int) -> None:
        """Record that `step` steps are done."""
        now = time.monotonic()
        self.step = step
        if self.began is None:
            self.began = now
        else:
            self.timed += 1
            self.seconds = now - self.began

    @property
    def seconds_per_step(self) -> float | None:
        """Mean time of a step in seconds, saving included; None before the second step."""
        return self.seconds / self.timed if self.timed else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest of the run takes at this speed; None before the second step."""
        return None if self.seconds_per_step is None else self.seconds_per_step * (self.steps - self.step)
