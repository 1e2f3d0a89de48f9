"""Where runs are recorded: one MLflow run for each training run, or nothing at all.

`train.py` talks to a `Run`, whose methods do nothing; the one that MLflow's tracker gives does.
"""

import contextlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from iolaus.errors import InputError, redact_urls
from iolaus.study.attributes import RUN_ID

if TYPE_CHECKING:  # the process that only watches over a sweep has no use for PyTorch
    from optuna.study import Study
    from optuna.trial import Trial

    from iolaus.classifier.data.dataset import Data
    from iolaus.classifier.training.checkpoint import Classifier
    from iolaus.tracking.base import Winner

from iolaus.tracking.base import Run
from iolaus.tracking.environment import first_line, set_environment

log = logging.getLogger(__name__)


class MLflowTracker:
    """``tracking=mlflow``.

    Args:
        experiment_name: The MLflow experiment, made where it does not exist.
        uri: The tracking URI.
        artifacts: Folder of the artifacts of a new experiment; a server has its own place for them.
    """

    def __init__(self, experiment_name: str, uri: str, artifacts: str) -> None:
        """Keep the settings; MLflow is imported when a run starts."""
        self.experiment_name, self.uri, self.artifacts = experiment_name, uri, artifacts

    @contextlib.contextmanager
    def run(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, object],
        run_id: str | None = None,
        trial: "Trial | None" = None,
    ) -> Iterator[Run]:
        """Record what happens inside; the run ends as FINISHED, FAILED with its reason, or KILLED.

        Args:
            params: Flat; names equal configuration keys.
            tags: Facts about the run.
            run_id: A run to go on with where it is still there.
            trial: Of a search, which the run is for: each is noted in the other, and the search's run is its parent.

        Raises:
            InputError: if the tracking server or database cannot be used.
        """
        if trial is not None:
            from iolaus.tracking import mlflow_sweep  # with Optuna, which a single run need not import

            tags = {**tags, **mlflow_sweep.tags_of(trial)}
        started = self._start(params, tags, run_id)
        if trial is not None:
            trial.set_user_attr(RUN_ID, started.id)
        import mlflow
        from mlflow.tracking._tracking_service import utils

        known = set(utils._artifact_repos_cache)
        try:
            yield started
        except BaseException as error:
            end, status = {"reason": f"{type(error).__name__}: {error}"}, "FAILED"
            if isinstance(error, KeyboardInterrupt):
                end, status = {"reason": "interrupted"}, "KILLED"
            elif trial is not None and type(error).__name__ == "TrialPruned":  # Optuna's, which need not be imported
                ended = trial.study.get_trials(deepcopy=False)[trial.number]
                end = {**mlflow_sweep.tags_of_pruned(ended), "reason": str(error) or "pruned"}
                status = "FINISHED"
            with contextlib.suppress(mlflow.exceptions.MlflowException):  # it may be MLflow that failed
                mlflow.set_tags({key: _text(value) for key, value in end.items()})
                mlflow.end_run(status)
            if isinstance(error, mlflow.exceptions.MlflowException) and "disk is full" not in str(error):
                raise InputError(
                    f"MLflow at {redact_urls(self.uri)} stopped working ({first_line(error)}): mend it and go on from "
                    f"checkpoint.pt with resume, if there is one in {tags.get('output_dir')}"
                ) from error
            raise
        finally:
            # MLflow would keep what it stores the files of up to 1024 runs and models with, 8 kB each, queues included
            for resource in utils._artifact_repos_cache.keys() - known:
                del utils._artifact_repos_cache[resource]
        mlflow.end_run()

    def begin_sweep(self, study: "Study", folder: Path) -> None:
        """Begin or go on with the run of a sweep, in which its trials' runs lie, before any of them starts.

        Raises:
            InputError: if the tracking server or database cannot be used.
        """
        from iolaus.tracking import mlflow_sweep

        mlflow = self._import()
        with self._explained():
            mlflow.set_tracking_uri(self.uri)
            mlflow_sweep.begin(mlflow.MlflowClient(), self._experiment(), study, folder)

    def end_sweep(self, study: "Study", folder: Path, status: str) -> None:
        """End what the trials that were lost have left open, and the sweep's own run.

        Raises:
            InputError: if the tracking server or database cannot be used.
        """
        from iolaus.tracking import mlflow_sweep

        mlflow = self._import()
        with self._explained():
            mlflow.set_tracking_uri(self.uri)
            mlflow_sweep.end(mlflow.MlflowClient(), self._experiment(), study, folder, status)

    def register(self, winner: "Winner") -> str:
        """Register the winner of a search: see `iolaus.tracking.mlflow_registry.register`.

        Raises:
            InputError: if the tracking server or database cannot be used.
        """
        from iolaus.tracking import mlflow_registry

        mlflow = self._import()
        with self._explained(), FileLock(winner.folder / "tracking.lock"):  # of two commands at once, one registers
            mlflow.set_tracking_uri(self.uri)
            return mlflow_registry.register(mlflow, winner)

    def _import(self) -> Any:
        """MLflow, after what must be said to it before it is imported."""
        set_environment()
        self._check_server()
        try:
            import mlflow
        except ImportError as error:
            raise InputError("MLflow is not installed: install it, or use tracking=none") from error
        for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent"):
            logging.getLogger(name).setLevel(logging.WARNING)  # migrations are of no interest to a user
        return mlflow

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what MLflow and its database raise into one line."""
        import mlflow
        import sqlalchemy.exc

        try:
            yield
        except (mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            raise InputError(
                f"MLflow at {redact_urls(self.uri)} cannot be used ({first_line(error)}): mend it, or use tracking=none"
            ) from error

    def _start(self, params: Mapping[str, Any], tags: Mapping[str, object], run_id: str | None) -> Run:
        mlflow = self._import()
        try:
            with self._explained():
                begun = self._activate(mlflow, params, tags, run_id)
        except InputError:
            mlflow.end_run("FAILED")
            raise
        except KeyboardInterrupt:
            mlflow.end_run("KILLED")
            raise
        return _MLflowRun(resumed=begun)

    def _activate(self, mlflow: Any, params: Mapping[str, Any], tags: Mapping[str, object], run_id: str | None) -> bool:
        """Start a run or go on with one, and say which."""
        mlflow.set_tracking_uri(self.uri)
        begun = self._begun(run_id)
        mlflow.start_run(
            run_id=begun.info.run_id if begun else None,
            experiment_id=None if begun else self._experiment(),
            tags={key: _text(value) for key, value in tags.items()},
        )
        if begun and "reason" in begun.data.tags:  # why it ended; kill -9 leaves none
            mlflow.delete_tag("reason")
        mlflow.log_params({key: _text(value) for key, value in params.items()})
        return begun is not None

    def _check_server(self) -> None:
        """Ask a server whether it is there: MLflow itself would try for minutes."""
        if not self.uri.startswith(("http://", "https://")):
            return
        try:
            urllib.request.urlopen(f"{self.uri.rstrip('/')}/health", timeout=10).close()
        except urllib.error.HTTPError:
            pass  # it answers, if only to refuse this address
        except (OSError, http.client.HTTPException) as error:
            raise InputError(
                f"the MLflow server at {redact_urls(self.uri)} does not answer ({first_line(error)}): start it, "
                "unset MLFLOW_TRACKING_URI to use the local database, or use tracking=none"
            ) from error

    def _experiment(self) -> str:
        """The id of the experiment, which is made where it does not exist."""
        import mlflow

        experiment = mlflow.get_experiment_by_name(self.experiment_name)
        if experiment is None:
            location = None if self.uri.startswith("http") else Path(self.artifacts).absolute().as_uri()
            try:
                return str(mlflow.create_experiment(self.experiment_name, location))
            except mlflow.exceptions.MlflowException:
                experiment = mlflow.get_experiment_by_name(self.experiment_name)
                if experiment is None:  # it was not another process that had been faster
                    raise
        return str(experiment.experiment_id)

    @staticmethod
    def _begun(run_id: str | None) -> Any:
        """The run to go on with; None if it was deleted, or lies in another store."""
        import mlflow

        if run_id is None:
            return None
        try:
            run = mlflow.get_run(run_id)
        except mlflow.exceptions.MlflowException:
            return None
        return run if run.info.lifecycle_stage == "active" else None


class _MLflowRun(Run):
    """The run that is active in this process."""

    def __init__(self, resumed: bool) -> None:
        import mlflow

        active = mlflow.active_run()
        assert active is not None
        self.id = active.info.run_id
        self._model_id: str | None = None
        self._logged = len(mlflow.MlflowClient().get_metric_history(self.id, "val/loss")) if resumed else 0

    def log_data(self, data: "Data") -> None:
        import mlflow
        from mlflow.data.sources import LocalArtifactDatasetSource

        dataset = mlflow.data.from_numpy(
            data.train.images.numpy(),
            targets=data.train.labels.numpy(),
            source=LocalArtifactDatasetSource(str(data.root.absolute())),
            name=data.name,
            digest=data.digest[:32],
        )
        mlflow.log_input(dataset, context="training")

    def log_epochs(self, history: list[dict[str, float]]) -> None:
        import mlflow

        for step, values in enumerate(history[self._logged :], start=self._logged + 1):
            mlflow.log_metrics(values, step=step)
        self._logged = max(self._logged, len(history))  # it may go on from an older checkpoint than the newest

    def log_file(self, path: Path) -> None:
        import mlflow

        mlflow.log_artifact(str(path))

    def log_model(self, classifier: "Classifier", data: "Data") -> None:
        from iolaus.tracking import mlflow_model

        self._model_id = mlflow_model.save(classifier, data)

    def log_metrics(self, values: Mapping[str, float]) -> None:
        import mlflow

        mlflow.log_metrics(dict(values), model_id=self._model_id)


def _text(value: object) -> str:
    return str(value)[:5000]
