"""The report of a sweep: one page that needs nothing else, and its pictures as files."""

import base64
import html
import importlib.util
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from iolaus.compare import finals, variants
from iolaus.errors import printable
from iolaus.reporting import charts, intervals
from iolaus.reporting.timeline import timeline
from iolaus.search_space.keys import key_of
from iolaus.study import attributes
from iolaus.study.attributes import FOLDER, INTERRUPTED, LOST
from iolaus.study.tally import Tally, best_of, best_trials
from iolaus.study.trials import end_of, keeps_constraints, objectives, shown, sign_of, why_failed
from iolaus.system.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from iolaus.study.attributes import NOTES, REPORT

SHOWN = 10
"""How many of the best trials for one objective are in the table, and how many reasons of failures below it."""
PICTURES = {
    "finals": (
        "Finals",
        "Each row is one of the best settings, run again with seeds that no trial had: the bar is the 95 % interval of "
        "its mean, the thin marks are its runs, and the diamond is what its best trial had been in the search.",
    ),
    "effects": (
        "What each setting is worth",
        "Each row is a setting less the command as it is, seed by seed: where the bar reaches zero, what was changed "
        "cannot be told from nothing.",
    ),
    "history": (
        "History",
        "Each dot is a complete trial, the line is the best value until then, and the marks below are trials that "
        "ended without a value.",
    ),
    "pareto": (
        "Trade-offs",
        "Each dot is a complete trial: no trial is better than an orange one in all objectives.",
    ),
    "importances": (
        "What matters",
        "The longer the bar, the more the values of a parameter in the best trials differ from those in all; what "
        "parameters do only together does not show.",
    ),
    "parallel": (
        "Parameters of all trials",
        "Each line is a complete trial, from its parameters down to its value: the darker the better, the best is "
        "orange, and who lacks a parameter passes at the left.",
    ),
    "slices": (
        "Value over each parameter",
        "Each dot is a complete trial, later ones are darker: if the best (circled) is at the end of a range, a wider "
        "one may hold a better one.",
    ),
    "intermediate": (
        "Intermediate values",
        "Each line is what a trial reported while it ran: solid if it is complete, dashed with a cross at its end if "
        "it is not, black if it is the best.",
    ),
    "timeline": (
        "Timeline",
        "Each row is a process and each bar a trial that it ran: where a row is empty, the process did nothing.",
    ),
}
"""The pictures in the page's order, each with its title and how to read it."""
STYLE = """
:root { color-scheme: light dark; --line: #ccc; --soft: #f3f3f3; --warn: #a33c00; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --soft: #2a2a2a; --warn: #ff9d66; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { background: var(--soft); }
td { font-variant-numeric: tabular-nums; max-width: 24rem; overflow: hidden; text-overflow: ellipsis; }
pre, code { background: var(--soft); border-radius: 4px; }
pre { padding: 0.7rem; white-space: pre-wrap; overflow-wrap: anywhere; }
code { padding: 0.1rem 0.3rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: fit-content(50%) 1fr; gap: 0.2rem 1rem; }
dd { margin: 0; }
dt, dd { overflow-wrap: anywhere; }
.warn { color: var(--warn); }
figure { margin: 0; }
figcaption { margin-bottom: 0.5rem; }
img { display: block; width: 100%; min-width: 720px; height: auto; background: white; border-radius: 4px; }
"""


def write(study: Study, folder: Path, *, command: str | None = None, target: float | None = None) -> Path:
    """Write the pictures and the page of a study, in place of those that were there.

    Args:
        study: At any time, also while it runs; from a storage of its own if another thread works on it.
        folder: Of the sweep. The page becomes ``report.html`` in it, the pictures go to ``report/``.
        command: That trains the best trial once more.
        target: A value of the first objective that was to be reached.

    Returns:
        The path of the page.
    """
    (folder / "report").mkdir(parents=True, exist_ok=True)
    pictures = {}
    for name, figure in _figures(study, target):
        path = folder / "report" / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        file = io.BytesIO()
        figure.savefig(file, format="png")
        pictures[name] = file.getvalue()
        with atomic_write(path) as written:
            written.write(pictures[name])
    page = folder / "report.html"
    with atomic_write(page) as written:
        written.write("\n".join(_page(study, folder, command, pictures)).encode())
    return page


def write_again(study: Study, folder: Path) -> Path:
    """Write the page as the sweep wrote it, with what only the sweep knew: the target, and the best trial's command.

    Args:
        study: At any time; before its sweep has written a page there is neither.
        folder: Of the sweep.

    Returns:
        The path of the page.
    """
    known = study.user_attrs.get(REPORT, {})
    best = best_of(study, study.get_trials(deepcopy=False))
    still_best = best is not None and best.number == known.get("trial")
    return write(study, folder, command=known["command"] if still_best else None, target=known.get("target"))


