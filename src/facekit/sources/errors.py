"""What can go wrong with one request."""

from __future__ import annotations

from ..errors import InputError


class Fault(InputError):
    """A request that has not given what it should: `again` says whether a second try may help.

    `stage` is what failed (address, connect, http, size, content, page), `status` the HTTP status if there was one.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, stage: str = "http", again: bool = False, status: int = 0
    ):
        super().__init__(message, hint)
        self.stage, self.again, self.status = stage, again, status


class Refused(Fault):
    """An address that must not be asked."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message, hint, stage="address")


class Stopped(Exception):
    """The crawl is being stopped; what is under way is given up."""
