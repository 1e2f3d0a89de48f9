"""A list of settings, each run with each of some seeds: a study whose trials are not drawn, but as exact as others."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from iolaus.errors import InputError
from iolaus.journal import open_storage
from iolaus.overrides import key_of
from iolaus.plan import Plan
from iolaus.search import Goals
from iolaus.space import Space
from iolaus.study import Direction, open_study

SETTING, SEED = "setting", "seed"
"""The parameters of such a trial: the place of its setting in the list, and its seed."""
SETTINGS = "iolaus:settings"
"""A user attribute of the study: the list, to which is only added."""
PART_OF = "iolaus:part_of"
"""A user attribute of the study: the name of the one that it is a part of."""
FINAL = "iolaus:final"
"""A user attribute of the study: its runs look at test images, and that is what their value is of."""
FIXED = "fixed_params"
"""Optuna's attribute of an enqueued trial: the parameters that it is to have."""


@dataclass(frozen=True)
class Listed(Plan):
    """A plan of such a study."""

    settings: Sequence[Sequence[str]] = ()
    """The overrides of each, without a seed."""

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial with these parameters."""
        return [*self.settings[params[SETTING]], f"{SEED}={params[SEED]}"]

    def suggest(self, trial: Trial, config: DictConfig, whitelist: Any) -> list[str]:
        """The overrides of an enqueued trial."""
        params = {name: trial.suggest_int(name, 0, 2**32 - 1) for name in (SETTING, SEED)}
        return self.overrides(params)


def listed(
    of: Plan,
    part: str,
    settings: Sequence[Sequence[str]],
    seeds: Sequence[int],
    directions: Sequence[Direction],
    facts: Mapping[str, str] | None = None,
    on_mismatch: str = "continue",
    *,
    final: bool = False,
) -> tuple[Listed, Study]:
    """Open or make a study, and put what it lacks of the list into its queue.

    Args:
        of: The plan of the study that it is a part of.
        part: Names its folder in the other's, and itself after the other's name; empty: it is that study.
        settings: Overrides of each setting, in which a seed is replaced.
        seeds: With which each is run.
        directions: Of the objectives.
        facts: Its identity, if it has one of its own.
        on_mismatch: See `iolaus.study.open_study`.
        final: Whether all is chosen already, so that the task may look at test images.
    """
    folder = Path(of.folder) / part if part else Path(of.folder)
    name = f"{of.study_name}-{part}" if part else of.study_name
    storage = of.storage if "://" in of.storage or not part else str(folder / "journal.log")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "claim.lock"):  # of two commands at once, one fills the queue
        study = open_study(open_storage(storage), name, directions, facts or {"part of": of.study_name}, on_mismatch)
        for attr, value in ((PART_OF, of.study_name if part else None), (FINAL, final)):
            if value and study.user_attrs.get(attr) != value:
                study.set_user_attr(attr, value)
        known: list[list[str]] = study.user_attrs.get(SETTINGS, [])
        wanted = [without_seed(setting) for setting in settings]
        everything = [*known, *(setting for setting in wanted if setting not in known)]
        if everything != known:
            study.set_user_attr(SETTINGS, everything)
        queued = {_pair(trial) for trial in study.get_trials(deepcopy=False)}
        for seed in seeds:  # not before each setting has run with one is any run with the next
            for setting in wanted:
                pair = everything.index(setting), seed
                if pair not in queued:
                    study.enqueue_trial(dict(zip((SETTING, SEED), pair, strict=True)))
                    queued.add(pair)
    plan = Listed(
        storage=storage, study_name=name, folder=str(folder), goals=Goals(len(queued), max_failure_rate=1.0),
        space=Space(), fixed={}, deletions=(), custom_search_space=None,
        sampler={"_target_": "optuna.samplers.RandomSampler", "seed": 0},
        pruner={"_target_": "optuna.pruners.NopPruner"}, repeats=1, seed=0, final=final, settings=everything,
    )  # fmt: skip
    return dataclasses.replace(plan, goals=plan.begun(study).goals), study


def without_seed(overrides: Sequence[str]) -> list[str]:
    """Overrides but that of the seed."""
    return [override for override in overrides if key_of(override.partition("=")[0]) != SEED]


def ran(plan: Listed, study: Study, setting: Sequence[str], seeds: Sequence[int]) -> dict[int, FrozenTrial]:
    """The complete trials of a setting by seed."""
    place = list(map(list, plan.settings)).index(without_seed(setting))
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    mine = {trial.params[SEED]: trial for trial in complete if trial.params[SETTING] == place}
    return {seed: mine[seed] for seed in seeds if seed in mine}


def require_seed(config: DictConfig) -> int:
    """The seed of a configuration.

    Raises:
        InputError: if it has none.
    """
    seed = config.get(SEED)
    if type(seed) is not int:
        raise InputError("to compare settings over seeds, the configuration needs seed to be a whole number")
    return seed


def _pair(trial: FrozenTrial) -> tuple[int, int]:
    params = {**trial.system_attrs.get(FIXED, {}), **trial.params}
    return params[SETTING], params[SEED]
