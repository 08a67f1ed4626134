"""Scores as text for a terminal."""

from __future__ import annotations

from typing import Any

FIGURES = (
    "CMMD",
    "SWD",
    "precision-",
    "recall-",
    "density-",
    "coverage-",
    "IoU-",
    "landmark-",
    "colour-",
    "identity-",
    "unchanged",
)
EXTRA = (" std", " low", " high")  # of a figure
TRUTH = ("PSNR", "SSIM", "VGG-distance")


def of_pair(result: dict[str, Any]) -> str:
    """Return the result of `Scorer.score` as lines of name, value and remark; KID's unit stands in its name."""
    kid, described, counts = result["kid"], result["features"], result["images"]
    unit = next(key for key in result if key.startswith("FID-")).partition("-")[2]
    deviation = result.get(f"KID-{unit} std")
    of = f"{kid['subsets']} subsets of {kid['subset_size']}" if kid["subsets"] > 1 else "all images at once"
    if deviation is not None and kid["spread_size"] != kid["subset_size"]:
        of += f"; deviation over {kid['spread_subsets']} subsets of {kid['spread_size']}"
    value = number(result[f"KID-{unit}"], 5) + ("" if deviation is None else f" ± {number(deviation, 5)}")
    value += _interval(result, f"KID-{unit}", 5)
    rows = [
        (f"FID-{unit}", number(result[f"FID-{unit}"]), ""),
        (f"KID-{unit} (x1)", value, f"{of}, seed {kid['seed']}"),
    ]
    for name in result:
        if name.startswith((*FIGURES, *TRUTH)) and not name.endswith(EXTRA):
            std = result.get(f"{name} std")
            text = number(result[name]) + ("" if std is None else f" ± {number(std)}") + _interval(result, name)
            rows.append((name, text, ""))
    if "pairs" in result:
        rows.append(("pairs", str(result["pairs"]), "of source and translation"))
    if "truths" in result:
        rows.append(("truths", str(result["truths"]), "of right answer and output"))
    rows += [
        ("images", f"{counts['out']} against {counts['reference']}", ""),
        ("features", described["name"], f"{described['dimension']}-d"),
        ("preprocessing", described["preprocessing"], ""),
    ]
    first, second = (max(len(row[i]) for row in rows if row[0] != "preprocessing") for i in (0, 1))
    first = max(first, len("preprocessing"))
    lines = [f"{a:{first}}  {b:{second}}  {c}".rstrip() for a, b, c in rows]
    return "\n".join(lines + [line for kind in result.get("groups", {}) for line in ["", *_groups(result, kind)]])


def _groups(result: dict[str, Any], kind: str) -> list[str]:
    """Return the scores of the groups of a kind as lines of a table: a row per measure, a column per group, the gap."""
    groups, gaps = result["groups"][kind], result["gaps"][kind]
    cells = [[kind, *groups, "gap"], ["images", *(str(one["images"]) for one in groups.values()), ""]]
    for name, gap in gaps.items():
        digits = 5 if name.startswith("KID") else 3
        values = (number(one[name], digits) + _interval(one, name, digits) for one in groups.values())
        cells.append([name, *values, number(gap, digits)])
    return _aligned(cells)


def _interval(scores: dict[str, Any], name: str, digits: int = 3) -> str:
    """Return the 95 % interval of a figure, if there is one."""
    low, high = scores.get(f"{name} low"), scores.get(f"{name} high")
    return "" if low is None or high is None else f" ({number(low, digits)} to {number(high, digits)})"


def by_label(result: dict[str, Any]) -> str:
    """Return the result of `by_label.score` as a table: a row per label, then their mean."""
    mean = {key: value for key, value in result.items() if key != "labels"}
    cells = [["", *mean, "images"]]
    for name, scores in {**result["labels"], "mean": mean}.items():
        counts = scores.get("images")
        values = [number(scores[key], 5 if key.startswith("KID") else 3) for key in mean]
        cells.append([name, *values, f"{counts['out']} against {counts['reference']}" if counts else ""])
    return "\n".join(_aligned(cells))


def _aligned(cells: list[list[str]]) -> list[str]:
    """Return the rows of a table as lines with columns under each other."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def number(value: float, digits: int = 3) -> str:
    """Return a figure with so many digits; zero has no sign."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text
