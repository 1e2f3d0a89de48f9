"""Hydra's sweeper ``iolaus``, which also answers to ``optuna``: a search whose workers never wait for each other.

The sweep itself is in ``iolaus.sweep.sweep``. This module has only what Hydra has to know, since it is imported
whenever any Hydra app starts.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf
from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
from omegaconf import MISSING, DictConfig

from iolaus.study.pruners import PRUNERS
from iolaus.study.samplers import SAMPLERS


class IolausSweeper(OptunaSweeper):
    """A drop-in for the official Optuna sweeper; ``docs/sweeper.md`` says where it differs."""

    def __init__(self, **settings: Any) -> None:
        """Keep the settings of `IolausSweeperConf`."""
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Set up the sweep with what Hydra gives a sweeper."""
        from iolaus.sweep.sweep import Sweep

        self.command = Sweep(self.settings, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Search until the study has its total."""
        self.command.run(arguments)


@dataclass
class IolausSweeperConf(OptunaSweeperConf):
    """The keys of the official sweeper, and our own."""

    _target_: str = "hydra_plugins.iolaus_sweeper.IolausSweeper"
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}, {"pruner": "none"}, {"finals": "none"}])

    pruner: Any = MISSING

    finals: Any = MISSING
    """Finals after the search: the k best settings run again with r new seeds each, and the winner is tested with
    n_test seeds (null: r)."""

    when: dict[str, Any] | None = None
    """Ranges that are searched only under conditions: ``optimizer=sgd: {optimizer.momentum: ...}``."""

    enqueue: list[Any] = field(default_factory=list)
    """Settings that are tried first: ``defaults``, and mappings of keys to values; missing keys are sampled."""

    n_trials: int = 20
    """The study's total, which includes the trials that it has already."""

    n_jobs: int | None = None  # type: ignore[assignment]
    """Workers; null: one for each GPU, or for each core where there is none."""

    max_failure_rate: float = 0.0
    """The share of failures among the study's finished trials above which a search ends; judged from five trials on."""

    repeats: int = 1
    """The number of times that a trial runs its task, each with the next ``seed``; the trial's value is the mean."""

    target: float | None = None
    """A value of the objective to reach or pass."""

    at_target: str = "stop"
    """The action at the target: stop, or only report."""

    timeout_s: float | None = None
    """Seconds after which this command starts no further trial."""

    patience: int | None = None
    """The number of trials without a better one after which the search ends."""

    on_mismatch: str = "refuse"
    """The treatment of a study of this name that was made with other settings: refuse it, or continue."""

    variants: Any = None
    """Settings to compare, instead of a search: lists of overrides by name, or a function that returns them
    (iolaus.classifier.run.ablation.variants)."""

    seeds: int = 5
    """The number of seeds that each of the variants is run with."""

    report: bool = True
    """Draw the report at the end, report.html in the study's folder."""

    dry_run: bool = False
    """Show the space, compose a trial of each branch and estimate how long it will take, but run nothing."""


store = ConfigStore.instance().store
store(group="hydra/sweeper", name="iolaus", node=IolausSweeperConf, provider="iolaus")
store(group="hydra/sweeper", name="optuna", node=IolausSweeperConf, provider="iolaus", replace=True)
store(group="hydra/sweeper/finals", name="none", node={"k": 0, "r": 0, "n_test": None}, provider="iolaus")
store(group="hydra/sweeper/finals", name="seeds", node={"k": 3, "r": 5, "n_test": None}, provider="iolaus")
for name, sampler in SAMPLERS.items():
    store(group="hydra/sweeper/sampler", name=name, node=sampler, provider="iolaus", replace=True)
for name, pruner in PRUNERS.items():
    store(group="hydra/sweeper/pruner", name=name, node=pruner, provider="iolaus")
