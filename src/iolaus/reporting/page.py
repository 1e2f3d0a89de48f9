"""The report of a study: one HTML page that needs nothing else, and its pictures as files beside it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial

from iolaus.compare import finals, variants
from iolaus.reporting import markup, pictures
from iolaus.reporting.pictures import Picture
from iolaus.reporting.snapshot import Snapshot
from iolaus.search_space.keys import key_of
from iolaus.study.attributes import FOLDER, INTERRUPTED, LOST
from iolaus.system.files import atomic_write

SHOWN = 10
"""The number of rows in the table of the best trials for one objective, and of reasons in the list of failures."""


def write_again(study: Study, folder: Path) -> Path:
    """Write the page and the pictures of a study, with the target and the command that its sweep left in it.

    Args:
        study: At any time, also while it runs; from a storage of its own if another thread works on it.
        folder: The folder of the sweep.

    Returns:
        The path of the page.
    """
    return write(Snapshot.of(study), folder)


def write(snapshot: Snapshot, folder: Path) -> Path:
    """Write the page and the pictures of a snapshot, in place of those that were there.

    Args:
        snapshot: The study.
        folder: The folder of the sweep; the page becomes ``report.html`` in it, the pictures go to ``report/``.

    Returns:
        The path of the page.
    """
    (folder / "report").mkdir(parents=True, exist_ok=True)
    drawn = {}
    for picture, png in pictures.draw_all(snapshot).items():
        path = folder / "report" / f"{picture.name}.png"
        if png is None:
            path.unlink(missing_ok=True)
            continue
        drawn[picture] = png
        with atomic_write(path) as file:
            file.write(png)
    page = folder / "report.html"
    with atomic_write(page) as file:
        file.write("\n".join(_page(snapshot, folder, drawn)).encode())
    return page


def _page(snapshot: Snapshot, folder: Path, drawn: Mapping[Picture, bytes]) -> Iterator[str]:
    """Yield the lines of the page. All that comes from the study is escaped, for it may hold anything."""
    yield from markup.head(snapshot.name)
    yield from _counts(snapshot)
    yield from _best(snapshot, folder)
    yield from _command(snapshot)
    yield from (f"<p>{markup.text(note)}</p>" for note in snapshot.notes)
    yield from _finals(snapshot)
    if snapshot.comparison is not None:
        yield "<h2>What each setting is worth, in numbers</h2>"
        yield from markup.table(list(variants.table(snapshot.comparison)))
    yield from _failures(snapshot)
    yield from _table(snapshot)
    for picture, png in drawn.items():
        yield from markup.picture(picture.title, picture.caption, png)
    if snapshot.trials and not drawn:
        yield "<p>There are no pictures, since matplotlib is not installed.</p>"
    yield markup.FOOT


def _counts(snapshot: Snapshot) -> Iterator[str]:
    """Yield how many trials there are, what became of them, and when."""
    trials, ends = snapshot.trials, snapshot.ends_in_words
    yield f"<p>{len(trials)} trial{'' if len(trials) == 1 else 's'}{': ' if ends else ''}{ends}."
    if snapshot.ends.get(LOST) or snapshot.ends.get(INTERRUPTED):
        yield "Those that were lost or interrupted do not count."
    begun = [trial.datetime_start for trial in trials if trial.datetime_start]
    if begun:
        yield f"The first began {min(begun):%Y-%m-%d %H:%M}; this page was written {snapshot.taken:%Y-%m-%d %H:%M}."
    yield "</p>"


def _best(snapshot: Snapshot, folder: Path) -> Iterator[str]:
    """Yield the value, the folder and the parameters of the best trial for one objective, or that there is none."""
    if not snapshot.best:
        why = "No complete trial keeps all constraints" if snapshot.complete else "No trial is complete"
        yield f'<p class="warn">{why}, so there is no best one.</p>'
        return
    if len(snapshot.directions) > 1 or snapshot.comparison is not None:
        return
    (trial,) = snapshot.best
    yield f"<h2>Best trial: {trial.number}</h2>"
    yield f"<dl><dt>{markup.text(snapshot.objectives[0])}</dt><dd><strong>{trial.values[0]:.6g}</strong></dd>"
    if FOLDER in trial.user_attrs:
        yield f"<dt>folder</dt><dd><code>{markup.text(folder / str(trial.user_attrs[FOLDER]))}</code></dd>"
    for name, value in trial.params.items():
        yield f"<dt>{markup.text(key_of(name))}</dt><dd><code>{markup.text(str(value))}</code></dd>"
    yield "</dl>"


def _command(snapshot: Snapshot) -> Iterator[str]:
    """Yield the command that trains the best trial once more; of compared settings no single run is the best."""
    if snapshot.rerun_command is None or snapshot.comparison is not None:
        return
    several = f"The best in {markup.text(snapshot.objectives[0])} once more:"
    yield f"<p>{several if len(snapshot.directions) > 1 else 'Once more:'}</p>"
    yield markup.command(snapshot.rerun_command)


def _finals(snapshot: Snapshot) -> Iterator[str]:
    """Yield the result of the finals, in words."""
    found = snapshot.finals
    if found is None:
        return
    yield f"<h2>Winner of the finals: trial {found['winner']}</h2>"
    lines = [*finals.lines(found), *(finals.last_lines(found) if "test" in found else [])]
    yield from markup.items(line.strip() for line in lines)


def _failures(snapshot: Snapshot) -> Iterator[str]:
    """Yield why trials failed."""
    reasons = snapshot.reasons
    if not reasons:
        return
    yield "<h2>Why trials failed</h2>"
    yield from markup.items(reasons[:SHOWN])
    if len(reasons) > SHOWN:
        yield f"<p>and {len(reasons) - SHOWN} other reasons</p>"


def _table(snapshot: Snapshot) -> Iterator[str]:
    """Yield a table of the best trials: number, values, duration, parameters, folder."""
    if not snapshot.best or snapshot.comparison is not None:
        return
    if len(snapshot.directions) == 1:
        title, trials = "Best trials", snapshot.ranked[:SHOWN]
    else:
        title = f"The {len(snapshot.best)} trials that no other beats in all objectives"
        trials = sorted(snapshot.best, key=lambda trial: trial.values)
    yield f"<h2>{title}</h2>"
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    head = ["trial", *snapshot.objectives, "seconds", *(name.lstrip("+") for name in names), "folder"]
    yield from markup.table([head, *(_row(trial, names) for trial in trials)])


def _row(trial: FrozenTrial, names: Sequence[str]) -> list[object]:
    seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.1f}"
    params = [trial.params.get(name, "") for name in names]
    return [trial.number, *trial.values, seconds, *params, trial.user_attrs.get(FOLDER, "")]
