"""How fast a run trains, and how long it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Pace:
    """Steps done of `steps`, timed from the end of the first one of this start: that one warms up."""

    steps: int
    step: int = 0
    timed: int = 0
    began: float | None = None
    seconds: float = 0.0

    def reach(self, step: int) -> None:
        """Note that `step` steps are done."""
        now = time.monotonic()
        self.step = step
        if self.began is None:
            self.began = now
        else:
            self.timed += 1
            self.seconds = now - self.began

    @property
    def seconds_per_step(self) -> float | None:
        """The mean time of a step, saving included; None before the second step."""
        return self.seconds / self.timed if self.timed else None

    @property
    def seconds_left(self) -> float | None:
        """The time that the rest of the run takes at this pace; None before the second step."""
        return None if self.seconds_per_step is None else self.seconds_per_step * (self.steps - self.step)
