"""How often a host is contacted: one rate for all threads."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable


class RateLimiter:
    """Lets at most `rate` requests a second go to each host, evenly spaced; a host can ask for a longer pause."""

    def __init__(self, rate: float, clock: Callable[[], float], sleep: Callable[[float], None]):
        self.gap = 1 / rate  # s
        self.clock, self.sleep = clock, sleep
        self.lock = threading.Lock()
        self.next_free: dict[str, float] = defaultdict(float)  # when the next request may go
        self.paused_until: dict[str, float] = defaultdict(float)

    def wait(self, host: str) -> None:
        """Sleep until a request may go to the host."""
        while True:
            with self.lock:
                now = self.clock()
                turn = max(self.next_free[host], self.paused_until[host], now)
                self.next_free[host] = turn + self.gap
            if turn > now:
                self.sleep(turn - now)
            if self.paused_until[host] <= max(turn, self.clock()):
                return

    def pause(self, host: str, seconds: float) -> None:
        """Send nothing to the host for so long, not even requests that have a turn already."""
        with self.lock:
            self.paused_until[host] = max(self.paused_until[host], self.clock() + seconds)
