"""The progress of a sweep, read from its study: a line for each trial that ends, and the trials under way."""

import dataclasses
import logging
import math
import os
import sys
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from optuna.trial import FrozenTrial, TrialState

from iolaus.errors import InputError, printable
from iolaus.search_space.keys import key_element
from iolaus.study.attributes import END, FAILED, INTERRUPTED, LEASE, NAME, NO_REASON, REASON, SURPLUS
from iolaus.study.catalog import StoredStudy, goals_of
from iolaus.study.pruners import prunes
from iolaus.study.queue import ENDS, STOPPED, TIMEOUT, TrialQueue
from iolaus.study.tally import Tally
from iolaus.study.trials import is_alive, needs_retry
from iolaus.system.lease import holds

log = logging.getLogger(__name__)

BLOCKS = "▁▂▃▄▅▆▇█"
STATUS_S = 30.0
"""Seconds between two lines about what is under way, where there is no terminal to keep one in."""


class Live:
    """Show a search until the context ends.

    Args:
        queue: The trials of the search, an object that nobody else uses: it is read in a thread.
        alone: Whether nothing else writes to the terminal, so that lines may be kept at its foot.
        every_s: Seconds between two looks.
    """

    def __init__(self, queue: TrialQueue, alone: bool, every_s: float = 0.5, out: TextIO | None = None) -> None:
        """Remember what has ended before."""
        self.queue, self.every_s = queue, every_s
        self.out = out or sys.stdout
        self.in_place = alone and self.out.isatty()
        trials = queue.study.get_trials(deepcopy=False)
        ended = [trial for trial in trials if trial.state.is_finished()]
        self.seen = {trial.number for trial in ended}
        self.settled = 0
        self.shown = Tally.of(queue.study)
        self.curve: list[float] = []  # the best value after each complete trial
        for trial in sorted(ended, key=ended_at):
            self._improve(trial)
        self.start = self.last_status = time.monotonic()
        self.before = queue.tally().counted
        self.workers_seen: dict[tuple[str, int] | int, tuple[int, dict[str, Any] | None]] = {}
        self.lines = 0  # at the terminal's foot
        self.broken = self.warned = False
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Live":
        """Begin to show."""
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Show the last ones that ended, and stop."""
        self.done.set()
        self.thread.join()
        self.look(last=True)

    def _watch(self) -> None:
        while not self.done.wait(self.every_s):
            self.look()

    def look(self, last: bool = False) -> None:
        """Show what is new. Whatever goes wrong here, the trials go on."""
        try:
            if not self.broken:
                self._show(last)
        except BrokenPipeError:  # nobody reads any more
            self.broken = True
        except Exception as error:
            # A storage may be back at the next look; an output that is closed will not.
            self.broken = isinstance(error, (OSError, ValueError)) and not isinstance(error, InputError)
            log.warning("the trials go on, but cannot be shown: %s: %s", type(error).__name__, error)

    def _show(self, last: bool) -> None:
        trials = self.queue.study.get_trials(deepcopy=False)
        while self.settled < len(trials) and trials[self.settled].number in self.seen:
            self.settled += 1
        ended = [
            trial for trial in trials[self.settled :] if trial.state.is_finished() and trial.number not in self.seen
        ]
        lines = []
        for trial in sorted(ended, key=ended_at):
            self.seen.add(trial.number)
            if trial.system_attrs.get(END) == SURPLUS:
                continue
            self._warn_of_silence(trial)
            better = self._improve(trial)
            lines.append(ended_line(trial, better and len(self.queue.study.directions) == 1))
        tally = self.queue.tally()
        now = time.monotonic()
        if self.in_place:
            foot = [] if last else self._foot(tally)
            erase = f"\x1b[{self.lines}A\x1b[J" if self.lines else ""
            self.out.write(erase + "".join(f"{line}\n" for line in [*lines, *foot]))
            self.lines = len(foot)
        else:
            if now > self.last_status + STATUS_S and not last:
                lines.append("; ".join(line.strip() for line in [*self._status(tally), *self._running(tally)]))
                self.last_status = now
            self.out.write("".join(f"{line}\n" for line in lines))
        self.out.flush()

    def _improve(self, trial: FrozenTrial) -> bool:
        """Extend the curve to a trial that has ended; return whether it is the best so far."""
        better = self.shown.is_best(trial)
        self.shown.best = trial if better else self.shown.best
        if trial.state == TrialState.COMPLETE and self.shown.best is not None:
            self.curve.append(self.shown.best.values[0])
        return better

    def _warn_of_silence(self, trial: FrozenTrial) -> None:
        """Warn once if a pruner has no reported values to decide by."""
        silent = trial.state == TrialState.COMPLETE and not trial.intermediate_values
        if silent and not self.warned and prunes(self.queue.study.pruner):
            self.warned = True
            log.warning("the task never reports a value, so nothing can be pruned: call iolaus.report(step, value)")

    def _foot(self, tally: Tally) -> list[str]:
        """Return as many lines as the terminal has room for, each of one row, so that they can be erased."""
        columns, rows = terminal_size(self.out)
        lines = []
        for line in self._status(tally):
            lines += textwrap.wrap(line, columns - 1, subsequent_indent=" " * 4, break_on_hyphens=False)
        lines += [row if len(row) < columns else f"{row[: columns - 2]}…" for row in self._running(tally)]
        if len(lines) > rows - 1:
            lines = [*lines[: max(1, rows - 2)], f"  and {len(lines) - max(1, rows - 2)} more lines"]
        return lines

    def _status(self, tally: Tally) -> list[str]:
        """Return how many trials have ended and how many run, and the best one."""
        counts = [f"{tally.counted} of {self.queue.n_trials} trials finished"]
        if tally.pruned:
            counts.append(f"{tally.pruned} of them pruned")
        if tally.failed:
            counts.append(f"{tally.failed} failed")
        here, deadline = tally.counted - self.before, self.queue.goals.deadline
        left = until = math.inf
        if here > 0:
            left = (time.monotonic() - self.start) / here * max(0, self.queue.n_trials - tally.counted)
        if deadline is not None:
            until = deadline - time.time()
        if self.queue.ended_by(tally) in (TIMEOUT, STOPPED):
            counts.append("no new one begins")
        elif until < left and tally.counted + len(tally.running) < self.queue.n_trials:
            counts.append(f"new ones begin for another {timedelta(seconds=round(until))}")
        elif left < math.inf:
            counts.append(f"about {timedelta(seconds=round(left))} left")
        lines = [", ".join([*counts, f"{len(tally.running)} running"])]
        if (best := self.shown.best) is not None and NAME not in best.user_attrs:  # a list compares means
            curve = f"  {sparkline(self.curve)}" if (self.out.encoding or "").lower() == "utf-8" else ""
            lines.append(f"  best {best.values[0]:.6g} (trial {best.number}){curve}: {settings(best.params)}")
        return lines

    def _running(self, tally: Tally) -> list[str]:
        """Return a line for each worker that has been seen at work, and lives."""
        lines = []
        for trial in tally.running:
            number, _ = self.workers_seen.setdefault(
                owner(trial), (len(self.workers_seen), trial.system_attrs.get(LEASE))
            )
            lines.append((number, f"  worker {number}: {running_line(trial)}"))
        at_work = {number for number, _ in lines}
        for number, lease in self.workers_seen.values():
            if number not in at_work and lease is not None and holds(lease):
                lines.append((number, f"  worker {number}: between two trials"))
        return [line for _, line in sorted(lines)]


def ended_at(trial: FrozenTrial) -> float:
    """Return the time of a trial's end, in seconds since the epoch; another program may not have stored it."""
    moment = trial.datetime_complete or trial.datetime_start
    return 0.0 if moment is None else moment.timestamp()


