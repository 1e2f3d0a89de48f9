"""The interface of a tracker, which records runs and sweeps somewhere, and the tracker that records nothing."""

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a run that is not tracked needs none of them
    from numpy.typing import NDArray
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial
    from torch import Tensor, nn


class Run(abc.ABC):
    """A run that is being recorded: what `Tracker.run` gives to whoever does the work."""

    id: str | None = None
    """The run's name in the tracker, by which a later process can go on with it; None if it has none."""

    @abc.abstractmethod
    def log_data(
        self, name: str, images: "NDArray[Any]", labels: "NDArray[Any]", digest: str, folder: str | Path
    ) -> None:
        """Record which data set the run trains on, though not its content.

        Args:
            name: The name of the data set.
            images: The training inputs, (N, ...).
            labels: Their targets, (N, ...).
            digest: A checksum that tells this content from any other.
            folder: The folder that it was read from.
        """

    @abc.abstractmethod
    def log_epochs(self, history: Sequence[Mapping[str, float]]) -> None:
        """Record the metrics of each epoch, from the first on, that is not recorded yet."""

    @abc.abstractmethod
    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record metrics of the run and of its model.

        Args:
            values: By name.
            step: The place of the values in a curve; None for those of the whole run.
        """

    @abc.abstractmethod
    def log_file(self, path: Path) -> None:
        """Record a copy of a file."""

    @abc.abstractmethod
    def log_model(self, module: "nn.Module", example: "Tensor", metadata: Mapping[str, Any]) -> None:
        """Record a model so that others can load and serve it; one that cannot be exported is left out, with a line.

        Args:
            module: The model as it is deployed. It is moved to the CPU and to eval mode.
            example: A batch of at least two inputs: a batch of one would be exported as the only size.
            metadata: Facts that its users need, such as the names of its classes; plain values by name.
        """


class Tracker(abc.ABC):
    """A place where runs and sweeps are recorded."""

    @abc.abstractmethod
    def run(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, object],
        run_id: str | None = None,
        trial: "Trial | None" = None,
    ) -> contextlib.AbstractContextManager[Run]:
        """Record the work that is done in the context, and how it ended.

        Args:
            params: The run's settings by flat name; names equal configuration keys.
            tags: Facts about the run, with its folder as ``output_dir``.
            run_id: The `Run.id` of a run to go on with, where it is still there.
            trial: The trial of a sweep that the run is made for. Each is noted in the other.
        """

    @abc.abstractmethod
    def begin_sweep(self, study: "Study", folder: Path) -> None:
        """Begin the record of a sweep, or go on with it, before any of its trials starts.

        Args:
            study: The sweep's study.
            folder: The study's folder.
        """

    @abc.abstractmethod
    def end_sweep(self, study: "Study", folder: Path, status: str) -> None:
        """Complete the record of a sweep: its trials that were lost, its best value, its report.

        Args:
            study: The sweep's study.
            folder: The study's folder.
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """

    @abc.abstractmethod
    def register(self, winner: "Winner") -> str:
        """Register the model of a search's winner with the evidence for it, and return a line on what came of it."""


@dataclass(frozen=True)
class Winner:
    """The winner of a search's finals, and what it is compared by with the winners of other searches.

    In `model` and `measured_on` the name of a param or tag in braces, such as ``{data.val_size}``, stands for its value
    in the run whose model is registered.

    Args:
        study: The search.
        folder: The search's folder.
        finals: The result of its finals, as `iolaus.compare.finals` has it.
        trials: The winner's last runs.
        model: The name under which its model is registered.
        metric: The metric that winners are compared by.
        values: The metric's values in the winner's runs in the finals.
        maximize: Whether higher values are better.
        measured_on: The data that the values were measured on, in words. Values of other data cannot be compared.
    """

    study: "Study"
    folder: Path
    finals: Mapping[str, Any]
    trials: "Sequence[FrozenTrial]"
    model: str
    metric: str
    values: Sequence[float]
    maximize: bool
    measured_on: str


class UntrackedRun(Run):
    """A run that nobody records."""

    def log_data(
        self, name: str, images: "NDArray[Any]", labels: "NDArray[Any]", digest: str, folder: str | Path
    ) -> None:
        """Do nothing."""

    def log_epochs(self, history: Sequence[Mapping[str, float]]) -> None:
        """Do nothing."""

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Do nothing."""

    def log_file(self, path: Path) -> None:
        """Do nothing."""

    def log_model(self, module: "nn.Module", example: "Tensor", metadata: Mapping[str, Any]) -> None:
        """Do nothing."""


class NoTracking(Tracker):
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
        yield UntrackedRun()

    def begin_sweep(self, study: "Study", folder: Path) -> None:
        """Do nothing."""

    def end_sweep(self, study: "Study", folder: Path, status: str) -> None:
        """Do nothing."""

    def register(self, winner: Winner) -> str:
        """Return the line that says so."""
        return "no champion: nothing is tracked"
