"""The Makefile that trains an ablation's runs; `make -j N` trains several at a time."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

FIRST = "# Trains the runs of an ablation planned by facekit."
HEAD = """
# Run it from the folder where it was planned: make -j 2 -f THIS_FILE. Each job gets its share of the cores.
FACEKIT ?= facekit
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)
JOBS = $(if $(filter -j,$(MAKEFLAGS)),$(CORES),$(or $(patsubst -j%,%,$(filter -j%,$(MAKEFLAGS))),1))
THREADS ?= $$(( $(CORES) > $(JOBS) ? $(CORES) / $(JOBS) : 1 ))

all:"""


def makefile(runs: Sequence[tuple[str, str]], recipes: Sequence[str] = ()) -> str:
    """Return a Makefile that trains the runs, given as pairs of card and run folder.

    `recipes` are the recipe files that the runs are trained with, or "" for installed recipes.
    """
    targets = "".join(f" \\\n\t{_target(folder + '/card.yaml')}" for _, folder in runs)
    rules = []
    for (path, folder), recipe in zip(runs, recipes or [""] * len(runs), strict=True):
        words = [*filter(None, [recipe]), "--card", path, "--out", folder]
        rules.append(
            f"{_target(folder + '/card.yaml')}: {_target(path)}\n"
            f"\tOMP_NUM_THREADS=$(THREADS) $(FACEKIT) train {' '.join(map(_word, words))}\n"
        )
    return f"{FIRST}{HEAD}{targets}\n\n" + "\n".join(rules) + "\n.PHONY: all\n"


def _target(path: str) -> str:
    """Escape a path for a rule of make."""
    return re.sub(r"([ #:%\\])", r"\\\1", path).replace("$", "$$")


def _word(path: str) -> str:
    """Escape a path for a shell command in a Makefile."""
    return shlex.quote(path).replace("$", "$$")
