"""Outputs that are URLs: a command works in a folder of this machine, and what it makes goes up as it is made."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ..storage.working_copy import WorkingCopy

Command = TypeVar("Command", bound=Callable[..., Any])


def may_be_urls(*names: str, whole: bool = False) -> Callable[[Command], Command]:
    """Let the arguments `names` of a command, which are folders to write to, be URLs.

    With `whole` the files stay complete on this machine as long as the command works (see `storage.working_copy`).
    """

    def extend(command: Command) -> Command:
        @functools.wraps(command)
        def call(*args: Any, **options: Any) -> Any:
            from ..errors import CardError
            from ..runtime.stand_ins import told
            from ..storage.remote import is_remote

            bound = inspect.signature(command).bind(*args, **options)
            given = bound.arguments
            urls = {name: Path(given[name]) for name in names if given.get(name) and is_remote(Path(given[name]))}
            if not urls:
                return command(*args, **options)
            if given.get("engine") == "ray":
                raise CardError(
                    "the workers of a cluster write to a folder that all of them see, not to a URL",
                    "give a shared folder, and copy it when it is done",
                )
            from ..storage.working_copy import WorkingCopy

            title, shard, sheet = command.__name__.replace("_", "-"), given.get("shard"), bool(given.get("sheet"))
            with contextlib.ExitStack() as stack:
                for name, url in urls.items():
                    copy = WorkingCopy(url, whole, shard, sheet)
                    given[name] = stack.enter_context(_working(copy, title, shard, bool(given.get("dry_run"))))
                returned = command(*bound.args, **bound.kwargs)
                return Path(told(returned)) if isinstance(returned, Path) else told(returned)

        return call  # type: ignore[return-value]

    return extend


@contextlib.contextmanager
def _working(copy: WorkingCopy, command: str, shard: str | None, dry: bool) -> Iterator[Path]:
    """Give the folder of a working copy; with `dry` nothing is asked or written in the store."""
    from ..errors import CardError, FacekitError
    from ..runtime.stand_ins import URLS, told
    from ..storage import lock, remote

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CardError(
            f"several processes cannot write to {remote.address(copy.url)}",
            "give a folder, and copy it when it is done",
        )
    URLS[str(copy.root)] = remote.address(copy.top)
    try:
        if dry:
            yield copy.here
        else:
            with lock.held(copy.here, command), copy.following(command, shard):
                yield copy.here
    except FacekitError as error:
        error.message, error.hint = told(error.message), told(error.hint)
        error.args = (error.message,)
        raise
    finally:
        del URLS[str(copy.root)]
