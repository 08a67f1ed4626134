"""What the Python functions report in a Jupyter notebook: notes as text, a progress line that is updated in place."""

from __future__ import annotations

import sys

from .console import Bar, LineBar, Reporter, duration, figures_text
from .printable import printable


def is_here() -> bool:
    """Whether this process runs a notebook's cells; imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookBar(LineBar):
    """One line below the cell."""

    pause = 0.5

    def __init__(self, title: str, total: int, done: int = 0):
        super().__init__(title, total, done)
        from IPython.display import display

        self.handle = display(self.line(), raw=True, display_id=True)

    def line(self) -> dict[str, str]:
        """Return how far the job is, as a notebook shows it."""
        left = f"  {duration(self.left)} left" if self.left and self.done < self.total else ""
        rate = f"  {self.rate:.3g}/s  {figures_text(self.figures)}" if self.done > self.first else ""
        return {"text/plain": printable(f"{self.title} {self.done}/{self.total}{left}{rate}".rstrip(), one_line=True)}

    def say(self) -> None:
        self.handle.update(self.line(), raw=True)

    def close(self) -> None:
        self.say()


class Notebook(Reporter):
    """Notes, warnings and progress below the cell. Results are what functions return."""

    def note(self, text: str) -> None:
        print(printable(text), flush=True)

    def warn(self, text: str) -> None:
        print(f"warning: {printable(text, one_line=True)}", flush=True)

    def bar(self, title: str, total: int, done: int = 0) -> Bar:
        return NotebookBar(title, total, done)
