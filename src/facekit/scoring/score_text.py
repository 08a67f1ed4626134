"""Scores as text for a terminal."""

from __future__ import annotations

from typing import Any

FIGURES = ("precision-", "recall-", "density-", "coverage-", "IoU-", "landmark-", "colour-", "identity-", "unchanged")
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
    rows = [
        (f"FID-{unit}", number(result[f"FID-{unit}"]), ""),
        (f"KID-{unit} (x1)", value, f"{of}, seed {kid['seed']}"),
    ]
    for name in result:
        if name.startswith((*FIGURES, *TRUTH)) and not name.endswith(" std"):
            std = result.get(f"{name} std")
            rows.append((name, number(result[name]) + ("" if std is None else f" ± {number(std)}"), ""))
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
    return "\n".join(f"{a:{first}}  {b:{second}}  {c}".rstrip() for a, b, c in rows)


def by_label(result: dict[str, Any]) -> str:
    """Return the result of `by_label.score` as a table: a row per label, then their mean."""
    mean = {key: value for key, value in result.items() if key != "labels"}
    cells = [["", *mean, "images"]]
    for name, scores in {**result["labels"], "mean": mean}.items():
        counts = scores.get("images")
        values = [number(scores[key], 5 if key.startswith("KID") else 3) for key in mean]
        cells.append([name, *values, f"{counts['out']} against {counts['reference']}" if counts else ""])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def number(value: float, digits: int = 3) -> str:
    """Return a figure with so many digits; zero has no sign."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text
