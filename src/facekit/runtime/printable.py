"""Text that is safe to print: names and messages from outside cannot control a terminal or forge a line."""

from __future__ import annotations

import re

# C0 and C1 controls (ANSI escapes), lone surrogates, line separators, and marks that reorder text
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escaped(json_text: str) -> str:
    """Return JSON with the control characters in its strings as JSON's own escapes: every reader sees the same."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text)


def printable(text: str, one_line: bool = False) -> str:
    """Return text with control characters written as escapes, such as `\\x1b`.

    Tabs and line feeds stay, the latter unless `one_line`.
    """
    text = CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
    return text.replace("\n", "\\n") if one_line else text