def ended_line(trial: FrozenTrial, best: bool) -> str:
    """Return a line on how a trial ended."""
    why = ""
    if trial.state == TrialState.COMPLETE:
        values = ", ".join(f"{value:.6g}" for value in trial.values)
        how = f"{values}{' (best so far)' if best and NAME not in trial.user_attrs else ''}"
    elif trial.state == TrialState.FAIL:
        end, how = trial.system_attrs.get(END, FAILED), "failed"
        why = f" ({printable(trial.user_attrs.get(REASON, NO_REASON))})"
        if needs_retry(trial):
            how, why = end, f", to be retried{'' if end == INTERRUPTED else why}"
    else:
        how = trial.state.name.lower()
    duration = f" in {trial.duration.total_seconds():.1f} s" if trial.duration is not None else ""
    return f"trial {trial.number}: {how}{duration}{why}: {what(trial)}"


def running_line(trial: FrozenTrial) -> str:
    """Return a line on how far a trial is."""
    step = trial.last_step
    at = f"step {step}, {trial.intermediate_values[step]:.6g}" if step is not None else "started"
    return f"trial {trial.number}: {at}: {what(trial)}"


def owner(trial: FrozenTrial) -> tuple[str, int] | int:
    """Return who runs a trial: a process of a host, or the trial's number if another program does."""
    lease = trial.system_attrs.get(LEASE)
    return trial.number if lease is None else (lease["host"], lease["pid"])


