"""What can go wrong with one request."""

from __future__ import annotations

from ..errors import InputError


class FetchError(InputError):
    """A request that failed. `again` says whether to retry.

    `stage` is what failed (address, connect, http, size, content, page), `status` the HTTP status if there was one.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, stage: str = "http", again: bool = False, status: int = 0
    ):
        super().__init__(message, hint)
        self.stage, self.again, self.status = stage, again, status


class AddressRefused(FetchError):
    """An address that facekit does not contact."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message, hint, stage="address")


class Stopped(Exception):
    """The crawl is stopping; requests under way are abandoned."""
