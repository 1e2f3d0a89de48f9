"""What a study came to as plain figures, for those who keep or compare results: ``report.py NAME --json FILE``."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.study import Study

from iolaus import finals, machine, variants
from iolaus.importance import importances
from iolaus.outcome import best_trials, complete_trials, end_of, objectives, shown
from iolaus.reproduce import RECORD
from iolaus.studies import Kept, parts
from iolaus.study import COMMAND

ENVIRONMENT = ("version.", "resolved.", "machine", "mlflow.source.git.commit", "git_dirty", "data_digest", "overrides")
"""How the tags of a run begin that say what its results depend on."""


def figures(kept: Kept) -> dict[str, Any]:
    """A study in plain values.

    Returns:
        ``command``; ``environment``, of the newest run, with its overrides; what became of the trials of each part, and
        the time that they took in seconds: ``wall_s`` from the first start to the last end, ``worker_s`` the sum over
        trials. Of a search its best trials and finalists, and ``importances`` (percent, with the ends of their 95 %
        intervals), then its ``finals`` and ``test``; or the ``comparison`` of its settings; each with the value of
        every seed.
    """
    study = kept.study
    followed = parts(kept)
    found: dict[str, Any] = {
        "study": study.study_name,
        "command": study.user_attrs.get(COMMAND),
        "cores": machine.cores(),
        "environment": _environment([kept, *followed]),
        "parts": {part.study.study_name.removeprefix(f"{study.study_name}-"): _spent(part.study) for part in followed},
    }
    if variants.FOUND in study.user_attrs:
        return found | {"parts": {"comparison": _spent(study)}, "comparison": study.user_attrs[variants.FOUND]}
    found["parts"] = {"search": _spent(study), **found["parts"]}
    known = dict(study.user_attrs.get(finals.FOUND, {}))
    complete = complete_trials(study)
    finalists = {row["trial"] for row in known.get("finalists", [])}
    best = [*best_trials(study, complete), *(trial for trial in complete if trial.number in finalists)]
    return found | {
        "search": {
            "objectives": objectives(study),
            "trials": {trial.number: {"values": trial.values, "params": trial.params} for trial in best},
            "importances": _importances(study),
        },
        "test": known.pop("test", None),
        "finals": known or None,
    }


def write(kept: Kept, path: Path) -> None:
    """Write `figures` as JSON."""
    path.write_text(json.dumps(figures(kept), indent=1) + "\n")


def _spent(study: Study) -> dict[str, Any]:
    """What became of a study's trials, and the time that they took."""
    trials = shown(study)
    spent: dict[str, Any] = {"trials": dict(Counter(map(end_of, trials)))}
    spans = [(it.datetime_start, it.datetime_complete) for it in trials if it.datetime_start and it.datetime_complete]
    if spans:
        begin, end = min(begin for begin, _ in spans), max(end for _, end in spans)
        spent["begun"] = begin.isoformat(timespec="seconds")
        spent["wall_s"] = round((end - begin).total_seconds(), 1)
        spent["worker_s"] = round(sum((end - begin).total_seconds() for begin, end in spans), 1)
    return spent


def _importances(study: Study) -> dict[str, list[float]] | None:
    found = importances(study)
    if found is None or found.problem is not None:
        return None
    return {name: [round(figure, 1) for figure in of] for name, of in found.of.items()}


def _environment(parts: Sequence[Kept]) -> dict[str, str]:
    """Tags of the newest run that has left any."""
    for part in reversed(parts):
        for trial in reversed(complete_trials(part.study)):
            folder = part.trial_folder(trial)
            if folder is not None and (folder / RECORD).exists():
                tags = json.loads((folder / RECORD).read_text())["tags"]
                return {name: tag for name, tag in tags.items() if name.startswith(ENVIRONMENT)}
    return {}
