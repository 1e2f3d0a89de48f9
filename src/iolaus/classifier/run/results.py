"""The results of a run: its metrics and files, its record in the tracker, and the values for a search."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

import iolaus
from iolaus.classifier.data.dataset import Data
from iolaus.classifier.models import build
from iolaus.classifier.run.context import RunContext
from iolaus.classifier.run.objective import excess, objectives
from iolaus.classifier.training import checkpoint, progress
from iolaus.classifier.training.checkpoint import Classifier
from iolaus.classifier.training.loop import Batch, Metrics, State
from iolaus.classifier.training.metrics import accuracy, loss

if TYPE_CHECKING:  # with Optuna, which a single run need not import
    from iolaus.tracking.base import Run

log = logging.getLogger(__name__)
OF_RUN = ("fit_s", "params", "images_per_s")
"""Metrics of a whole run, besides those of its epochs and of the test set."""


def save_model(context: RunContext, classifier: Classifier) -> list[Path]:
    """Write ``model.pt`` and ``config.yaml``, and return their paths."""
    model, settings = context.output / "model.pt", context.output / "config.yaml"
    checkpoint.save_model(model, classifier)
    OmegaConf.save(OmegaConf.create(context.settings), settings)
    return [model, settings]


def collect(state: State, classifier: Classifier, test: Batch | None) -> Metrics:
    """Return the metrics of a run: of the epoch whose weights are kept, of the whole run, and on the test set.

    Args:
        state: The finished training.
        classifier: The model with the kept weights.
        test: Logits float32 (N, K) and labels int64 (N,) of the test set; None for a run that must not see it.
    """
    of_run: Metrics = {
        "fit_s": state.fit_s,
        "params": build.num_parameters(classifier.model),
        "images_per_s": state.images_per_s,
    }
    on_test: Metrics = {}
    if test is not None:
        on_test = {"test/loss": loss(*test), "test/accuracy": accuracy(*test)}
    return {**state.best, **of_run, **on_test, "best_epoch": state.best_epoch}


def save(context: RunContext, data: Data, state: State, metrics: Metrics, test: Batch | None) -> list[Path]:
    """Write ``metrics.json`` and, where the test set was seen, the pictures; keep the metrics with the trial, if any.

    Args:
        context: The run.
        data: Its data set.
        state: The finished training.
        metrics: The run's, as `collect` returns them.
        test: As for `collect`.

    Returns:
        The paths of the files.
    """
    drawn = []
    counts = {"val": len(data.val.labels)} if "val/loss" in metrics else {}
    if test is not None:
        from iolaus.classifier.run import pictures  # with matplotlib, for which the first batch need not wait

        drawn = pictures.of_run(context.output, data, state, *test)
        counts["test"] = len(test[1])
    iolaus.log_results(metrics)
    path = context.output / "metrics.json"
    path.write_text(json.dumps({**metrics, "history": state.history}, indent=2))
    log.info("%s", progress.summary(metrics, state.epoch, counts))
    return [path, *drawn]


def track(
    run: "Run", context: RunContext, metrics: Metrics, files: Iterable[Path], classifier: Classifier, data: Data
) -> None:
    """Record a finished run: its files, its metrics and, unless it is one of a search, its model.

    Args:
        run: The tracked run.
        context: The run.
        metrics: The run's, as `collect` returns them.
        files: Those to copy.
        classifier: The model with the kept weights.
        data: The data set that it was trained on.
    """
    for path in files:
        run.log_file(path)
    if not context.in_search:
        metadata = {"classes": data.classes, "digit_box": data.digit_box}
        run.log_model(classifier.pixels_to_logits(), data.val.images[:2].float() / 255, metadata)
    best = {f"best/{name}": value for name, value in metrics.items() if name.startswith(("train/", "val/"))}
    rest = {name: value for name, value in metrics.items() if name.startswith("test/") or name in OF_RUN}
    run.log_metrics({**best, "best/epoch": metrics["best_epoch"], **rest})


def conclude(cfg: DictConfig, context: RunContext, metrics: Metrics) -> float | list[float]:
    """Compare with the run that was repeated, tell a search of broken constraints, and return the objective's value.

    Args:
        cfg: The run's configuration.
        context: The run.
        metrics: The run's, as `collect` returns them.

    Returns:
        The value, or a list where there are several objectives; of a run without val its accuracy on the test set.
    """
    if context.recorded is not None:
        log.info("%s", context.recorded.compare_results(metrics))
    for name, value in excess(cfg, metrics).items():
        iolaus.constrain(name, value)
    log.info("model, pictures, metrics: %s", context.output)
    values = [metrics["test/accuracy"]] if cfg.train_on_val else [metrics[name] for name in objectives(cfg)]
    return values if len(values) > 1 else values[0]
