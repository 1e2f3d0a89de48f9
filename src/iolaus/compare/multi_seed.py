"""A list of settings, each run with each of some seeds: a study whose trials are not drawn, but as exact as others."""

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
"""The parameters of such a trial: the place of its setting in the list, and its seed."""
COSTS = ("params", "fit_s")
"""Metrics of a run that say what a setting costs."""


@dataclass(frozen=True)
class MultiSeedPlan(Plan):
    """A plan of such a study."""

    settings: Sequence[Sequence[str]] = ()
    """The overrides of each, without a seed."""
    names: Mapping[int, str] = field(default_factory=dict)
    """What those are called that this command has asked for, by place."""
    seed_key: str = SEED
    """How the override of a seed begins: with a plus where the configuration has no such key."""

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial with these parameters."""
        return [*self.settings[params[SETTING]], f"{self.seed_key}={params[SEED]}"]

    def name_of(self, params: Mapping[str, Any]) -> str | None:
        """What is run with these parameters."""
        return self.names.get(params[SETTING], f"setting {params[SETTING]}")

    def suggest(self, trial: Trial, config: DictConfig, whitelist: Any) -> list[str]:
        """The overrides of an enqueued trial."""
        params = {name: trial.suggest_int(name, 0, 2**32 - 1) for name in (SETTING, SEED)}
        return self.overrides(params)


def open_part(of: Plan, whole: Study, part: str, directions: Sequence[Direction]) -> tuple[Plan, Study]:
    """Open or make a study of what follows another, in a folder of its own; one that followed another is begun anew.

    Args:
        of: The plan of the other.
        whole: The other.
        part: Names the folder, and the study after the other's name; `TEST` may look at test images.
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
            require_format(known)  # before it is taken for one that followed another study
            if known.user_attrs.get(IDENTITY) not in (None, facts):
                optuna.delete_study(study_name=plan.study_name, storage=storage)
        study = open_study(storage, plan.study_name, directions, facts, "refuse")
        inherit(study, whole)
        if plan.final and FINAL not in study.user_attrs:
            study.set_user_attr(FINAL, True)
    return plan, study


def queue(of: Plan, study: Study, settings: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> MultiSeedPlan:
    """Put what a study lacks of a list into its queue, and give the plan of its runs.

    Args:
        of: A plan of the study.
        study: It is there.
        settings: The overrides of each by name; a seed among them is replaced.
        seeds: With which each is run.
    """
    with claim_lock(of):
        wanted = [without_seed(setting) for setting in settings.values()]
        everything: list[list[str]] = study.user_attrs.get(SETTINGS, [])
        more = [setting for setting in wanted if _place(everything, setting) is None]
        if more:
            everything = [*everything, *more]
            study.set_user_attr(SETTINGS, everything)
        places = [_place(everything, setting) for setting in wanted]
        queued = _queued(study)
        for seed in seeds:  # not before each setting has run with one is any run with the next
            for place in places:
                if (place, seed) not in queued:
                    study.enqueue_trial({SETTING: place, SEED: seed})
                    queued.add((place, seed))
        total = Tally.of(study, study.get_trials(deepcopy=False)).settings
    added = any(override.startswith(f"+{SEED}=") for setting in settings.values() for override in setting)
    plan = MultiSeedPlan(
        storage=of.storage, study_name=of.study_name, folder=of.folder, final=of.final,
        goals=Goals(total, max_failure_rate=1.0, limit=total), space=Space(), fixed={}, deletions=(),
        custom_search_space=None, sampler={"_target_": "optuna.samplers.RandomSampler", "seed": 0},
        pruner=PRUNERS["none"], repeats=1, seed=0, settings=everything,
        names={place: name for place, name in zip(places, settings, strict=True) if place is not None},
        seed_key=f"+{SEED}" if added else SEED,
    )  # fmt: skip
    return dataclasses.replace(plan, goals=plan.begun(study).goals)


def without_seed(overrides: Sequence[str]) -> list[str]:
    """Overrides but that of the seed."""
    return [override for override in overrides if key_of(override) != SEED]


def left(study: Study, settings: Iterable[Sequence[str]], seeds: Sequence[int]) -> int:
    """How many runs of a list have not come to an end."""
    trials, everything = study.get_trials(deepcopy=False), study.user_attrs.get(SETTINGS, [])
    ended = {_pair(trial) for trial in trials if trial.state.is_finished() and not needs_retry(trial)}
    return sum((_place(everything, setting), seed) not in ended for setting in settings for seed in seeds)


def ran(plan: MultiSeedPlan, study: Study, setting: Sequence[str], seeds: Sequence[int]) -> dict[int, FrozenTrial]:
    """The complete trials of a setting by seed."""
    place = _place(plan.settings, setting)
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    mine = {trial.params[SEED]: trial for trial in complete if trial.params[SETTING] == place}
    return {seed: mine[seed] for seed in seeds if seed in mine}


def row_of(plan: MultiSeedPlan, study: Study, setting: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """What a setting came to: its values by seed and their mean, the runs that failed, and its costs with their median.

    The first run of a process takes longer, so that the mean of the times would be its neighbours'.
    """
    done = ran(plan, study, setting, seeds)
    values = [trial.values[0] for trial in done.values()]
    row: dict[str, Any] = {"values": values, "seeds": list(done), "failed": len(seeds) - len(done)}
    row |= asdict(mean_of(values)) if values else {"mean": None, "interval": None, "n": 0}
    results = [trial.user_attrs.get(RESULTS, {}) for trial in done.values()]
    for cost in COSTS:
        row[f"all_{cost}"] = known = [result[cost] for result in results if cost in result]
        row[cost] = statistics.median(known) if known else None
    return row


def add_difference(row: dict[str, Any], base: Mapping[str, Any]) -> None:
    """Add to a row by how much it differs from another, paired by seed; nothing if no seed is in both."""
    mine, others = (dict(zip(it["seeds"], it["values"], strict=True)) for it in (row, base))
    found = paired(mine, others)
    if found.n > 0:
        row |= {"difference": found.mean, "difference_interval": found.interval, "p": found.p}
        row["significant"] = found.significant


def require_seed(config: DictConfig) -> int:
    """The seed of a configuration.

    Raises:
        InputError: if it has none.
    """
    seed = OmegaConf.select(config, SEED)
    if type(seed) is not int:
        raise InputError(
            f"to compare settings over seeds, seed must be a whole number, but the configuration has {seed}"
        )
    return seed


def _place(settings: Sequence[Sequence[str]], setting: Sequence[str]) -> int | None:
    """Where a setting stands in a list, whatever the order of its overrides."""
    wanted = sorted(without_seed(setting))
    return next((place for place, known in enumerate(settings) if sorted(known) == wanted), None)


def _queued(study: Study) -> set[tuple[Any, int]]:
    """The pairs of setting and seed that somebody has queued; what was only surplus is none."""
    trials = study.get_trials(deepcopy=False)
    return {_pair(trial) for trial in trials if trial.system_attrs.get(END) != SURPLUS}


def _pair(trial: FrozenTrial) -> tuple[Any, int]:
    params = {**enqueued_params(trial.system_attrs), **trial.params}
    return params[SETTING], params[SEED]
