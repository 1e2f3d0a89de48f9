"""What a tracker is, and the one that records nothing."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.study import Study
from optuna.trial import FrozenTrial

if TYPE_CHECKING:
    from optuna.trial import Trial

    from iolaus.classifier.data.dataset import Data
    from iolaus.classifier.training.checkpoint import Classifier


class Run:
    """A run that nobody records."""

    id: str | None = None

    def log_data(self, data: "Data") -> None:
        """Record which data set is trained on."""

    def log_epochs(self, history: list[dict[str, float]]) -> None:
        """Record the metrics of each epoch that is not recorded yet."""

    def log_file(self, path: Path) -> None:
        """Record a copy of a file."""

    def log_model(self, classifier: "Classifier", data: "Data") -> None:
        """Record the model in a form that others can load and serve; what cannot be exported is left out and named."""

    def log_metrics(self, values: Mapping[str, float]) -> None:
        """Record values that have no epoch, of the run and of its model."""


class NoTracking:
    """``tracking=none``."""

    @contextlib.contextmanager
    def run(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, object],
        run_id: str | None = None,
        trial: "Trial | None" = None,
    ) -> Iterator[Run]:
        """Give a run that records nothing."""
        yield Run()

    def begin_sweep(self, study: "Study", folder: Path) -> None:
        """Do nothing."""

    def end_sweep(self, study: "Study", folder: Path, status: str) -> None:
        """Do nothing."""

    def register(self, winner: "Winner") -> str:
        """Say so."""
        return "no champion: nothing is tracked"


@dataclass(frozen=True)
class Winner:
    """The winner of a search's finals.

    Args:
        study: Of the search.
        folder: Of the same.
        found: What its finals came to.
        accuracies: On val, in [0, 1], of the winner's runs in the finals.
        trials: Its last runs.
    """

    study: Study
    folder: Path
    found: Mapping[str, Any]
    accuracies: Sequence[float]
    trials: Sequence[FrozenTrial]
