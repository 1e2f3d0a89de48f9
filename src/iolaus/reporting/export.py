"""What a study came to as plain figures, for those who keep or compare results: ``report.py NAME --json FILE``."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from iolaus.compare.multi_seed import SEED
from iolaus.errors import InputError, redact_urls
from iolaus.reporting.importance import importances
from iolaus.study import attributes
from iolaus.study.attributes import COMMAND, ENDED, SETTINGS, TEST
from iolaus.study.catalog import StoredStudy, parts
from iolaus.study.tally import best_trials
from iolaus.study.trials import complete_trials, end_of, objectives, shown
from iolaus.system.files import atomic_write
from iolaus.system.provenance import find_record

ENVIRONMENT = ("version.", "resolved.", "machine", "mlflow.source.git.commit", "git_dirty", "data_digest", "overrides")
"""How the tags of a run begin that say what its results depend on."""


def summarize(kept: StoredStudy) -> dict[str, Any]:
    """A study in plain values.

    Returns:
        - ``study``, ``command`` and ``cores``: its name, and what was the last to work on it;
        - ``environment``: versions, machine, commit and overrides of one of the runs on test or, without them, of a
          trial; empty if its folder is not on this machine;
        - ``parts``: what became of the trials of the search and of what followed it, when the first began, and the
          seconds in which any ran (``busy_s``) and that each took in sum (``trials_s``);
        - ``search``: its best trials and finalists, ``importances`` in percent with the ends of their 95 % intervals,
          and what had ended it when the finals began;
        - ``finals`` and ``test``, with the value of every seed; or ``comparison`` instead of all three, of a list.
    """
    study = kept.study
    followed = parts(kept)
    found = {"study": study.study_name, "command": None, "cores": None, **study.user_attrs.get(COMMAND, {})}
    found["parts"] = {it.study.study_name.removeprefix(f"{study.study_name}-"): _spent(it.study) for it in followed}
    if SETTINGS in study.user_attrs:  # its trials were not drawn: no best one, and parameters that are only places
        comparison = study.user_attrs.get(attributes.COMPARISON_RESULT)
        environment = _environment(kept, complete_trials(study))
        return found | {"environment": environment, "parts": {"list": _spent(study)}, "comparison": comparison}
    known = dict(study.user_attrs.get(attributes.FINALS_RESULT, {}))
    test = known.pop("test", None)
    complete = complete_trials(study)
    finalists = {row["trial"] for row in known.get("finalists", [])}
    best = [*best_trials(study, complete), *(trial for trial in complete if trial.number in finalists)]
    last = [(part, _of(part.study, test)) for part in followed if part.study.study_name.endswith(f"-{TEST}")]
    return found | {
        "environment": _environment(*(last[0] if test is not None and last else (kept, best))),
        "parts": {"search": _spent(study), **found["parts"]},
        "search": {
            "objectives": objectives(study),
            "trials": {trial.number: {"values": trial.values, "params": trial.params} for trial in best},
            "importances": _importances(study),
            "ended": study.user_attrs.get(ENDED),
        },
        "finals": known or None,
        "test": test,
    }


def write(kept: StoredStudy, path: Path) -> None:
    """Write `figures` as JSON, in which what is infinite or not a number is a text.

    Raises:
        InputError: if the file cannot be written; one that was there is as it was.
    """
    plain = json.loads(json.dumps(summarize(kept)), parse_constant=str)
    try:
        with atomic_write(path) as file:
            file.write(f"{json.dumps(plain, indent=1, allow_nan=False)}\n".encode())
    except OSError as error:
        raise InputError(f"--json {path} cannot be written ({error.strerror}): name another file") from error


def _spent(study: Study) -> dict[str, Any]:
    """What became of a study's trials, and the time that they took."""
    trials = shown(study)
    spent: dict[str, Any] = {"trials": dict(Counter(map(end_of, trials)))}
    spans = sorted(
        (it.datetime_start, it.datetime_complete) for it in trials if it.datetime_start and it.datetime_complete
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


def _importances(study: Study) -> dict[str, Any] | None:
    found = importances(study)
    if found is None:
        return None
    percent = {name: [round(figure, 1) for figure in of] for name, of in found.shares.items()}
    clear = found.problem is None and found.clear
    return {"percent": percent, "best": found.top, "of": found.complete, "clear": clear, "problem": found.problem}


def _of(study: Study, row: Mapping[str, Any] | None) -> list[FrozenTrial]:
    """The runs of a row: those with its seeds and their values."""
    values = {} if row is None else dict(zip(row["seeds"], row["values"], strict=True))
    return [it for it in complete_trials(study) if values.get(it.params[SEED]) == it.values[0]]


def _environment(kept: StoredStudy, trials: Sequence[FrozenTrial]) -> dict[str, str]:
    """What the first of these trials that has left a record has said."""
    for trial in trials:
        record = find_record(kept.trial_folder(trial))
        if record is not None:
            tags = json.loads(record.read_text())["tags"]
            return {name: redact_urls(tag) for name, tag in tags.items() if name.startswith(ENVIRONMENT)}
    return {}
