"""Forest plots of settings that were compared over seeds: each row is a mean with its confidence interval."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from iolaus import metric_table
from iolaus.reporting.charts import BLUE, GREY, ORANGE, RED
from iolaus.reporting.plotting import SMALL, TEXT, WIDTH, Scale, canvas, fitted, legend
from iolaus.reporting.snapshot import Snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.3
"""Inches between two rows."""


def finals(snapshot: Snapshot) -> "Figure | None":
    """Draw each finalist's values, their mean with its interval, and the value of its best trial in the search."""
    found = snapshot.finals
    if found is None:
        return None
    rows, form = found["finalists"], metric_table.of(found["objective"]).compared
    factor = form.factor
    figure = canvas(ROW * len(rows) + 1.2)
    axes = figure.subplots()
    for y, row in enumerate(rows):
        color = RED if row["trial"] == found["winner"] else BLUE
        axes.plot([factor * row["best"]], [y], "d", color=GREY, label="best trial in the search" if y == 0 else None)
        if row["values"]:
            axes.plot([factor * value for value in row["values"]], [y] * row["n"], "|", color=color, alpha=0.6)
            _interval(axes, factor, row["mean"], row["interval"], y, color)
    names = [f"trial {row['trial']}{' (wins)' if row['trial'] == found['winner'] else ''}" for row in rows]
    shown = [factor * value for row in rows for value in (*row["values"], row["best"], *_ends(row, "mean", "interval"))]
    _arrange(axes, names, shown, f"{form.axis(found['objective'])}: mean over new seeds with its 95 % interval")
    legend(axes)
    return figure


def effects(snapshot: Snapshot) -> "Figure | None":
    """Draw the difference of each setting from the first, with its interval."""
    found = snapshot.comparison
    if found is None:
        return None
    rows = [row for row in found["rows"] if "difference" in row]
    form = metric_table.of(found["objective"]).compared
    factor = form.factor
    figure = canvas(ROW * max(len(rows), 1) + 1.2)
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    for significant, color, name in ((True, ORANGE, "significant"), (False, GREY, "not significant")):
        these = [(y, row) for y, row in enumerate(rows) if row["significant"] == significant]
        for i, (y, row) in enumerate(these):
            label = f"{name} ({len(these)})" if i == 0 else None
            _interval(axes, factor, row["difference"], row["difference_interval"], y, color, label)
    for y, row in enumerate(rows):
        costs = [f"{row[key]:.2f}" if row[key] is not None else "-" for key in ("params_ratio", "fit_s_ratio")]
        _beside(axes, y, "   ".join(costs))
    _beside(axes, -1, "times the\nparameters, time")
    shown = [0.0, *(factor * end for row in rows for end in _ends(row, "difference", "difference_interval"))]
    value, base = form.axis(found["objective"]), found["base"]["name"]
    what = f"{value} less that of «{base}», {len(found['seeds'])} seeds, 95 % interval"
    _arrange(axes, [row["name"] for row in rows], shown, what)
    legend(axes)
    return figure


def _beside(axes: "Axes", y: int, text: str) -> None:
    axes.text(1.01, y, text, transform=axes.get_yaxis_transform(), fontsize=SMALL, va="center")


def _ends(row: Mapping[str, Any], mean: str, interval: str) -> list[float]:
    if not row["values"]:
        return []
    half = row[interval] or 0.0
    return [row[mean] - half, row[mean] + half]


def _interval(
    axes: "Axes", factor: float, mean: float, half: float | None, y: int, color: str, label: str | None = None
) -> None:
    bars = None if half is None else factor * half
    axes.errorbar([factor * mean], [y], xerr=bars, fmt="o", color=color, capsize=3, markersize=5, label=label)


def _arrange(axes: "Axes", names: list[str], shown: list[float], what: str) -> None:
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) or 0.5
    Scale("", low - margin, high + margin).arrange(axes, WIDTH - 3)
    axes.set_xlabel(what, fontsize=TEXT)
    axes.set_yticks(range(len(names)), [fitted(name, 2.6, SMALL) for name in names], fontsize=SMALL)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", linewidth=0.4)
