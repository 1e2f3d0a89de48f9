"""The best of a study, as a file and in words, and the commands that run it once more."""

import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from iolaus.command_line import config_options
from iolaus.search_space.compose import Composer, settings_of
from iolaus.search_space.keys import key_element, key_of
from iolaus.search_space.overrides import as_element
from iolaus.study.attributes import FOLDER
from iolaus.study.plan import Plan
from iolaus.study.tally import Tally, best_of, best_trials
from iolaus.system.files import atomic_write

log = logging.getLogger(__name__)

SHOWN = 5
"""The number of the best trials for several objectives that are shown."""


def write_results(study: Study, folder: Path) -> None:
    """Write ``optimization_results.yaml``, as the official sweeper does."""
    results: dict[str, Any] = {"name": "optuna"}
    if len(study.directions) == 1:
        with suppress(ValueError):  # no trial is complete
            results |= {"best_params": _by_override(study.best_trial.params), "best_value": study.best_trial.value}
    else:
        results["solutions"] = [
            {"params": _by_override(trial.params), "values": trial.values} for trial in study.best_trials
        ]
    with atomic_write(folder / "optimization_results.yaml") as file:
        file.write(OmegaConf.to_yaml(OmegaConf.create(results)).encode())


def _by_override(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters by the beginning of their overrides, whichever branch their ranges are of."""
    return {key_element(name): value for name, value in params.items()}


def summary(study: Study, plan: Plan, composer: Composer) -> Iterator[str]:
    """Yield the best trial, its folder, and the command that runs it once more, in lines.

    Args:
        study: That has come to its end.
        plan: Of its last command.
        composer: Of the sweep.
    """
    best = best_trials(study, study.get_trials(deepcopy=False))
    if len(study.directions) > 1:
        yield f"{len(best)} trials that no other beats in all objectives (optimization_results.yaml has them all):"
    for trial in best[:SHOWN]:
        values = ", ".join(f"{value:.6g}" for value in trial.values)
        yield f"best trial {trial.number}: {values}: {folder_of(trial, plan)}"
        yield f"  once more:  {rerun_command(trial, plan, composer)}"


def folder_of(trial: FrozenTrial, plan: Plan) -> Path:
    """Return the folder of a trial."""
    return Path(plan.folder) / trial.user_attrs.get(FOLDER, str(trial.number))


def rerun_command(trial: FrozenTrial, plan: Plan, composer: Composer) -> str:
    """Return the command that runs a trial once more."""
    return command(overrides_of(trial, plan), composer)


def overrides_of(trial: FrozenTrial, plan: Plan) -> list[str]:
    """Return the overrides that a trial was composed of."""
    own = folder_of(trial, plan) / ".hydra" / "overrides.yaml"  # after on_mismatch=continue they may not be the plan's
    return list(map(str, OmegaConf.load(own))) if own.exists() else plan.overrides(trial.params)


def write_report(study: Study, plan: Plan, composer: Composer, target: float | None) -> Path | None:
    """Write the page and the pictures, and return the page's path; None where they cannot be drawn."""
    try:
        from iolaus.reporting import page
        from iolaus.study import attributes

        best = best_of(study, study.get_trials(deepcopy=False))
        again = None if best is None else rerun_command(best, plan, composer)
        known = {"trial": None if best is None else best.number, "command": again, "target": target}
        if study.user_attrs.get(attributes.REPORT) != known:
            study.set_user_attr(attributes.REPORT, known)
        return page.write_again(study, Path(plan.folder))
    except Exception as error:  # whatever it is: the search has its results
        log.warning("the report could not be written: %s: %s", type(error).__name__, error)
    return None


def passed(study: Study, target: float) -> str:
    """Say which trial was the first to pass a target, and how long after the first trial's start it ended."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    start = min(
        (trial.datetime_start for trial in study.get_trials(deepcopy=False) if trial.datetime_start), default=None
    )
    for trial in sorted(trials, key=lambda trial: trial.datetime_complete or datetime.max):
        if Tally.of(study, [trial]).passes(target):
            assert start is not None
            assert trial.datetime_complete is not None
            seconds = (trial.datetime_complete - start).total_seconds()
            return f"target {target:g} passed by trial {trial.number}, {seconds:.1f} s after the first trial's start"
    return f"target {target:g} not passed"


def command(overrides: Sequence[str], composer: Composer) -> str:
    """Return the shell command of a single run with these overrides."""
    return shlex.join([*_program(), *config_options(sys.argv[1:]), *_without_search(overrides, composer)])


def this_command() -> str:
    """Return the shell command of this process."""
    return shlex.join([*_program(), *sys.argv[1:]])


def _program() -> list[str]:
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return ["python", *([sys.argv[0]] if module is None else ["-m", module.name.removesuffix(".__main__")])]


def _without_search(overrides: Sequence[str], composer: Composer) -> list[str]:
    """Return overrides without that of the group that chooses the search, but with the settings that came from it."""
    kept = [override for override in overrides if not override.startswith("hparams_search=")]
    if len(kept) == len(overrides):
        return kept
    trial = composer.compose(overrides)
    # What the search chose of the groups comes first: the keys of what it did not choose are not there.
    choices = composer.compose_single([o for o in kept if composer.is_group(key_of(o))]).hydra.runtime.choices
    groups = [
        f"{'' if group in choices else '+'}{group}={'null' if option is None else option}"
        for group, option in trial.hydra.runtime.choices.items()
        if group != "hparams_search" and not group.startswith("hydra/") and choices.get(group) != option
    ]
    kept = [*groups, *kept]
    here = settings_of(composer.compose_single(kept))
    return kept + [
        f"{'' if name in here else '+'}{name}={as_element(value)}"
        for name, value in settings_of(trial).items()
        if here.get(name, MISSING) != value
    ]
