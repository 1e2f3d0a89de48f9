"""The Hydra callback of train.py, which its configuration names: what a sweep of it does besides its trials."""

import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig

from iolaus.classifier.run import objective, test_set_log
from iolaus.classifier.run.config import CHAMPION_PREFIX
from iolaus.errors import InputError

if TYPE_CHECKING:  # a single run names it too, and has no use for Optuna
    from optuna.study import Study
    from optuna.trial import FrozenTrial


class SweepCallback(Callback):
    """Checks, records and concludes a sweep of train.py; Iolaus's sweeper calls its methods, others do not."""

    def on_search_start(self, config: DictConfig, directions: list[str], target: float | None) -> None:
        """Refuse directions that do not fit the objective, a target that no value can pass, bounds of unknown metrics.

        Also refuse a search without val, by which its trials are compared.
        """
        if config.train_on_val:
            raise InputError("train_on_val=true leaves a search nothing to compare by: add train_on_val=false")
        objective.check_directions(config, directions)
        objective.check_target(config, target)
        objective.check_constraints(config)

    def estimate_s(self, config: DictConfig, threads: int) -> float:
        """Time a few steps of a trial, and return the seconds that its training would take."""
        from iolaus.classifier.run import estimate

        return estimate.seconds(config, threads)

    def on_study_start(self, config: DictConfig, study: "Study") -> None:
        """Name the study's objectives, and have the tracker begin the sweep's run."""
        from iolaus.study.attributes import FINAL

        names = ["test/accuracy"] if study.user_attrs.get(FINAL) else objective.objectives(config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental is of no interest to who has named an objective
            study.set_metric_names(names)
        instantiate(config.tracking).begin_sweep(study, Path(config.hydra.sweep.dir))

    def on_study_end(self, config: DictConfig, study: "Study", status: str) -> None:
        """Have the tracker end the sweep's run."""
        instantiate(config.tracking).end_sweep(study, Path(config.hydra.sweep.dir), status)

    def final_overrides(self, config: DictConfig, results: Sequence[Mapping[str, float]]) -> list[str]:
        """Return how the winner is trained in the end: on train and val, for the median of its best epochs."""
        epochs = statistics.median_low(int(result["best_epoch"]) for result in results)
        return ["train_on_val=true", f"epochs={epochs}", "early_stopping.patience=null"]

    def on_winner(
        self,
        config: DictConfig,
        study: "Study",
        found: Mapping[str, Any],
        results: Sequence[Mapping[str, float]],
        trials: Sequence["FrozenTrial"],
    ) -> dict[str, str]:
        """Have the tracker register the winner, and return what came of it."""
        from iolaus.tracking.base import Winner

        winner = Winner(
            study,
            Path(config.hydra.sweep.dir),
            finals=found,
            trials=trials,
            model=f"{CHAMPION_PREFIX}{{data}}",
            metric="val/accuracy",
            values=[result["val/accuracy"] for result in results],
            maximize=True,
            measured_on="{data_digest}, val_size {data.val_size}",
        )
        return {"champion": instantiate(config.tracking).register(winner)}

    def on_report(self, config: DictConfig, study: "Study") -> None:
        """Have the report say how often the test images were looked at."""
        from iolaus.study.attributes import NOTES

        notes = [test_set_log.describe_looks(Path(config.root), config.data.name)]
        if study.user_attrs.get(NOTES) != notes:
            study.set_user_attr(NOTES, notes)
