"""Keeps libraries that print, log and warn as they please off the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Send what Python and C++ write to standard output and error in the block nowhere; errors are raised as ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    before, nowhere = logging.root.manager.disable, os.open(os.devnull, os.O_WRONLY)
    kept = {number: os.dup(number) for number in (1, 2)}
    logging.disable(logging.WARNING)
    try:
        for number in kept:
            os.dup2(nowhere, number)
        with contextlib.redirect_stdout(None), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, old in kept.items():
            os.dup2(old, number)
            os.close(old)
        os.close(nowhere)
        logging.disable(before)
