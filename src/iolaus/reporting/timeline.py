"""The timeline of a study: which process ran which trial, and when."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import FrozenTrial

from iolaus.reporting.charts import COLORS
from iolaus.reporting.plotting import SMALL, WIDTH, Floats, Scale, canvas, fitted, legend
from iolaus.reporting.snapshot import Snapshot
from iolaus.study.attributes import END, INTERRUPTED, LEASE, LOST
from iolaus.study.trials import outcome_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
HATCHES = {LOST: "////", INTERRUPTED: "....", "running": "||"}
"""Hatches, which tell these bars from others without colours."""
PAUSE, PAUSE_S = 0.1, 60
"""A pause of all workers is cut out if it is longer than this share of the working time and than these seconds."""
Worker = tuple[str, int] | None
"""The host and the process id of a worker; None if another program ran the trial."""


def timeline(snapshot: Snapshot) -> "Figure | None":
    """Draw a bar for each trial in the lane of the process that ran it; pauses of all processes are cut out."""
    trials = [trial for trial in snapshot.trials if trial.datetime_start is not None]
    if not trials:
        return None
    spans = np.array([_span(trial, snapshot.taken) for trial in trials])  # (trials, begin and end in s since the epoch)
    workers = [_worker(trial) for trial in trials]
    lanes = list(dict.fromkeys(workers[i] for i in np.argsort(spans[:, 0], kind="stable")))
    lane = np.array([lanes.index(worker) for worker in workers])
    moments, worked, pauses = _without_pauses(spans)
    total = max(worked[-1], 1.0)
    unit = next((unit for unit, seconds in UNITS.items() if total >= 3 * seconds), "seconds")
    begins, ends = np.interp(spans, moments, np.divide(worked, UNITS[unit])).T
    total /= UNITS[unit]

    figure = canvas(min(1.0 + 0.26 * len(lanes), 12))
    axes = figure.subplots()
    # Seams between bars, except where bars are so short that there would be nothing else.
    seam = min(0.6, 0.1 * float(np.median(ends - begins)) / total * WIDTH * 72)
    for end, color in COLORS.items():
        which = np.array([outcome_of(trial) == end for trial in trials])
        if which.any():
            lengths = np.maximum(ends[which] - begins[which], total / 2000)
            style: dict[str, Any] = {"height": 0.72, "color": color, "edgecolor": "white", "linewidth": seam}
            name = f"{end} ({which.sum()})"
            axes.barh(lane[which], lengths, left=begins[which], hatch=HATCHES.get(end), label=name, **style)
    best = {trial.number for trial in snapshot.best}
    which = np.array([trial.number in best for trial in trials])
    if which.any():
        star: dict[str, Any] = {"markeredgecolor": "white", "markersize": 11, "linestyle": "none"}
        name = f"best: trial {min(best)}" if len(best) == 1 else "beaten by none"
        axes.plot((begins + ends)[which] / 2, lane[which], "*", color="black", label=name, **star)
    for k, pause in enumerate(pauses):
        axes.axvline(pause / UNITS[unit], color="black", linewidth=1, linestyle=":", label="" if k else "pause")
    several = len({worker[0] for worker in lanes if worker is not None}) > 1
    every = -(-len(lanes) // 42)
    axes.set_yticks(range(0, len(lanes), every), [_name(worker, several) for worker in lanes[::every]], fontsize=SMALL)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    since = f"{datetime.fromtimestamp(moments[0]):%Y-%m-%d %H:%M}"
    Scale(f"{unit} since {since}{', without pauses' if pauses else ''}", 0, total).arrange(axes, WIDTH - 1.5)
    legend(axes)
    return figure


def _span(trial: FrozenTrial, now: datetime) -> tuple[float, float]:
    """Return the beginning and the end of a trial, in seconds since the epoch.

    A trial that was lost, or that seems to be running, is known to have lived only as long as it renewed its lease.
    """
    assert trial.datetime_start is not None
    begin = trial.datetime_start.timestamp()
    end = (now if trial.datetime_complete is None else trial.datetime_complete).timestamp()
    if trial.datetime_complete is None or trial.system_attrs.get(END) == LOST:
        end = min(end, trial.system_attrs.get(LEASE, {}).get("expires", end))
    return begin, max(begin, end)


def _worker(trial: FrozenTrial) -> Worker:
    """Return the worker that ran a trial."""
    lease = trial.system_attrs.get(LEASE)
    return None if lease is None else (lease["host"], lease["pid"])


def _name(worker: Worker, several_hosts: bool) -> str:
    if worker is None:
        return "unknown"
    host = fitted(worker[0].partition("/")[0], 1.5, SMALL) if several_hosts else "process"
    return f"{host} {worker[1]}"


def _without_pauses(spans: Floats) -> tuple[list[float], list[float], list[float]]:
    """Cut out the long pauses of all workers.

    Args:
        spans: float (trials, 2), the beginning and the end of each trial in seconds.

    Returns:
        Moments in order, the working time until each of them, and the working times at which a pause was cut out.
    """
    work: list[list[float]] = []
    for begin, end in sorted(spans.tolist()):
        if work and begin <= work[-1][1]:
            work[-1][1] = max(work[-1][1], end)
        else:
            work.append([begin, end])
    longest = max(PAUSE_S, PAUSE * sum(end - begin for begin, end in work))
    moments, worked, pauses = work[0][:1], [0.0], []
    for begin, end in work:
        gap = begin - moments[-1]
        if gap > longest:
            pauses.append(worked[-1])
        moments += [begin, end]
        worked += [worked[-1] + (0 if gap > longest else gap), 0]
        worked[-1] = worked[-2] + end - begin
    return moments, worked, pauses
