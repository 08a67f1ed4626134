"""How often a host is asked: one pace for all threads."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable


class Pace:
    """Lets at most `rate` requests a second go to each host, evenly; a host that asks for a pause gets it."""

    def __init__(self, rate: float, clock: Callable[[], float], sleep: Callable[[float], None]):
        self.gap = 1 / rate  # s
        self.clock, self.sleep = clock, sleep
        self.lock = threading.Lock()
        self.free: dict[str, float] = defaultdict(float)  # when the next request may go
        self.held: dict[str, float] = defaultdict(float)  # nothing goes before

    def wait(self, host: str) -> None:
        """Sleep until a request may go to the host."""
        while True:
            with self.lock:
                now = self.clock()
                turn = max(self.free[host], self.held[host], now)
                self.free[host] = turn + self.gap
            if turn > now:
                self.sleep(turn - now)
            if self.held[host] <= max(turn, self.clock()):
                return

    def hold(self, host: str, seconds: float) -> None:
        """Send nothing to the host for so long, not even what has its turn already."""
        with self.lock:
            self.held[host] = max(self.held[host], self.clock() + seconds)
