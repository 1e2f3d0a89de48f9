"""Hydra's sweeper ``iolaus``, which also answers to ``optuna``: a search whose workers never wait for each other.

What a sweep does stands in ``iolaus.sweep``; here is only what Hydra has to know, since this module is imported
whenever any Hydra program starts.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf, SamplerConfig
from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
from omegaconf import DictConfig


class IolausSweeper(OptunaSweeper):
    """A drop-in for the official Optuna sweeper; ``docs/sweeper.md`` says where it differs."""

    def __init__(self, **settings: Any) -> None:
        """Keep the settings of `IolausSweeperConf`."""
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a sweeper."""
        from iolaus.sweep import Sweep

        self.search = Sweep(self.settings, hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Search until the study has its total."""
        self.search.run(arguments)


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
    group: bool = False
    warn_independent_sampling: bool | None = None
    constant_liar: bool = True
    constraints_func: Any | None = None


@dataclass
class IolausSweeperConf(OptunaSweeperConf):
    """The keys of the official sweeper, and our own."""

    _target_: str = "hydra_plugins.iolaus_sweeper.IolausSweeper"
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])

    n_trials: int = 20
    """The study's total, whatever it has already."""

    n_jobs: int | None = None  # type: ignore[assignment]
    """Workers; null: one for each GPU, or for each core where there is none."""

    max_failure_rate: float = 0.0
    """Above this share of failures among the study's finished trials, judged from five on, it is given up."""

    on_mismatch: str = "refuse"
    """What to do with a study of this name that was made with other settings: refuse it, or continue."""


store = ConfigStore.instance().store
store(group="hydra/sweeper", name="iolaus", node=IolausSweeperConf, provider="iolaus")
store(group="hydra/sweeper", name="optuna", node=IolausSweeperConf, provider="iolaus", replace=True)
store(group="hydra/sweeper/sampler", name="tpe", node=TPESamplerConf, provider="iolaus", replace=True)
