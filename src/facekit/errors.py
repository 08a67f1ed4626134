"""Errors that a user can act on, one documented exit code each."""


class FacekitError(Exception):
    """Something went wrong that has a next step: `message` says what and where, `hint` what to do."""

    code = 1

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint


class CardError(FacekitError):
    """A card, a flag or a combination of them that cannot be used."""

    code = 2


class InputError(FacekitError):
    """An input that is missing, empty or unreadable."""

    code = 3


class OutputError(FacekitError):
    """An output that cannot be written: read-only place, full disk, a file where a folder should be."""

    code = 3


class SomeFailed(FacekitError):
    """The work is finished, but some images failed; `failed.jsonl` names them."""

    code = 4


class MissingError(FacekitError):
    """Weights or an optional package that is not here."""

    code = 5


class Diverged(FacekitError):
    """Training met a loss that is not finite."""

    code = 6


class OutOfMemory(FacekitError):
    """The run does not fit into memory."""

    code = 7


class Interrupted(FacekitError):
    """Stopped by SIGINT or SIGTERM after saving."""

    code = 130
