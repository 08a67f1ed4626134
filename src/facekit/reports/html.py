"""HTML pages from the Jinja2 templates in `templates/`; every value is escaped, control characters too."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from ..runtime.printable import printable
from ..storage import files

TEMPLATES = Path(__file__).parent / "templates"


def link(name: str) -> str:
    """Return a file name as the relative address of a link; bytes that are not UTF-8 are kept."""
    return quote(name, errors="surrogateescape")


def _shown(value: Any) -> Any:
    """Return a value as a page shows it: names of files and errors may hold control characters."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["link"] = link
    return environment


def render(template: str, **values: Any) -> str:
    """Render `templates/TEMPLATE` with the values; a value that is missing is an error.

    Templates extend `page.html`, which takes `title` and has the blocks `head`, `style` and `body`; the filter `link`
    turns a file name into an address.
    """
    return _environment().get_template(template).render(**values)


def write(path: Path, template: str, **values: Any) -> None:
    """Render a page and write it atomically; see `render`."""
    files.write_text(path, render(template, **values))
