"""Presets of tags: the four expressions of Rao et al., one folder each.

The paper takes the tags angry, sad, smile and surprised (section 5.2) and counts 1615, 1138, 3370 and 1183 faces;
it calls the second
set `crying`, which on the boards is a tag of its own and can be asked for instead of `sad`.
"""

from __future__ import annotations

from ..errors import CardError

PAPER = ("angry", "sad", "smile", "surprised")
EXPRESSIONS = (*PAPER, "crying")
COLOURLESS = ("monochrome", "greyscale", "comic")  # the paper takes colour pictures of one face


def labels(text: str) -> tuple[str, ...]:
    """Read `all` (the paper's four) or names with commas between; raises CardError for what is no preset."""
    from ..storage import card

    found = tuple(dict.fromkeys(PAPER if text == "all" else [w.strip() for w in text.split(",") if w.strip()]))
    for name in found:
        if name not in EXPRESSIONS:
            raise CardError(
                f"--expression {name!r} is no preset{card.suggest(name, EXPRESSIONS)}", "--expression all takes four"
            )
    if not found:
        raise CardError("--expression is empty", "--expression all, or for example --expression smile,angry")
    return found


def others(label: str, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tags that an image of `label` must not have: other expressions would make its label ambiguous."""
    four = chosen if "crying" in chosen and "sad" not in chosen else PAPER
    return tuple(name for name in dict.fromkeys((*four, *chosen)) if name != label) + COLOURLESS
