"""Settings that are each run with several seeds: the study of these runs, its plan, and the results by setting."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from iolaus.compare.statistics import mean_of, paired
from iolaus.errors import InputError
from iolaus.optuna_internals import enqueued_params
from iolaus.search_space.keys import key_of
from iolaus.search_space.space import Space
from iolaus.study.attributes import END, FINAL, IDENTITY, RESULTS, SETTINGS, SURPLUS, TEST
from iolaus.study.identity import Direction, facts_of_part, inherit, open_study, require_format
from iolaus.study.plan import Plan, claim_lock
from iolaus.study.pruners import PRUNERS
from iolaus.study.queue import Goals
from iolaus.study.storage import open_storage
from iolaus.study.tally import Tally
from iolaus.study.trials import needs_retry

SETTING, SEED = "setting", "seed"
"""The parameters of such a trial: the index of its setting in the study's list, and its seed."""
COSTS = ("params", "fit_s")
"""Metrics of a run that tell the cost of a setting."""


@dataclass(frozen=True)
class MultiSeedPlan(Plan):
    """The plan of a study that runs each of its settings with several seeds."""

    settings: Sequence[Sequence[str]] = ()
    """The overrides of each setting, without a seed."""
    names: Mapping[int, str] = field(default_factory=dict)
    """The names of the settings that this command has asked for, by index."""
    seed_key: str = SEED
    """The key element of the seed's override, with a plus where the configuration has no such key."""

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial with these parameters."""
        return [*self.settings[params[SETTING]], f"{self.seed_key}={params[SEED]}"]

    def name_of(self, params: Mapping[str, Any]) -> str | None:
        """Return the name of the setting with these parameters."""
        return self.names.get(params[SETTING], f"setting {params[SETTING]}")

    def suggest(self, trial: Trial, config: DictConfig, whitelist: Any) -> list[str]:
        """Return the overrides of an enqueued trial."""
        params = {name: trial.suggest_int(name, 0, 2**32 - 1) for name in (SETTING, SEED)}
        return self.overrides(params)


def open_part(of: Plan, whole: Study, part: str, directions: Sequence[Direction]) -> tuple[Plan, Study]:
    """Open or make a part study, in a folder of its own; one that belongs to another study of this name is made anew.

    Args:
        of: The plan of the whole study.
        whole: The study that it follows.
        part: The name of the folder, and the ending of the study's name; `TEST` may look at test images.
        directions: Of its objectives.
    """
    folder = Path(of.folder) / part
    in_folder = of.storage == str(Path(of.folder) / "journal.log")
    plan = dataclasses.replace(
        of,
        storage=str(folder / "journal.log") if in_folder else of.storage,
        study_name=f"{of.study_name}-{part}",
        folder=str(folder),
        final=part == TEST,
    )
    facts = facts_of_part(whole)
    with claim_lock(plan):
        storage = open_storage(plan.storage)
        if plan.study_name in optuna.get_all_study_names(storage):
            known = optuna.load_study(study_name=plan.study_name, storage=storage)
            require_format(known)  # before it is taken for a part of another study
            if known.user_attrs.get(IDENTITY) not in (None, facts):
                optuna.delete_study(study_name=plan.study_name, storage=storage)
        study = open_study(storage, plan.study_name, directions, facts, "refuse")
        inherit(study, whole)
        if plan.final and FINAL not in study.user_attrs:
            study.set_user_attr(FINAL, True)
    return plan, study


def enqueue_runs(of: Plan, study: Study, settings: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> MultiSeedPlan:
    """Enqueue those runs of settings that a study lacks, and return the plan of all of them.

    Args:
        of: A plan of the study.
        study: The study, which must exist.
        settings: The overrides of each setting by name; a seed among them is replaced.
        seeds: The seeds that each is run with.
    """
    with claim_lock(of):
        wanted = [without_seed(setting) for setting in settings.values()]
        known_settings: list[list[str]] = study.user_attrs.get(SETTINGS, [])
        more = [setting for setting in wanted if _index(known_settings, setting) is None]
        if more:
            known_settings = [*known_settings, *more]
            study.set_user_attr(SETTINGS, known_settings)
        indices = [_index(known_settings, setting) for setting in wanted]
        queued = _queued(study)
        for seed in seeds:  # not before each setting has run with one is any run with the next
            for index in indices:
                if (index, seed) not in queued:
                    study.enqueue_trial({SETTING: index, SEED: seed})
                    queued.add((index, seed))
        total = Tally.of(study, study.get_trials(deepcopy=False)).settings
    added = any(override.startswith(f"+{SEED}=") for setting in settings.values() for override in setting)
    plan = MultiSeedPlan(
        storage=of.storage, study_name=of.study_name, folder=of.folder, final=of.final,
        goals=Goals(total, max_failure_rate=1.0, limit=total), space=Space(), fixed={}, deletions=(),
        custom_search_space=None, sampler={"_target_": "optuna.samplers.RandomSampler", "seed": 0},
        pruner=PRUNERS["none"], repeats=1, seed=0, settings=known_settings,
        names={index: name for index, name in zip(indices, settings, strict=True) if index is not None},
        seed_key=f"+{SEED}" if added else SEED,
    )  # fmt: skip
    return dataclasses.replace(plan, goals=plan.begun(study).goals)


def without_seed(overrides: Sequence[str]) -> list[str]:
    """Return overrides without that of the seed."""
    return [override for override in overrides if key_of(override) != SEED]


def count_left(study: Study, settings: Iterable[Sequence[str]], seeds: Sequence[int]) -> int:
    """Return the number of runs of these settings that have not ended."""
    trials, known_settings = study.get_trials(deepcopy=False), study.user_attrs.get(SETTINGS, [])
    ended = {_pair(trial) for trial in trials if trial.state.is_finished() and not needs_retry(trial)}
    return sum((_index(known_settings, setting), seed) not in ended for setting in settings for seed in seeds)


def complete_runs(
    plan: MultiSeedPlan, study: Study, setting: Sequence[str], seeds: Sequence[int]
) -> dict[int, FrozenTrial]:
    """Return the complete trials of a setting by seed."""
    index = _index(plan.settings, setting)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    mine = {trial.params[SEED]: trial for trial in complete if trial.params[SETTING] == index}
    return {seed: mine[seed] for seed in seeds if seed in mine}


def row_of(plan: MultiSeedPlan, study: Study, setting: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the results of a setting: its values by seed with their mean, its failed runs, and its median costs.

    The first run of a process takes longer, which would weigh on a mean of the times.
    """
    done = complete_runs(plan, study, setting, seeds)
    values = [trial.values[0] for trial in done.values()]
    row: dict[str, Any] = {"values": values, "seeds": list(done), "failed": len(seeds) - len(done)}
    row |= asdict(mean_of(values)) if values else {"mean": None, "interval": None, "n": 0}
    results = [trial.user_attrs.get(RESULTS, {}) for trial in done.values()]
    for cost in COSTS:
        row[f"all_{cost}"] = known = [result[cost] for result in results if cost in result]
        row[cost] = statistics.median(known) if known else None
    return row


