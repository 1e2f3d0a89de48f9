"""What Hydra tells of a sweep of train.py, whose configuration names this callback."""

import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from hydra.utils import instantiate
from omegaconf import DictConfig

from iolaus.classifier.run import objective, test_set_log
from iolaus.errors import InputError

if TYPE_CHECKING:  # a single run names it too, and has no use for Optuna
    from optuna.study import Study
    from optuna.trial import FrozenTrial


class SweepCallback(Callback):
    """What a sweep of train.py does around its trials; our sweeper calls it, others do not."""

    def on_search_start(self, config: DictConfig, directions: list[str], target: float | None) -> None:
        """Refuse directions that do not fit the objective, a target that no value can pass, bounds of no metric.

        And a search without val, by which its trials are to be compared.
        """
        if config.train_on_val:
            raise InputError("train_on_val=true leaves a search nothing to compare by: add train_on_val=false")
        objective.check_directions(config, directions)
        objective.check_target(config, target)
        objective.check_constraints(config)

    def estimate_s(self, config: DictConfig, threads: int) -> float:
        """Time a few steps of a trial, and give the seconds that its training would take."""
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
        """Have the tracker end it."""
        instantiate(config.tracking).end_sweep(study, Path(config.hydra.sweep.dir), status)

    def final_overrides(self, config: DictConfig, results: Sequence[Mapping[str, float]]) -> list[str]:
        """How the winner is trained once all is chosen: on train and val, for the median of its best epochs."""
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
        """Have the tracker register the winner, and give what came of it."""
        from iolaus.tracking.base import Winner

        accuracies = [result["val/accuracy"] for result in results]
        winner = Winner(study, Path(config.hydra.sweep.dir), found, accuracies, trials)
        return {"champion": instantiate(config.tracking).register(winner)}

    def on_report(self, config: DictConfig, study: "Study") -> None:
        """Have the report say how often the test images were looked at."""
        from iolaus.study.attributes import NOTES

        notes = [test_set_log.describe_looks(Path(config.root), config.data.name)]
        if study.user_attrs.get(NOTES) != notes:
            study.set_user_attr(NOTES, notes)
