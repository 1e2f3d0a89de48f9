"""A study in a screenful of text: ``python src/studies.py show NAME``."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from iolaus.compare import finals, variants
from iolaus.compare.statistics import format_value
from iolaus.errors import printable, redact_urls
from iolaus.reporting.snapshot import Snapshot
from iolaus.search_space.keys import key_element
from iolaus.study.attributes import ENDED, FOLDER, GOALS
from iolaus.study.catalog import StoredStudy, goals_of
from iolaus.study.queue import ENDS, TrialQueue

LABEL = 10
"""Columns of the labels."""
SHOWN = 5
"""The number of trials that no other beats, and of reasons of failures, that are shown."""


def lines(stored: StoredStudy, storage: str | None = None) -> Iterator[str]:
    """Yield the overview of a study.

    Args:
        stored: The study.
        storage: Where it is stored, if not in a journal in its folder.
    """
    state = _state(stored)
    snapshot = Snapshot.of(stored.study)
    yield printable(f"{snapshot.name}: {state}")
    yield from _block("trials", _trials(snapshot))
    yield from _block("best", _best(snapshot, stored.folder))
    yield from _block("failures", _shortened(snapshot.reasons))
    if snapshot.finals is not None:
        last = finals.last_lines(snapshot.finals) if "test" in snapshot.finals else ()
        yield from _block("finals", [*finals.lines(snapshot.finals), *last])
    if snapshot.comparison is not None:
        yield from _block("comparison", variants.lines(snapshot.comparison))
    yield from _block("notes", snapshot.notes)
    yield from _block("folder", [_folder(stored.folder)])
    in_folder = str(stored.folder / "journal.log") if stored.folder is not None and stored.in_folder else None
    yield from _block("storage", [redact_urls(in_folder or storage or "not known")])
    yield from _block("command", [str(snapshot.last_command.get("command", "not known"))])
    yield from _block("report", [_report(stored.folder)])


def _block(label: str, text: Iterable[str]) -> Iterator[str]:
    """Yield lines with a label before the first one."""
    for i, line in enumerate(text):
        yield f"{'' if i else label:{LABEL}} {printable(line)}".rstrip()


def _state(stored: StoredStudy) -> str:
    """Return how far a study is, and what ended it."""
    study = stored.study
    queue = TrialQueue(study, goals_of(stored), 0, stored.folder or Path())
    tally = queue.tally()
    if GOALS not in study.user_attrs:  # another program's
        return f"{tally.counted} trials finished, {len(tally.running)} running"
    alive, end = len(stored.alive), queue.ended_by(tally)
    finished = f"{tally.counted} of {queue.n_trials} trials finished"
    if alive:
        return f"{finished}, {alive} running"
    if end is None:
        return f"{finished}, nobody is at work: its command goes on"
    facts = {"timeout_s": "its value", **dataclasses.asdict(queue.goals), **study.user_attrs.get(ENDED, {})}
    return f"{finished}, ended by {ENDS[end].format(**facts)}"


def _trials(snapshot: Snapshot) -> Iterator[str]:
    """Yield the number of trials by how they ended, and when they ran."""
    yield snapshot.ends_in_words or "none"
    moments = [at for trial in snapshot.trials for at in (trial.datetime_start, trial.datetime_complete) if at]
    if moments:
        yield f"from {min(moments):%Y-%m-%d %H:%M} to {max(moments):%Y-%m-%d %H:%M}"


def _best(snapshot: Snapshot, folder: Path | None) -> Iterator[str]:
    """Yield the best trial with its parameters, or those that no other beats in all objectives."""
    if snapshot.is_list:  # its trials were not drawn
        return
    best = snapshot.best
    if not best:
        yield "none: no complete trial keeps all constraints" if snapshot.complete else "none: no trial is complete"
    if len(best) > 1:
        yield f"{len(best)} trials that no other beats in all objectives"
    for trial in best[:SHOWN]:
        yield f"trial {trial.number}: {_values(snapshot, trial)}"
        yield from (f"  {key_element(name)}={_plain(value)}" for name, value in trial.params.items())
        if folder is not None and FOLDER in trial.user_attrs:
            yield f"  in {folder / trial.user_attrs[FOLDER]}"
    if len(best) > SHOWN:
        yield f"and {len(best) - SHOWN} others"
    if snapshot.rerun_command is not None:
        which = "once more" if len(snapshot.directions) == 1 else f"the best in {snapshot.objectives[0]} once more"
        yield f"{which}: {snapshot.rerun_command}"


def _values(snapshot: Snapshot, trial: FrozenTrial) -> str:
    named = zip(snapshot.objectives, trial.values, strict=True)
    return ", ".join(f"{name} {format_value(value, name)}" for name, value in named)


def _plain(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _shortened(reasons: Sequence[str]) -> list[str]:
    more = [f"and {len(reasons) - SHOWN} other reasons"] if len(reasons) > SHOWN else []
    return [*reasons[:SHOWN], *more]


def _folder(folder: Path | None) -> str:
    if folder is None:
        return "not known"
    return str(folder) if folder.is_dir() else f"{folder} (not on this machine)"


def _report(folder: Path | None) -> str:
    page = None if folder is None else folder / "report.html"
    return str(page) if page is not None and page.is_file() else "none yet: the verb report writes it"
