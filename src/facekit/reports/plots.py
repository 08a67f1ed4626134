"""Plots of losses and scores, drawn by matplotlib without a display."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..storage import files

Log = Sequence[Mapping[str, Any]]  # the lines of a log.jsonl: {"step": 50, "losses": {"cycle": 0.2}}
Points = Sequence[tuple[float, float]]
LEFT, RIGHT, BOTTOM, TOP = 0.75, 0.15, 0.5, 0.3  # margins of a panel in inches: matplotlib takes seconds to find them
LETTER = 0.085  # inches of a letter in a legend, at most
FEW = 30  # points that are drawn as dots too: a line of one point is invisible


def losses(path: Path, log: Log) -> None:
    """Draw every term of one run over its steps; on a logarithmic scale where all are positive and ten times apart."""
    terms = _terms([log])
    figure, (axes,) = _panels(1, 9, 4.5, legend=0.6 + LETTER * max(map(len, terms), default=0))
    for name in terms:
        points = _points(log, name)
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1, marker=_marker(points))
    values = [value for row in log for value in row["losses"].values() if value is not None]
    if values and 0 < 10 * min(values) <= max(values):
        _logarithmic(axes)
    axes.set_xlabel("step")
    axes.set_title("loss, unweighted", fontsize=10, loc="left")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _write(figure, path)


def losses_compared(path: Path, logs: Mapping[str, Sequence[Log]]) -> bool:
    """Draw a panel per term, a colour per name and a line per log; returns False where no log holds a term."""
    terms = _terms(log for several in logs.values() for log in several)
    lines = {term: {name: [_points(log, term) for log in several] for name, several in logs.items()} for term in terms}
    return compared(path, lines)


def compared(
    path: Path,
    panels: Mapping[str, Mapping[str, Sequence[Points]]],
    levels: Mapping[str, tuple[float, str]] | None = None,
    across: str = "",
) -> bool:
    """Draw a panel per title, a colour per name and a line per series of points (x, y); returns False without panels.

    A dashed line stands at a panel's `levels` (value, label); `across` names the horizontal axis.
    """
    if not panels:
        return False
    figure, axes = _panels(len(panels))
    for panel, (title, names) in zip(axes, panels.items(), strict=True):
        for index, (name, several) in enumerate(names.items()):
            drawn = [points for points in several if points]
            for number, points in enumerate(drawn):
                label = None if number else name
                panel.plot(
                    *zip(*points, strict=True), color=f"C{index % 10}", lw=0.8, marker=_marker(points), label=label
                )
        _level(panel, levels, title)
        panel.set_xlabel(across, fontsize=8)
        _finish(panel, title)
    _write(figure, path)
    return True


def sweep(
    path: Path,
    panels: Mapping[str, Sequence[tuple[float, float, float]]],
    levels: Mapping[str, tuple[float, str]],
) -> None:
    """Draw a panel per title: points (x, mean, standard deviation), and a dashed line at `levels` (value, label)."""
    figure, axes = _panels(len(panels))
    for panel, (title, points) in zip(axes, panels.items(), strict=True):
        if points:
            x, y, spread = zip(*sorted(points), strict=True)
            panel.errorbar(x, y, spread, marker="o", capsize=3)
            if min(x) > 0 and max(x) / min(x) >= 10:
                panel.set_xscale("log")
        _level(panel, levels, title)
        _finish(panel, title)
    _write(figure, path)


def _terms(logs: Iterable[Log]) -> list[str]:
    return list(dict.fromkeys(name for log in logs for row in log for name in row["losses"]))


def _points(log: Log, term: str) -> list[tuple[float, float]]:
    return [(row["step"], row["losses"][term]) for row in log if row["losses"].get(term) is not None]


def _marker(points: Sequence[Any]) -> str | None:
    return "." if len(points) < FEW else None


def _panels(count: int, width: float = 4, height: float = 2.6, legend: float = 0) -> tuple[Any, list[Any]]:
    """Return a figure with `count` panels of a size in inches, three in a row; `legend` stays free on the right."""
    from matplotlib.figure import Figure

    columns = min(3, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * lines))
    figure.subplots_adjust(
        left=LEFT / width / columns,
        right=1 - (RIGHT + legend) / width / columns,
        bottom=BOTTOM / height / lines,
        top=1 - TOP / height / lines,
        wspace=(LEFT + RIGHT) / (width - LEFT - RIGHT),
        hspace=(BOTTOM + TOP) / (height - BOTTOM - TOP),
    )
    return figure, [figure.add_subplot(lines, columns, index + 1) for index in range(count)]


def _logarithmic(axes: Any) -> None:
    """Make the vertical axis logarithmic, with plain numbers: matplotlib takes twice as long to draw powers."""
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _level(panel: Any, levels: Mapping[str, tuple[float, str]] | None, title: str) -> None:
    if levels and title in levels:
        value, label = levels[title]
        panel.axhline(value, color="0.6", lw=0.8, ls="--", label=label)


def _finish(panel: Any, title: str) -> None:
    panel.set_title(title, fontsize=9)
    panel.grid(alpha=0.3)
    panel.tick_params(labelsize=8)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(fontsize=7, frameon=False)


def _write(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with files.replacing(path) as part:
        FigureCanvasAgg(figure).print_png(str(part))
