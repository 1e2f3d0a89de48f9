"""The Hydra callback that records the runs and sweeps of any app in MLflow."""

import contextlib
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from iolaus import task
from iolaus.errors import InputError
from iolaus.search_space.keys import flatten, key_element
from iolaus.study.attributes import SAME
from iolaus.tracking.base import Run, Winner
from iolaus.tracking.environment import absolute_uri, artifacts_beside, default_uri, first_line
from iolaus.tracking.mlflow_tracker import MLflowTracker

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

VALUE = "value"
"""The metric with the value that the task returned; of several values, each is ``value/<name of the objective>``."""
REPORTED = "reported"
"""The metric with the values that the task reported, by their steps."""


class MLflowCallback(Callback):
    """Records each task's run, and a sweep by Iolaus as the parent of its trials' runs; docs/sweeper.md has an example.

    While the task runs, its run is MLflow's active one, in which ``mlflow.log_metric`` and the like record.

    Args:
        experiment_name: The MLflow experiment, made where it does not exist; None: the app's name.
        uri: The tracking URI; None: ``MLFLOW_TRACKING_URI`` or, where it is not set, ``mlflow.db`` in this folder.
        artifacts: The folder of a new experiment's artifacts; None: ``mlruns`` beside the database.
        model: The name under which the model that a search's winner has logged is registered; None: it is not.
            In braces it may name a param or tag of the winner's run.
    """

    def __init__(
        self,
        experiment_name: str | None = None,
        uri: str | None = None,
        artifacts: str | None = None,
        model: str | None = None,
    ) -> None:
        """Keep the settings; MLflow is imported when a run or a sweep starts."""
        self.experiment_name, self.model = experiment_name, model
        self.uri = absolute_uri(uri or default_uri())
        self.artifacts = str(artifacts_beside(self.uri) if artifacts is None else Path(artifacts).absolute())
        self._run: Run | None = None
        self._recording: contextlib.AbstractContextManager[Run] | None = None

    def on_study_start(self, config: DictConfig, study: "Study") -> None:
        """Begin the sweep's run, or go on with it."""
        self._tracker(config).begin_sweep(study, _folder(config))

    def on_study_end(self, config: DictConfig, study: "Study", status: str) -> None:
        """Complete the runs of trials that were lost, and end the sweep's own."""
        self._tracker(config).end_sweep(study, _folder(config), status)

    def on_winner(
        self,
        config: DictConfig,
        study: "Study",
        found: Mapping[str, Any],
        results: Sequence[Mapping[str, float]],
        trials: Sequence["FrozenTrial"],
    ) -> dict[str, str] | None:
        """Register the winner's model, and return what came of it.

        Winners are compared by the objective, if all that `iolaus.require_same` was told of is the same.
        """
        if self.model is None:
            return None
        from iolaus.study.trials import sign_of

        values = next(row["values"] for row in found["finalists"] if row["trial"] == found["winner"])
        same = [f"{name.removeprefix(SAME)} {text}" for name, text in study.user_attrs.items() if name.startswith(SAME)]
        winner = Winner(
            study, _folder(config), finals=found, trials=trials, model=self.model, metric=found["objective"],
            values=values, maximize=sign_of(study, 0) < 0, measured_on=", ".join(sorted(same)),
        )  # fmt: skip
        return {"champion": self._tracker(config).register(winner)}

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any) -> None:
        """Start the run of a task.

        Raises:
            SystemExit: if MLflow cannot be used; Hydra would only warn of another exception, and run the task.
        """
        trial = task.current_trial()
        tags = {
            "overrides": shlex.join(config.hydra.overrides.task),
            "output_dir": config.hydra.runtime.output_dir,
        }
        recording = self._tracker(config).run(_params(config, trial), tags, trial=trial)
        try:
            self._run = recording.__enter__()
        except InputError as error:
            raise SystemExit(f"error: {error}") from None
        self._recording = recording
        task.record_reports(self._record)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """End the run of a task, with the value that it returned or the reason for which it has none."""
        task.record_reports(None)
        run, recording, self._run, self._recording = self._run, self._recording, None, None
        if run is None or recording is None:  # it could not be started
            return
        returned = job_return._return_value  # the property would print a line for each failure
        failed = returned if isinstance(returned, BaseException) else None  # or pruned
        traceback = None if failed is None else failed.__traceback__
        try:
            with contextlib.ExitStack() as ending:
                ending.push(recording)
                if failed is not None:
                    raise failed
                run.log_metrics(_values(returned, task.current_trial()))
        except Exception as error:
            if error is not failed and (failed is None or error.__cause__ is not failed):
                log.warning("the run in MLflow lacks its end: %s", first_line(error))
        except BaseException as error:
            if error is not failed:
                raise
        finally:
            if failed is not None:
                failed.__traceback__ = traceback  # Hydra shows it, without this function

    def _record(self, step: int, value: float) -> None:
        """Record a value that the task reports; if MLflow does not take it, it is in the study all the same."""
        import mlflow

        assert self._run is not None
        try:
            self._run.log_metrics({REPORTED: value}, step)
        except mlflow.exceptions.MlflowException as error:
            log.warning("reported values are no longer recorded in MLflow: %s", first_line(error))
            task.record_reports(None)

    def _tracker(self, config: DictConfig) -> MLflowTracker:
        name = config.hydra.job.name if self.experiment_name is None else self.experiment_name
        return MLflowTracker(name, self.uri, self.artifacts, without="take the callback out of hydra.callbacks")


def _folder(config: DictConfig) -> Path:
    """Return the folder of a study."""
    return Path(config.hydra.sweep.dir).absolute()


def _params(config: DictConfig, trial: "Trial | None") -> dict[str, Any]:
    """Return what the configuration gives, and a trial's parameters, by names that MLflow takes.

    Interpolations are left out: they follow from the rest or, as those of environment variables, may be secret.
    """
    from iolaus.tracking.mlflow_sweep import param_name  # with Optuna, which composing need not import

    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    searched = {} if trial is None else {key_element(name): value for name, value in trial.params.items()}
    given = flatten({key: value for key, value in plain.items() if key != "hydra"})
    # The task may record its configuration itself, and MLflow refuses another value: so ours is as the task sees it.
    known = {param_name(name): value for name, value in {**searched, **given}.items()}
    return {name: value for name, value in known.items() if "${" not in str(value) and value != "???"}


def _values(returned: Any, trial: "Trial | None") -> dict[str, float]:
    """Return the values of the objectives as metrics; none if the task has returned something else."""
    several = isinstance(returned, list | tuple)
    names = [VALUE] if not several else [f"{VALUE}/{name}" for name in _objectives(len(returned), trial)]
    try:
        values = [float(value) for value in (returned if several else [returned])]
    except (TypeError, ValueError):
        return {}
    return {name: value for name, value in zip(names, values, strict=True) if value == value}


def _objectives(count: int, trial: "Trial | None") -> list[str]:
    """Return the names of a task's objectives, or their numbers where the study does not name them."""
    from iolaus.tracking.mlflow_sweep import param_name

    names = None if trial is None else trial.study.metric_names
    return list(map(param_name, names)) if names is not None and len(names) == count else list(map(str, range(count)))
