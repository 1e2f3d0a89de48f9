"""Charts of a search: each function returns a matplotlib figure of a snapshot, or None if there is nothing to show.

They use no pyplot, so that a thread may draw them, and import matplotlib only once they draw: it takes half a second.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import FrozenTrial

from iolaus.reporting.plotting import (
    SMALL,
    TEXT,
    WIDTH,
    Floats,
    Scale,
    canvas,
    dots,
    fitted,
    label,
    legend,
    limits,
    parameters,
)
from iolaus.reporting.snapshot import Snapshot
from iolaus.study.attributes import FAILED, INTERRUPTED, LOST
from iolaus.study.trials import keeps_constraints, outcome_of, values_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The palette of Okabe and Ito, whose colours colour-blind readers can tell apart.
BLUE, ORANGE, RED, PINK, SKY, GREEN, GREY = "#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#56b4e9", "#009e73", "#808080"
COLORS = {"complete": BLUE, "pruned": ORANGE, FAILED: RED, LOST: PINK, INTERRUPTED: GREY, "running": SKY}
"""The colour of each end of a trial, in the order of legends."""
ROW = 0.62
"""Inches between two parallel axes."""


def history(snapshot: Snapshot) -> "Figure | None":
    """Draw the values of the complete trials by number, a panel for each objective, and below how others ended."""
    trials, complete, target = snapshot.trials, snapshot.complete, snapshot.target
    if not complete:
        return None
    count = len(snapshot.directions)
    ends = [end for end in COLORS if end not in ("complete", "running") and any(outcome_of(t) == end for t in trials)]
    heights = [2.9] * count + [0.24 * len(ends)] * bool(ends)
    figure = canvas(sum(heights) + 0.6)
    panels = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    numbers = np.array([trial.number for trial in complete])
    allowed = np.array([keeps_constraints(trial) for trial in complete])
    for i, panel in enumerate(panels[:count]):
        scale = _objective(snapshot, i)
        near = target is not None and i == 0 and abs(target - sum(scale.span) / 2) <= 4 * (scale.high - scale.low)
        scale = _objective(snapshot, i, also=target) if near else scale
        scale.arrange_y(panel)
        values, sign = values_of(complete, i), snapshot.sign(i)
        best = sign * np.minimum.accumulate(np.where(allowed, sign * values, np.inf))
        best[np.isinf(best)] = np.nan  # nothing yet
        panel.step(numbers, best.clip(*scale.span), where="post", color="black", linewidth=1.2, label="best so far")
        dots(panel, numbers[allowed], values[allowed], scale, color=BLUE, label="complete trial")
        dots(panel, numbers[~allowed], values[~allowed], scale, color=GREY, label="breaks a constraint")
        if near:
            panel.axhline(target, color=GREEN, linewidth=1.2, linestyle="--", label=f"target {target:g}")
        elif target is not None and i == 0:  # to show it would press all trials flat
            side = "above" if target > scale.high else "below"
            panel.plot([], [], color=GREEN, linewidth=1.2, linestyle="--", label=f"target {target:g} lies far {side}")
        legend(panel)
    for row, end in enumerate(ends):
        at = [trial.number for trial in trials if outcome_of(trial) == end]
        panels[-1].plot(at, [row] * len(at), "|", color=COLORS[end], markersize=7, markeredgewidth=1.4)
    if ends:
        panels[-1].set_ylim(len(ends) - 0.4, -0.6)
        panels[-1].set_yticks(range(len(ends)), ends, fontsize=SMALL)
    Scale("trial", 0, max(trials[-1].number, 1), whole=True).arrange(panels[-1], WIDTH - 1)
    return figure


def importances(snapshot: Snapshot) -> "Figure | None":
    """Draw the importance of each parameter with its 95 % interval: see `iolaus.reporting.importance`."""
    found = snapshot.importances
    if found is None:
        return None
    figure = canvas(0.3 * max(len(found.shares), 1) + 0.9)
    axes = figure.subplots()
    if found.problem is not None:
        axes.set_axis_off()
        axes.text(0, 0.5, fitted(found.problem, WIDTH - 0.5, TEXT + 1), fontsize=TEXT + 1, va="center")
        return figure
    percent, low, high = np.array(list(found.shares.values())).T
    reach = np.clip(np.stack([percent - low, high - percent]), 0, None)  # a percentile may lie beyond
    places = range(len(percent))
    axes.barh(places, percent, color=BLUE, height=0.7)
    axes.errorbar(percent, places, xerr=reach, fmt="none", ecolor="black", elinewidth=1, capsize=3)
    for place in places:
        axes.text(max(percent[place], high[place]) + 1, place, f"{percent[place]:.0f} %", fontsize=SMALL, va="center")
    axes.set_yticks(places, [label(name, 3) for name in found.shares], fontsize=TEXT)
    Scale("", 0, 1.1 * max(*percent, *high)).arrange(axes, WIDTH - 3)
    axes.set_xlim(0)
    warning = "" if found.clear else "\ntoo few trials to say which parameter matters most: the intervals overlap"
    what = f"what tells the best {found.top} from all {found.complete} complete trials"
    axes.set_xlabel(f"importance (% of the sum): {what}{warning}", fontsize=TEXT)
    return figure


def parallel(snapshot: Snapshot) -> "Figure | None":
    """Draw each complete trial as a line down through its parameters to its values at the foot.

    The axes are horizontal, which leaves room for long names and choices. A trial that lacks a parameter passes at the
    left of its axis.
    """
    complete = snapshot.complete
    searched = [Scale.of_parameter(name, complete) for name in parameters(complete)]
    if not searched:
        return None
    from matplotlib.collections import LineCollection

    scales = [*searched, *(_objective(snapshot, i) for i in range(len(snapshot.directions)))]
    height = ROW * len(scales) + 0.2
    figure = canvas(height, layout=None)
    conditional = any(scale.name not in trial.params for trial in complete for scale in searched)
    left = 3.1 if conditional else 2.4  # inches: the names, «absent», the axes
    length = WIDTH - left - 0.4
    white = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.6}
    jitter = _jitter(complete)
    lines = np.empty((len(complete), len(scales), 2))  # (trials, axes, x and y in inches)
    for row, scale in enumerate(scales):
        y = height - 0.25 - ROW * row
        axes = figure.add_axes((left / WIDTH, y / height, length / WIDTH, 1e-3), zorder=3)
        scale.arrange(axes, length, tilt=False)
        axes.set(xlabel="", yticks=[], facecolor="none")
        axes.spines[["left", "right", "top"]].set_visible(False)
        for tick in axes.get_xticklabels():
            tick.set_bbox(white)
        weight = "normal" if scale in searched else "bold"
        name = label(scale.name, 2)
        figure.text(2.15 / WIDTH, y / height, name, ha="right", va="center", fontsize=TEXT, weight=weight)
        if scale in searched:
            has = np.array([scale.name in trial.params for trial in complete])
            places = scale.places(complete) + (0.4 * jitter if scale.choices else 0)
        else:
            has = np.ones(len(complete), bool)
            places = values_of(complete, row - len(searched))
        lines[:, row, 0] = np.where(has, left + length * scale.share(places), left - 0.4 + 0.2 * jitter)
        lines[:, row, 1] = y
        if not has.all():
            at = (left - 0.4) / WIDTH, (y - 0.06) / height
            figure.text(*at, "absent", ha="center", va="top", fontsize=SMALL, style="italic", bbox=white, zorder=3)
    base = figure.add_axes((0, 0, 1, 1), zorder=2, xlim=(0, WIDTH), ylim=(0, height))
    base.set_axis_off()
    worse = snapshot.sign() * values_of(complete, 0).clip(*scales[len(searched)].span)
    order = np.argsort(-worse)  # the best on top
    clear = np.linspace(0.25 if len(order) > 30 else 0.75, 0.75, len(order))
    base.add_collection(
        LineCollection(list(lines[order]), array=worse[order], cmap="cividis", linewidth=0.9, alpha=clear)
    )
    best = {trial.number for trial in snapshot.best}
    emphasised = [line for line, trial in zip(lines, complete, strict=True) if trial.number in best]
    base.add_collection(LineCollection(emphasised, colors=RED, linewidth=2.2 if len(best) == 1 else 1.2))
    return figure


def slices(snapshot: Snapshot) -> "Figure | None":
    """Draw the value over each parameter, in further rows for further objectives; darker dots are later trials."""
    complete = snapshot.complete
    scales = [Scale.of_parameter(name, complete) for name in parameters(complete)]
    if not scales:
        return None
    columns = min(4, len(scales))
    rows = -(-len(scales) // columns)
    figure = canvas(2.6 * rows * len(snapshot.directions) + 0.2)
    grid = figure.subplots(rows * len(snapshot.directions), columns, squeeze=False)
    best = {trial.number for trial in snapshot.best}
    colors: dict[str, Any] = {"cmap": "cividis_r", "vmin": complete[0].number, "vmax": complete[-1].number}
    for i, block in enumerate(grid.reshape(len(snapshot.directions), -1)):
        value = _objective(snapshot, i)
        for k, (panel, scale) in enumerate(zip(block, scales, strict=False)):
            having = [trial for trial in complete if scale.name in trial.params]
            scale.arrange(panel, WIDTH / columns - 0.75)
            if len(having) < len(complete):
                panel.set_xlabel(f"{panel.get_xlabel()}\n(in {len(having)} of {len(complete)} trials)")
            value.arrange_y(panel, named=k % columns == 0)
            xs = scale.places(having) + (0.5 * _jitter(having) if scale.choices else 0)
            ys = values_of(having, i)
            dots(panel, xs, ys, value, c=np.array([trial.number for trial in having]), **colors)
            rings = np.array([trial.number in best for trial in having])
            dots(panel, xs[rings], ys[rings], value, color="none", edgecolors=RED, linewidths=1.4, s=60)
        for panel in block[len(scales) :]:
            panel.set_visible(False)
    if len(complete) > 1:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.ticker import MaxNLocator

        span = Normalize(complete[0].number, complete[-1].number)
        place: dict[str, Any] = {"location": "top", "anchor": (1, 0), "shrink": 0.3, "aspect": 30}
        bar = figure.colorbar(ScalarMappable(span, "cividis_r"), ax=grid, pad=0.1 / figure.get_figheight(), **place)
        bar.locator = MaxNLocator(5, integer=True)
        bar.set_label("trial", fontsize=TEXT)
        bar.ax.tick_params(labelsize=SMALL)
    return figure


def intermediate(snapshot: Snapshot) -> "Figure | None":
    """Draw the values that each trial has reported, over its steps."""
    trials = [trial for trial in snapshot.trials if trial.intermediate_values]
    reported = np.array([value for trial in trials for value in trial.intermediate_values.values()], float)
    if not np.isfinite(reported).any():
        return None
    from matplotlib.collections import LineCollection

    figure = canvas(4.2)
    axes = figure.subplots()
    Scale("intermediate value", *limits(reported, snapshot.sign(), far=20)).arrange_y(axes)
    curves = {trial.number: np.array(sorted(trial.intermediate_values.items()), float) for trial in trials}
    for curve in curves.values():
        curve[~np.isfinite(curve[:, 1]), 1] = np.nan  # a gap
    best = snapshot.tally.best
    for end, color in COLORS.items():
        these = [curves[trial.number] for trial in trials if outcome_of(trial) == end and trial is not best]
        if these:
            dashes, marker = ("-", "o") if end == "complete" else ((0, (4, 1.5)), "X")
            alpha = 0.8 if len(trials) <= 30 else 0.4
            axes.add_collection(LineCollection(these, colors=color, linewidth=1, alpha=alpha, linestyle=dashes))
            last = np.array([curve[-1] for curve in these])
            axes.scatter(
                last[:, 0], last[:, 1], s=14, marker=marker, color=color, linewidths=0, label=f"{end} ({len(these)})"
            )
    if best is not None and best.number in curves:
        name = f"best: trial {best.number}"
        axes.plot(*curves[best.number].T, color="black", linewidth=2, marker="o", markersize=3, label=name)
    steps = [step for trial in trials for step in trial.intermediate_values]
    Scale("step", min(steps), max(*steps, min(steps) + 1), whole=True).arrange(axes, WIDTH - 1)
    legend(axes)
    return figure


def pareto(snapshot: Snapshot) -> "Figure | None":
    """Draw each pair of objectives against each other, with the trials that no other beats in all of them."""
    complete = snapshot.complete
    count = len(snapshot.directions)
    if count < 2 or not complete:
        return None
    pairs = [(i, k) for i in range(count) for k in range(i + 1, count)]
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = canvas(rows * 3.6 if columns > 1 else 4.6)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    best = {trial.number for trial in snapshot.best}
    front = np.array([trial.number in best for trial in complete])
    for panel, (i, k) in zip(panels, pairs, strict=False):
        across, up = _objective(snapshot, i), _objective(snapshot, k)
        across.arrange(panel, WIDTH / columns - 0.9)
        up.arrange_y(panel)
        xs, ys = values_of(complete, i), values_of(complete, k)
        dots(panel, xs[~front], ys[~front], up, across, color=GREY, alpha=0.6, label=f"others ({(~front).sum()})")
        if count == 2:
            edge = np.array(sorted(zip(xs[front].clip(*across.span), ys[front].clip(*up.span), strict=True)))
            panel.step(*edge.reshape(-1, 2).T, where="post" if snapshot.sign(i) > 0 else "pre", color=RED, linewidth=1)
        dots(panel, xs[front], ys[front], up, across, color=RED, s=26, label=f"beaten by none ({front.sum()})")
    for panel in panels[len(pairs) :]:
        panel.set_visible(False)
    legend(panels[0])
    return figure


def _objective(snapshot: Snapshot, objective: int, also: float | None = None) -> Scale:
    """Return the axis of an objective, with all complete trials on it."""
    sign = snapshot.sign(objective)
    name = f"{snapshot.objectives[objective]} ({'maximized' if sign < 0 else 'minimized'})"
    return Scale(name, *limits(values_of(snapshot.complete, objective), sign, also))


def _jitter(trials: Sequence[FrozenTrial]) -> Floats:
    """Return a shift in [-0.5, 0.5) for each trial: evenly spread, and always the same for the same trial."""
    golden = (math.sqrt(5) - 1) / 2
    return np.array([trial.number * golden % 1 - 0.5 for trial in trials])
