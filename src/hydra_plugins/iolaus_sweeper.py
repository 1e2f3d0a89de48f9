"""Hydra's sweeper ``iolaus``, which also answers to ``optuna``: a search whose workers never wait for each other.

What a sweep does stands in ``iolaus.sweep.sweep``; here is only what Hydra has to know, since this module is imported
whenever any Hydra program starts.
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
        """Take what Hydra gives a sweeper."""
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
    """How many (k) of the best settings are run again after the search, and with how many new seeds (r) each, and with
    how many the winner is tested (n_test; null: r)."""

    when: dict[str, Any] | None = None
    """What is searched only where a parameter has certain values; ``optimizer=sgd: {optimizer.momentum: ...}``."""

    enqueue: list[Any] = field(default_factory=list)
    """What is tried first: ``defaults`` and mappings of keys to values; what they leave out is sampled."""

    n_trials: int = 20
    """The study's total, whatever it has already."""

    n_jobs: int | None = None  # type: ignore[assignment]
    """Workers; null: one for each GPU, or for each core where there is none."""

    max_failure_rate: float = 0.0
    """Above this share of failures among the study's finished trials, judged from five on, it is given up."""

    repeats: int = 1
    """How often a trial runs its task, each time with the next ``seed``; its value is the mean."""

    target: float | None = None
    """A value that is to be passed."""

    at_target: str = "stop"
    """What to do when it is passed: stop, or only report."""

    timeout_s: float | None = None
    """Seconds after which this command begins no further trial."""

    patience: int | None = None
    """After how many trials without a better one to stop."""

    on_mismatch: str = "refuse"
    """What to do with a study of this name that was made with other settings: refuse it, or continue."""

    variants: Any = None
    """Settings to be compared, instead of a search: lists of overrides by name, or a function that gives them
    (iolaus.classifier.run.ablation.variants)."""

    seeds: int = 5
    """With how many seeds each of the variants is run."""

    report: bool = True
    """Whether to draw the report at the end, report.html in the study's folder."""

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
