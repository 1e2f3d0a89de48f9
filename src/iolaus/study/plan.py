"""The plan of a search: all that a worker needs to know of it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial

from iolaus.errors import InputError, one_line
from iolaus.optuna_internals import suggest
from iolaus.search_space.keys import key_of
from iolaus.search_space.overrides import overrides
from iolaus.search_space.space import Space
from iolaus.study.attributes import STOPS
from iolaus.study.identity import seed_of
from iolaus.study.pruners import check_pruner, make_pruner
from iolaus.study.queue import Goals, TrialQueue
from iolaus.study.samplers import check_sampler, make_sampler
from iolaus.study.storage import open_storage


@dataclass(frozen=True)
class Plan:
    """The search space and the goals of a search, and the storage of its study."""

    storage: str
    study_name: str
    folder: str
    goals: Goals
    space: Space
    fixed: Mapping[str, str]
    """The overrides that all trials share: values by key element."""
    deletions: Sequence[str]
    """Overrides that begin with ``~``."""
    custom_search_space: str | None
    sampler: Mapping[str, Any]
    """Its configuration."""
    pruner: Mapping[str, Any]
    """Its configuration."""
    repeats: int
    seed: int | None
    """Of the sampler; None until the study is open, which stores one."""
    final: bool = False
    """True if all choices are made, so that the task may look at test images."""

    def begun(self, study: Study) -> "Plan":
        """Return the plan for a study that is now open: with its stored seed, and without earlier requests to stop."""
        goals = dataclasses.replace(self.goals, stops=study.user_attrs.get(STOPS, 0))
        seed = seed_of(study) if self.seed is None else self.seed
        sampler = {**self.sampler, "seed": seed} if "seed" in self.sampler else self.sampler
        return dataclasses.replace(self, goals=goals, seed=seed, sampler=sampler)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Return the overrides of a trial with these parameters."""
        here = self.space.choose(lambda name, _: params.get(name, ""))
        constants = {name: value for name, value in here.items() if name not in params and value != ""}
        return overrides({**constants, **params}, self.fixed, self.deletions)

    def name_of(self, params: Mapping[str, Any]) -> str | None:
        """Return the name of the setting with these parameters, if it has one."""
        return None

    def suggest(self, trial: Trial, config: DictConfig, whitelist: Any) -> list[str]:
        """Let the sampler choose the parameters, and return the overrides of the trial.

        Args:
            trial: A trial that has no parameters yet.
            config: Of the sweep, for the function that ``custom_search_space`` names.
            whitelist: The targets that the app allows Hydra to call; None if it does not say.

        Raises:
            InputError: if that function searches for what is fixed.
        """
        here = self.space.choose(lambda name, domain: suggest(trial, name, domain))
        extend = self.extension(whitelist)
        if extend is not None:
            extend(config, trial)
        both = {key_of(name) for name in trial.params} & {key_of(name) for name in self.fixed}
        if both:
            raise InputError(f"both fixed and searched for: {', '.join(sorted(both))}; remove one")
        return overrides({**here, **trial.params}, self.fixed, self.deletions)

    def open(self, storage: BaseStorage | None = None) -> TrialQueue:
        """Return the queue of the study, which must exist.

        Args:
            storage: The plan's storage if this process has it open already: each copy takes 8 kB for every trial.
        """
        assert self.seed is not None
        study = optuna.load_study(
            study_name=self.study_name,
            storage=open_storage(self.storage) if storage is None else storage,
            sampler=make_sampler(self.sampler, self.space),
            pruner=make_pruner(self.pruner),
        )
        return TrialQueue(study, self.goals, self.seed, Path(self.folder), self.fixed)

    def check(self, whitelist: Any, objectives: int) -> None:
        """Find out early whether the sampler, the pruner and the custom search space can be used.

        Args:
            whitelist: The targets that the app allows Hydra to call; None if it does not say.
            objectives: Their number.

        Raises:
            InputError: if not.
        """
        check_sampler(self.sampler, self.space)
        check_pruner(self.pruner, self.repeats, objectives)
        try:
            self.extension(whitelist)
        except Exception as error:  # whatever the module that it names may raise
            raise InputError(f"hydra.sweeper.custom_search_space cannot be used: {one_line(error)}") from error

    def extension(self, whitelist: Any) -> Callable[[DictConfig, Trial], None] | None:
        """Return the function that ``custom_search_space`` names, which suggests further parameters; None if unset."""
        target = self.custom_search_space
        if target is None:
            return None
        allowed = (target,) if whitelist is None else whitelist
        extension: Callable[[DictConfig, Trial], None] = instantiate(
            {"_target_": target, "_partial_": True}, _execution_whitelist_=allowed
        )
        return extension


def claim_lock(plan: Plan) -> FileLock:
    """Return the lock that a command holds while it makes or fills a plan's study; its folder is made if need be."""
    Path(plan.folder).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(plan.folder) / "claim.lock")
