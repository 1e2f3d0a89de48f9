"""The export of a study: its results as plain values, for those who keep or compare them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from iolaus.compare.multi_seed import SEED
from iolaus.errors import InputError, redact_urls
from iolaus.reporting.snapshot import Snapshot
from iolaus.study.attributes import ENDED, TEST
from iolaus.study.catalog import StoredStudy, parts
from iolaus.system.files import atomic_write
from iolaus.system.provenance import find_record

ENVIRONMENT = ("version.", "resolved.", "machine", "mlflow.source.git.commit", "git_dirty", "data_digest", "overrides")
"""The beginnings of the tags of a run that say what its results depend on."""


def summarize(stored: StoredStudy) -> dict[str, Any]:
    """Return the results of a study in plain values.

    Returns:
        - ``study``, ``command`` and ``cores``: its name, and what was the last to work on it;
        - ``environment``: versions, machine, commit and overrides of one of the runs on test or, without them, of a
          trial; empty if its folder is not on this machine;
        - ``parts``: for the search and for each part that followed it the number of trials by how they ended, when the
          first began, and the seconds in which any ran (``busy_s``) and that all took in sum (``trials_s``);
        - ``search``: its best trials and finalists, ``importances`` in percent with the ends of their 95 % intervals,
          and what had ended it when the finals began;
        - ``finals`` and ``test``, with the value of every seed; or ``comparison`` instead of all three, of a list.
    """
    snapshot = Snapshot.of(stored.study)
    found = {"study": snapshot.name, "command": None, "cores": None, **snapshot.last_command}
    if snapshot.is_list:
        environment = _environment(stored, snapshot.complete)
        return found | {
            "parts": {"list": _spent(snapshot)},
            "environment": environment,
            "comparison": snapshot.comparison,
        }
    followed = [(part, Snapshot.of(part.study)) for part in parts(stored)]
    known = dict(snapshot.finals or {})
    test = known.pop("test", None)
    finalists = {row["trial"] for row in known.get("finalists", [])}
    best = [*snapshot.best, *(trial for trial in snapshot.complete if trial.number in finalists)]
    last = [(part, _of(it, test)) for part, it in followed if it.name.endswith(f"-{TEST}")]
    after = {it.name.removeprefix(f"{snapshot.name}-"): _spent(it) for _, it in followed}
    return found | {
        "parts": {"search": _spent(snapshot), **after},
        "environment": _environment(*(last[0] if test is not None and last else (stored, best))),
        "search": {
            "objectives": list(snapshot.objectives),
            "trials": {trial.number: {"values": trial.values, "params": trial.params} for trial in best},
            "importances": _importances(snapshot),
            "ended": snapshot.attrs.get(ENDED),
        },
        "finals": known or None,
        "test": test,
    }


def write(stored: StoredStudy, path: Path) -> None:
    """Write the results of a study as JSON, in which what is infinite or not a number is a text.

    Raises:
        InputError: if the file cannot be written; one that was there is as it was.
    """
    plain = json.loads(json.dumps(summarize(stored)), parse_constant=str)
    try:
        with atomic_write(path) as file:
            file.write(f"{json.dumps(plain, indent=1, allow_nan=False)}\n".encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): name another file") from error


def _spent(snapshot: Snapshot) -> dict[str, Any]:
    """Return the number of trials by how they ended, and the time that they took."""
    spent: dict[str, Any] = {"trials": dict(snapshot.ends)}
    spans = sorted(
        (trial.datetime_start, trial.datetime_complete)
        for trial in snapshot.trials
        if trial.datetime_start and trial.datetime_complete
    )
    if not spans:
        return spent
    busy_s, until = 0.0, spans[0][0]
    for begin, end in spans:
        busy_s += max(0.0, (end - max(begin, until)).total_seconds())
        until = max(until, end)
    spent["begun"] = spans[0][0].isoformat(timespec="seconds")
    spent["busy_s"] = round(busy_s, 1)
    spent["trials_s"] = round(sum((end - begin).total_seconds() for begin, end in spans), 1)
    return spent


def _importances(snapshot: Snapshot) -> dict[str, Any] | None:
    found = snapshot.importances
    if found is None:
        return None
    percent = {name: [round(number, 1) for number in share] for name, share in found.shares.items()}
    clear = found.problem is None and found.clear
    return {"percent": percent, "best": found.top, "of": found.complete, "clear": clear, "problem": found.problem}


def _of(snapshot: Snapshot, row: Mapping[str, Any] | None) -> list[FrozenTrial]:
    """Return the runs of a row of results: those with its seeds and their values."""
    values = {} if row is None else dict(zip(row["seeds"], row["values"], strict=True))
    return [trial for trial in snapshot.complete if values.get(trial.params[SEED]) == trial.values[0]]


def _environment(stored: StoredStudy, trials: Sequence[FrozenTrial]) -> dict[str, str]:
    """Return the tags of the first of these trials that has left a record."""
    for trial in trials:
        record = find_record(stored.trial_folder(trial))
        if record is not None:
            tags = json.loads(record.read_text())["tags"]
            return {name: redact_urls(tag) for name, tag in tags.items() if name.startswith(ENVIRONMENT)}
    return {}
