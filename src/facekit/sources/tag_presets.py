"""Presets of tags: four expressions, each into a folder of its own.

They are those of Rao et al., "Facial expression transformation for anime-style image based on decoder control and
attention mask" (section 5.2): angry, sad, smile and surprised. The paper also calls its second set "crying", which on
boards is a tag of its own and can be chosen instead of `sad`.
"""

from __future__ import annotations

from ..errors import CardError

FOUR = ("angry", "sad", "smile", "surprised")
EXPRESSIONS = (*FOUR, "crying")
COLOURLESS = ("monochrome", "greyscale", "comic")


def labels(text: str) -> tuple[str, ...]:
    """Read `all` (FOUR) or names separated by commas; raises CardError for an unknown name."""
    from ..storage import card

    found = tuple(dict.fromkeys(FOUR if text == "all" else [w.strip() for w in text.split(",") if w.strip()]))
    for name in found:
        if name not in EXPRESSIONS:
            raise CardError(
                f"--expression {name!r} is not a preset{card.suggest(name, EXPRESSIONS)}",
                "--expression all takes the four",
            )
    if not found:
        raise CardError("--expression is empty", "--expression all, or for example --expression smile,angry")
    return found


def others(label: str, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tags that exclude an image of `label`: other expressions, which make its label ambiguous."""
    four = chosen if "crying" in chosen and "sad" not in chosen else FOUR
    return tuple(name for name in dict.fromkeys((*four, *chosen)) if name != label) + COLOURLESS