def add_difference(row: dict[str, Any], base: Mapping[str, Any]) -> None:
    """Add to a row its difference from another, paired by seed; nothing if they have no seed in common."""
    mine, others = (dict(zip(it["seeds"], it["values"], strict=True)) for it in (row, base))
    difference = paired(mine, others)
    if difference.n > 0:
        row |= {"difference": difference.mean, "difference_interval": difference.interval, "p": difference.p}
        row["significant"] = difference.significant


def require_seed(config: DictConfig) -> int:
    """Return the seed of a configuration.

    Raises:
        InputError: if it has none.
    """
    seed = OmegaConf.select(config, SEED)
    if type(seed) is not int:
        raise InputError(
            f"to compare settings over seeds, seed must be a whole number, but the configuration has {seed}"
        )
    return seed


def _index(settings: Sequence[Sequence[str]], setting: Sequence[str]) -> int | None:
    """Return the index of a setting in a list, in any order of its overrides; None if it is not there."""
    wanted = sorted(without_seed(setting))
    return next((index for index, known in enumerate(settings) if sorted(known) == wanted), None)


def _queued(study: Study) -> set[tuple[Any, int]]:
    """Return the pairs of setting and seed that have been enqueued, apart from surplus trials."""
    trials = study.get_trials(deepcopy=False)
    return {_pair(trial) for trial in trials if trial.system_attrs.get(END) != SURPLUS}


def _pair(trial: FrozenTrial) -> tuple[Any, int]:
    params = {**enqueued_params(trial.system_attrs), **trial.params}
    return params[SETTING], params[SEED]