def sparkline(values: Sequence[float], width: int = 20) -> str:
    """Return a curve in one row of blocks, from the lowest to the highest of the values shown."""
    shown = [values[i * len(values) // width] for i in range(width)] if len(values) > width else list(values)
    shown = [*shown[:-1], values[-1]] if values else []
    low, high = (min(shown), max(shown)) if shown else (0.0, 0.0)
    return "".join(
        BLOCKS[round((value - low) / (high - low) * (len(BLOCKS) - 1)) if high > low else 0] for value in shown
    )


def what(trial: FrozenTrial) -> str:
    """Return a trial's parameters, or the name that a list of settings has for them with the seed."""
    if NAME in trial.user_attrs:
        return printable(f"{trial.user_attrs[NAME]}, seed {trial.params['seed']}")
    return settings(trial.params)


def settings(params: Mapping[str, Any]) -> str:
    """Return parameters as overrides in one line."""
    shown = (
        f"{key_element(name)}={value:.6g}" if isinstance(value, float) else f"{key_element(name)}={value}"
        for name, value in params.items()
    )
    return printable(" ".join(shown))


def terminal_size(out: TextIO) -> tuple[int, int]:
    """Return columns and rows of the terminal that a file writes to."""
    try:
        columns, rows = os.get_terminal_size(out.fileno())
    except (OSError, ValueError):
        columns, rows = 0, 0
    return columns or 80, rows or 24  # a terminal that nobody has sized says 0


def watch(kept: StoredStudy, idle_s: float = 10.0) -> str:
    """Show a search that runs elsewhere until it is over; return why it ended, or that nobody is at work.

    Args:
        kept: Its study.
        idle_s: Seconds without any trial at work after which nobody is taken to be.
    """
    queue = TrialQueue(kept.study, goals_of(kept), 0, kept.folder or Path())
    live, last = Live(queue, alone=True), time.monotonic()
    while (idle := time.monotonic() - last) < idle_s:
        live.look()
        tally = queue.tally()
        if any(is_alive(trial) for trial in tally.running):
            last = time.monotonic()
        elif (end := queue.ended_by(tally)) is not None:
            live.look(last=True)
            goals = {"timeout_s": "its value", **dataclasses.asdict(queue.goals)}
            return f"{tally.counted} trials finished; ended by {ENDS[end].format(**goals)}"
        time.sleep(0.5)
    live.look(last=True)
    return f"{queue.tally().counted} trials finished; nobody has been at work for {idle:.0f} s"
