"""What Hydra tells of a sweep of train.py, whose configuration names this callback."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig

from iolaus import config as run_config

if TYPE_CHECKING:  # a single run names it too, and has no use for Optuna
    from optuna.study import Study


class SweepCallback(Callback):
    """What a sweep of train.py does around its trials; our sweeper calls it, others do not."""

    def on_search_start(self, config: DictConfig, directions: list[str], target: float | None) -> None:
        """Refuse directions that do not fit the objective, a target that no value can pass, bounds of no metric."""
        run_config.check_directions(config, directions)
        run_config.check_target(config, target)
        run_config.check_constraints(config)

    def estimate_s(self, config: DictConfig, threads: int) -> float:
        """Time a few steps of a trial, and give the seconds that its training would take."""
        from iolaus import estimate

        return estimate.seconds(config, threads)

    def on_study_start(self, config: DictConfig, study: "Study") -> None:
        """Name the study's objectives, and have the tracker begin the sweep's run."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental is of no interest to who has named an objective
            study.set_metric_names(run_config.objectives(config))
        instantiate(config.tracking).begin_sweep(study, Path(config.hydra.sweep.dir))

    def on_study_end(self, config: DictConfig, study: "Study", status: str) -> None:
        """Have the tracker end it."""
        instantiate(config.tracking).end_sweep(study, Path(config.hydra.sweep.dir), status)
