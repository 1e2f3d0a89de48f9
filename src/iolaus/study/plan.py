"""A plan of a search: all that a worker has to be told."""

import dataclasses
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from hydra.utils import instantiate
from omegaconf import DictConfig
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, WilcoxonPruner
from optuna.samplers import BaseSampler, GridSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial

from iolaus.errors import InputError, one_line
from iolaus.search_space.keys import key_of
from iolaus.search_space.overrides import overrides
from iolaus.search_space.space import Space, grid
from iolaus.study.attributes import STOPS
from iolaus.study.identity import seed_of
from iolaus.study.queue import Goals, TrialQueue
from iolaus.study.storage import open_storage

NEEDS = {"CmaEsSampler": ["cmaes"], "GPSampler": ["scipy", "torch"], "QMCSampler": ["scipy"]}
"""What samplers import only when they are first asked."""


@dataclass(frozen=True)
class Plan:
    """What is to be searched, and where its study is kept."""

    storage: str
    study_name: str
    folder: str
    goals: Goals
    space: Space
    fixed: Mapping[str, str]
    """Overrides by key that all trials share."""
    deletions: Sequence[str]
    custom_search_space: str | None
    sampler: Mapping[str, Any]
    """Its configuration."""
    pruner: Mapping[str, Any]
    """Its configuration."""
    repeats: int
    seed: int | None
    """Of the sampler; None only as long as the study is not open, which keeps one."""
    final: bool = False
    """Whether all is chosen already, so that the task may look at test images."""

    def begun(self, study: Study) -> "Plan":
        """The same for a study that is now there: with the seed that it keeps, and a request to stop forgotten."""
        goals = dataclasses.replace(self.goals, stops=study.user_attrs.get(STOPS, 0))
        seed = seed_of(study) if self.seed is None else self.seed
        sampler = {**self.sampler, "seed": seed} if "seed" in self.sampler else self.sampler
        return dataclasses.replace(self, goals=goals, seed=seed, sampler=sampler)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial with these parameters."""
        here = self.space.choose(lambda name, _: params.get(name, ""))
        constants = {name: value for name, value in here.items() if name not in params and value != ""}
        return overrides({**constants, **params}, self.fixed, self.deletions)

    def name_of(self, params: Mapping[str, Any]) -> str | None:
        """What is run with these parameters, if it has a name."""
        return None

    def suggest(self, trial: Trial, config: DictConfig, whitelist: Any) -> list[str]:
        """Have the sampler choose, and give the overrides of the trial.

        Args:
            trial: Has no parameters yet.
            config: Of the sweep, for the function that ``custom_search_space`` names.
            whitelist: What the app allows Hydra to call; None if it does not say.

        Raises:
            InputError: if that function searches for what is fixed.
        """
        here = self.space.choose(trial._suggest)
        extend = self.extension(whitelist)
        if extend is not None:
            extend(config, trial)
        both = {key_of(name) for name in trial.params} & {key_of(name) for name in self.fixed}
        if both:
            raise InputError(f"both fixed and searched for: {', '.join(sorted(both))}; remove one")
        return overrides({**here, **trial.params}, self.fixed, self.deletions)

    def open(self, storage: BaseStorage | None = None) -> TrialQueue:
        """Look at the study, which must exist.

        Args:
            storage: The same that is named here, where this process has it open: each keeps 8 kB of every trial.
        """
        assert self.seed is not None
        study = optuna.load_study(
            study_name=self.study_name,
            storage=open_storage(self.storage) if storage is None else storage,
            sampler=self._sampler(),
            pruner=self.make_pruner(),
        )
        return TrialQueue(study, self.goals, self.seed, Path(self.folder), self.fixed)

    def check(self, whitelist: Any) -> None:
        """Find out early whether the sampler, the pruner and the custom search space can be made.

        Args:
            whitelist: What the app allows Hydra to call; None if it does not say.

        Raises:
            InputError: if not.
        """
        key = "sampler"
        try:
            for package in NEEDS.get(str(self.sampler["_target_"]).rpartition(".")[2], ()):
                importlib.import_module(package)
            self._sampler()
            key = "pruner"
            pruner = self.make_pruner()
            key = "custom_search_space"
            self.extension(whitelist)
        except Exception as error:  # whatever they may raise
            raise InputError(f"hydra.sweeper.{key} cannot be used: {one_line(error)}") from error
        if isinstance(pruner, WilcoxonPruner) and self.repeats == 1:
            raise InputError("hydra/sweeper/pruner=wilcoxon prunes between repeats: set hydra.sweeper.repeats above 1")

    def extension(self, whitelist: Any) -> Callable[[DictConfig, Trial], None] | None:
        """What ``custom_search_space`` names, if anything: a function that suggests further parameters."""
        target = self.custom_search_space
        if target is None:
            return None
        allowed = (target,) if whitelist is None else whitelist
        extension: Callable[[DictConfig, Trial], None] = instantiate(
            {"_target_": target, "_partial_": True}, _execution_whitelist_=allowed
        )
        return extension

    def _sampler(self) -> BaseSampler:
        config = dict(self.sampler)
        if config["_target_"] == "optuna.samplers.TPESampler" and config.get("group", False) is None:
            # Without groups a conditional parameter would be sampled independently of the others.
            config["group"] = self.space.is_conditional and config.get("multivariate") is not False
            config["multivariate"] = config["group"] or config.get("multivariate")
        sampler = _instantiate(config, "hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
        if getattr(sampler, "func", None) is GridSampler:
            sampler = sampler(grid(self.space))
        assert isinstance(sampler, BaseSampler)
        return sampler

    def make_pruner(self) -> BasePruner:
        """The pruner that is configured."""
        pruner = _instantiate(dict(self.pruner), "optuna.pruners.*")
        assert isinstance(pruner, BasePruner)
        return pruner


def claimed(plan: Plan) -> FileLock:
    """A lock that one command on a host holds while it makes a plan's study, or fills its queue; its folder is made."""
    Path(plan.folder).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(plan.folder) / "claim.lock")


def _instantiate(config: Mapping[str, Any], *allowed: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of no interest to who has chosen it from our list
        return instantiate(dict(config), _execution_whitelist_=allowed)
