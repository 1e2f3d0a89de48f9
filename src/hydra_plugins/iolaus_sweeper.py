"""Hydra's sweeper ``iolaus``, which also answers to ``optuna``: a search whose workers never wait for each other.

What a sweep does stands in ``iolaus.sweep.sweep``; here is only what Hydra has to know, since this module is imported
whenever any Hydra program starts.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf, SamplerConfig
from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
from omegaconf import MISSING, DictConfig


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
class TPESamplerConf(SamplerConfig):
    """Optuna's own defaults; the official sweeper's switch two improvements of Optuna 5 off."""

    _target_: str = "optuna.samplers.TPESampler"
    seed: int | None = None
    consider_prior: bool | None = None
    prior_weight: float | None = None
    consider_magic_clip: bool | None = None
    consider_endpoints: bool | None = None
    n_startup_trials: int = 10
    n_ei_candidates: int = 24
    multivariate: bool | None = None
    group: bool | None = None
    """null: where the space is conditional."""
    warn_independent_sampling: bool | None = None
    constant_liar: bool = True
    constraints_func: Any | None = None


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
store(group="hydra/sweeper/sampler", name="tpe", node=TPESamplerConf, provider="iolaus", replace=True)

PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"_target_": "optuna.pruners.NopPruner"},
    "median": {
        "_target_": "optuna.pruners.MedianPruner",
        "n_startup_trials": 5,
        "n_warmup_steps": 0,
        "interval_steps": 1,
        "n_min_trials": 1,
    },
    "asha": {
        "_target_": "optuna.pruners.SuccessiveHalvingPruner",
        "min_resource": 1,
        "reduction_factor": 3,
        "min_early_stopping_rate": 0,
        "bootstrap_count": 0,
    },
    "hyperband": {
        "_target_": "optuna.pruners.HyperbandPruner",
        "min_resource": 1,
        "max_resource": "auto",
        "reduction_factor": 3,
        "bootstrap_count": 0,
    },
    "threshold": {
        "_target_": "optuna.pruners.ThresholdPruner",
        "lower": None,
        "upper": None,
        "n_warmup_steps": 0,
        "interval_steps": 1,
    },
    "patient": {
        "_target_": "optuna.pruners.PatientPruner",
        "wrapped_pruner": {"_target_": "optuna.pruners.MedianPruner"},
        "patience": 1,
        "min_delta": 0.0,
    },
    "wilcoxon": {"_target_": "optuna.pruners.WilcoxonPruner", "p_threshold": 0.1, "n_startup_steps": 2},
}
store(group="hydra/sweeper/finals", name="none", node={"k": 0, "r": 0, "n_test": None}, provider="iolaus")
store(group="hydra/sweeper/finals", name="seeds", node={"k": 3, "r": 5, "n_test": None}, provider="iolaus")
for name, pruner in PRUNERS.items():
    store(group="hydra/sweeper/pruner", name=name, node=pruner, provider="iolaus")
