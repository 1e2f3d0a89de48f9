"""The tracker that records each run in MLflow, and each sweep as the parent of its trials' runs."""

import contextlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from iolaus.errors import InputError, redact_urls
from iolaus.study.attributes import REASON, RUN_ID
from iolaus.tracking.base import Run, Tracker, Winner
from iolaus.tracking.environment import first_line, set_environment

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.study import Study
    from optuna.trial import Trial
    from torch import Tensor, nn


class MLflowTracker(Tracker):
    """``tracking=mlflow``.

    Args:
        experiment_name: The MLflow experiment, made where it does not exist.
        uri: The tracking URI.
        artifacts: Folder of the artifacts of a new experiment; a server has its own place for them.
        without: The way to do without MLflow, which error messages give as a remedy.
    """

    def __init__(self, experiment_name: str, uri: str, artifacts: str, without: str = "use tracking=none") -> None:
        """Keep the settings; MLflow is imported when a run starts."""
        self.experiment_name, self.uri, self.artifacts, self.without = experiment_name, uri, artifacts, without

    @contextlib.contextmanager
    def run(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, object],
        run_id: str | None = None,
        trial: "Trial | None" = None,
    ) -> Iterator[Run]:
        """Record the work in the context as MLflow's active run: FINISHED, FAILED with its reason, or KILLED.

        The run of a pruned trial is FINISHED, and has the tag ``state=PRUNED``. See `Tracker.run` for the arguments.

        Raises:
            InputError: if the tracking server or database cannot be used.
        """
        if trial is not None:
            from iolaus.tracking import mlflow_sweep  # with Optuna, which a single run need not import

            tags = {**tags, **mlflow_sweep.tags_of(trial)}
        run = self._start(params, tags, run_id)
        import mlflow

        with _cache_cleared():
            try:
                if trial is not None:
                    trial.set_user_attr(RUN_ID, run.id)
                yield run
                _end(run.id, "FINISHED", {})
            except BaseException as error:
                with contextlib.suppress(mlflow.exceptions.MlflowException):  # it may be MLflow that failed
                    _end(run.id, *_ending(error, trial))
                if isinstance(error, mlflow.exceptions.MlflowException) and "disk is full" not in str(error):
                    raise InputError(
                        f"MLflow at {redact_urls(self.uri)} stopped working ({first_line(error)}): fix it and go on "
                        f"from checkpoint.pt with resume, if there is one in {tags.get('output_dir')}"
                    ) from error
                raise

    def begin_sweep(self, study: "Study", folder: Path) -> None:
        """Begin or go on with the run of a sweep, in which its trials' runs lie, before any of them starts.

        Raises:
            InputError: if the tracking server or database cannot be used.
        """
        from iolaus.tracking import mlflow_sweep

        with self._store() as mlflow:
            mlflow_sweep.begin(mlflow.MlflowClient(), self._experiment(), study, folder)

    def end_sweep(self, study: "Study", folder: Path, status: str) -> None:
        """End the runs that lost trials have left open, and the sweep's own run.

        Raises:
            InputError: if the tracking server or database cannot be used.
        """
        from iolaus.tracking import mlflow_sweep

        with self._store() as mlflow:
            mlflow_sweep.end(mlflow.MlflowClient(), self._experiment(), study, folder, status)

    def register(self, winner: Winner) -> str:
        """Register the winner of a search: see `iolaus.tracking.mlflow_registry.register`.

        Raises:
            InputError: if the tracking server or database cannot be used.
        """
        from iolaus.tracking import mlflow_registry

        with self._store() as mlflow, FileLock(winner.folder / "tracking.lock"):  # of two commands one registers
            return mlflow_registry.register(mlflow, winner)

    @contextlib.contextmanager
    def _store(self) -> Iterator[Any]:
        """Give MLflow with its tracking URI set, and turn what it and its database raise into one line."""
        mlflow = self._import()
        import sqlalchemy.exc

        try:
            mlflow.set_tracking_uri(self.uri)
            yield mlflow
        except (mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            raise InputError(
                f"MLflow at {redact_urls(self.uri)} cannot be used ({first_line(error)}): fix it, or {self.without}"
            ) from error

    def _import(self) -> Any:
        """Return MLflow, after all is set that it reads when it is imported."""
        set_environment()
        self._check_server()
        try:
            import mlflow
        except ImportError as error:
            raise InputError(f"MLflow is not installed: install it, or {self.without}") from error
        for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent"):
            logging.getLogger(name).setLevel(logging.WARNING)  # migrations are of no interest to a user
        return mlflow

    def _start(self, params: Mapping[str, Any], tags: Mapping[str, object], run_id: str | None) -> "_MLflowRun":
        """Start a run, or go on with one."""
        with self._store() as mlflow:
            if (active := mlflow.active_run()) is not None:
                raise InputError(f"MLflow's run {active.info.run_id} is active already: end it before this one starts")
            try:
                known = self._known(run_id)
                started = mlflow.start_run(
                    run_id=known.info.run_id if known else None,
                    experiment_id=None if known else self._experiment(),
                    tags={key: _text(value) for key, value in tags.items()},
                )
                if known and REASON in known.data.tags:  # why it ended; kill -9 leaves none
                    mlflow.delete_tag(REASON)
                mlflow.log_params({key: _text(value) for key, value in params.items()})
            except BaseException as error:
                mlflow.end_run("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
        return _MLflowRun(started.info.run_id, resumed=known is not None)

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
                f"unset MLFLOW_TRACKING_URI to use the local database, or {self.without}"
            ) from error

    def _experiment(self) -> str:
        """Return the id of the experiment, which is made where it does not exist."""
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
    def _known(run_id: str | None) -> Any:
        """Return the run to go on with; None if it was deleted, or lies in another store."""
        import mlflow

        if run_id is None:
            return None
        try:
            run = mlflow.get_run(run_id)
        except mlflow.exceptions.MlflowException:
            return None
        return run if run.info.lifecycle_stage == "active" else None


class _MLflowRun(Run):
    """The run that is active in this thread."""

    id: str

    def __init__(self, run_id: str, resumed: bool) -> None:
        self.id = run_id
        self._model_id: str | None = None
        self._epochs: int | None = None if resumed else 0
        """The number of epochs that are recorded; None as long as nobody has looked."""

    def log_data(
        self, name: str, images: "NDArray[Any]", labels: "NDArray[Any]", digest: str, folder: str | Path
    ) -> None:
        import mlflow
        from mlflow.data.sources import LocalArtifactDatasetSource

        source = LocalArtifactDatasetSource(str(Path(folder).absolute()))
        dataset = mlflow.data.from_numpy(images, targets=labels, source=source, name=name, digest=digest[:32])
        mlflow.log_input(dataset, context="training")

    def log_epochs(self, history: Sequence[Mapping[str, float]]) -> None:
        import mlflow

        if not history:
            return
        if self._epochs is None:
            known = mlflow.MlflowClient().get_metric_history(self.id, next(iter(history[0])))
            self._epochs = max((int(point.step) for point in known), default=0)
        for step, values in enumerate(history[self._epochs :], start=self._epochs + 1):
            mlflow.log_metrics(dict(values), step=step)
        self._epochs = max(self._epochs, len(history))  # it may go on from an older checkpoint than the newest

    def log_metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        import mlflow

        active = mlflow.active_run()
        elsewhere = active is None or active.info.run_id != self.id  # a task may start and end runs as it likes
        run_id = self.id if elsewhere else None  # which MLflow would look up
        mlflow.log_metrics(dict(values), step=step, run_id=run_id, model_id=self._model_id)

    def log_file(self, path: Path) -> None:
        import mlflow

        mlflow.log_artifact(str(path))

    def log_model(self, module: "nn.Module", example: "Tensor", metadata: Mapping[str, Any]) -> None:
        from iolaus.tracking import mlflow_model

        self._model_id = mlflow_model.save(module, example, metadata)


def _ending(error: BaseException, trial: "Trial | None") -> tuple[str, dict[str, str]]:
    """Return MLflow's status of a run that an exception has ended, and the tags that say why."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", {REASON: "interrupted"}
    if trial is not None and type(error).__name__ == "TrialPruned":  # Optuna's, which need not be imported
        from iolaus.tracking import mlflow_sweep

        ended = trial.study.get_trials(deepcopy=False)[trial.number]
        return "FINISHED", {**mlflow_sweep.tags_of_pruned(ended), REASON: str(error) or "pruned"}
    return "FAILED", {REASON: f"{type(error).__name__}: {error}"}


def _end(run_id: str, status: str, tags: Mapping[str, str]) -> None:
    """End a run with a status and tags, and whatever else the task has left active in this thread.

    Raises:
        MlflowException: if the store cannot be used; no run is active any more all the same.
    """
    import mlflow

    client = mlflow.MlflowClient()
    try:
        for key, value in tags.items():
            client.set_tag(run_id, key, _text(value))
    finally:
        _end_active(run_id, status)


def _end_active(run_id: str, status: str) -> None:
    import mlflow

    ended, problem = [], None
    while (active := mlflow.active_run()) is not None:
        ended.append(active.info.run_id)
        try:
            mlflow.end_run(status)
        except mlflow.exceptions.MlflowException as error:  # it is no longer active: MLflow forgets it first
            problem = error
    if problem is not None:
        raise problem
    if run_id not in ended:  # by the task itself
        mlflow.MlflowClient().set_terminated(run_id, status)


@contextlib.contextmanager
def _cache_cleared() -> Iterator[None]:
    """Free what MLflow would keep of up to 1024 runs and models to store their files with: 8 kB each."""
    from mlflow.tracking._tracking_service import utils

    known = set(utils._artifact_repos_cache)
    try:
        yield
    finally:
        for resource in utils._artifact_repos_cache.keys() - known:
            del utils._artifact_repos_cache[resource]


def _text(value: object) -> str:
    """Return a value as MLflow takes it, which limits its length."""
    return str(value)[:5000]