def _figures(study: Study, target: float | None) -> Iterator[tuple[str, "Figure | None"]]:
    """Each picture by its name, or none at all without matplotlib, which a sweep can do without."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    found, comparison = (
        study.user_attrs.get(attributes.FINALS_RESULT),
        study.user_attrs.get(attributes.COMPARISON_RESULT),
    )
    yield "finals", None if found is None else intervals.finals(found)
    yield "effects", None if comparison is None else intervals.effects(comparison)
    if comparison is not None:  # its trials are a list, whose numbers are no parameters
        yield "timeline", timeline(study)
        return
    yield "history", charts.history(study, target)
    for draw in (charts.importances, charts.parallel, charts.slices, charts.intermediate, timeline, charts.pareto):
        yield draw.__name__, draw(study)


def _page(study: Study, folder: Path, command: str | None, pictures: dict[str, bytes]) -> Iterator[str]:
    """The page's lines. All that comes from the study is escaped, for it may hold anything."""
    trials = shown(study)
    best = best_trials(study, trials)
    one = len(study.directions) == 1
    name = _text(study.study_name)
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{name}</title><style>{STYLE}</style></head><body><h1>{name}</h1>"
    yield from _counts(trials)
    if not best:
        complete = any(trial.state == TrialState.COMPLETE for trial in trials)
        why = "No complete trial keeps all constraints" if complete else "No trial is complete"
        yield f'<p class="warn">{why}, so there is no best one.</p>'
    elif one and attributes.COMPARISON_RESULT not in study.user_attrs:
        yield f"<h2>Best trial: {best[0].number}</h2>"
        yield from _facts(study, best[0], folder)
    comparison = study.user_attrs.get(attributes.COMPARISON_RESULT)
    if command is not None and comparison is None:  # of a list no single run is the best
        which = "Once more:" if one else f"The best in {_text(objectives(study)[0])} once more:"
        yield f"<p>{which}</p><pre>{html.escape(command)}</pre>"
    yield from (f"<p>{_text(note)}</p>" for note in study.user_attrs.get(NOTES, []))
    yield from _finals(study)
    if comparison is not None:
        yield "<h2>What each setting is worth, in numbers</h2>"
        yield from _rows(list(variants.table(comparison)))
    reasons = why_failed(Tally.of(study, trials).reasons)
    if reasons:
        yield "<h2>Why trials failed</h2><ul>"
        yield from (f"<li>{_text(reason)}</li>" for reason in reasons[:SHOWN])
        yield "</ul>" if len(reasons) <= SHOWN else f"</ul><p>and {len(reasons) - SHOWN} other reasons</p>"
    if best and comparison is None:
        ranked = _ranked(study, trials) if one else sorted(best, key=lambda trial: trial.values)
        title = "Best trials" if one else f"The {len(best)} trials that no other beats in all objectives"
        yield f"<h2>{title}</h2>"
        yield from _table(study, ranked)
    for picture, (title, caption) in PICTURES.items():
        if picture in pictures:
            data = base64.b64encode(pictures[picture]).decode()
            yield f"<h2>{title}</h2><figure><figcaption>{caption}</figcaption>"
            yield f'<div class="scroll"><img alt="{title}" src="data:image/png;base64,{data}"></div></figure>'
    if trials and not pictures:
        yield "<p>There are no pictures, since matplotlib is not installed.</p>"
    yield "</body></html>"


def _counts(trials: Sequence[FrozenTrial]) -> Iterator[str]:
    """How many trials there are, what became of them, and when."""
    counts = Counter(end_of(trial) for trial in trials)
    ends = [f"{counts[end]} {end}" for end in (*charts.COLORS, "waiting") if counts[end]]
    yield f"<p>{len(trials)} trial{'' if len(trials) == 1 else 's'}{': ' if ends else ''}{', '.join(ends)}."
    if counts[LOST] or counts[INTERRUPTED]:
        yield "Those that were lost or interrupted do not count."
    begun = [trial.datetime_start for trial in trials if trial.datetime_start]
    if begun:
        yield f"The first began {min(begun):%Y-%m-%d %H:%M}; this page was written {datetime.now():%Y-%m-%d %H:%M}."
    yield "</p>"


def _facts(study: Study, trial: FrozenTrial, folder: Path) -> Iterator[str]:
    """The value, the folder and the parameters of the best trial."""
    yield f"<dl><dt>{_text(objectives(study)[0])}</dt><dd><strong>{trial.values[0]:.6g}</strong></dd>"
    if FOLDER in trial.user_attrs:
        yield f"<dt>folder</dt><dd><code>{_text(folder / str(trial.user_attrs[FOLDER]))}</code></dd>"
    for name, value in trial.params.items():
        yield f"<dt>{_text(key_of(name))}</dt><dd><code>{_text(str(value))}</code></dd>"
    yield "</dl>"


def _finals(study: Study) -> Iterator[str]:
    """What followed the search."""
    found = study.user_attrs.get(attributes.FINALS_RESULT)
    if found is None:
        return
    yield f"<h2>Winner of the finals: trial {found['winner']}</h2><ul>"
    told = [*finals.lines(found), *(finals.last_lines(found) if "test" in found else [])]
    yield from (f"<li>{_text(line.strip())}</li>" for line in told)
    yield "</ul>"


def _rows(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """A table of these rows, the first of which is its head."""
    yield f'<div class="scroll"><table><tr>{"".join(f"<th>{_text(cell)}</th>" for cell in rows[0])}</tr>'
    yield from (f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows[1:])
    yield "</table></div>"


def _ranked(study: Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best trials for one objective, the best first."""
    sign = sign_of(study, 0)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and keeps_constraints(trial)]
    return sorted(complete, key=lambda trial: sign * trial.values[0])[:SHOWN]


def _table(study: Study, trials: Sequence[FrozenTrial]) -> Iterator[str]:
    """A row for each trial: number, values, duration, parameters, folder."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    columns = ["trial", *objectives(study), "seconds", *(name.lstrip("+") for name in names), "folder"]
    rows: list[list[Any]] = [columns]
    for trial in trials:
        seconds = "" if trial.duration is None else f"{trial.duration.total_seconds():.1f}"
        params = [trial.params.get(name, "") for name in names]
        rows.append([trial.number, *trial.values, seconds, *params, trial.user_attrs.get(FOLDER, "")])
    yield from _rows(rows)


def _text(value: object) -> str:
    """Anything in one line as HTML."""
    return html.escape(printable(f"{value:.6g}" if isinstance(value, float) else str(value)))
