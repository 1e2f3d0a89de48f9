"""The champion of a data set in MLflow's registry: the model ``iolaus-<data>@champion``, with its evidence as tags."""

import contextlib
import json
from typing import Any

from iolaus.compare import statistics
from iolaus.errors import InputError
from iolaus.metric_table import PERCENT
from iolaus.study.attributes import RUN_ID
from iolaus.tracking.base import Winner
from iolaus.tracking.environment import first_line, set_environment

ALIAS = "champion"
PREFIX = "iolaus-"
VALUES = "finals.val_accuracy"
"""A tag: the accuracies on val of the winner's runs in the finals."""
SPLIT = "split"
"""A tag: what val was carved from, and how much."""


def register(mlflow: Any, winner: Winner) -> str:
    """Register the winner of a search, and make it the champion unless an earlier one is as good; say which.

    Of the winner's last runs the first one's model is taken: to choose by test accuracy would flatter it. It takes an
    earlier champion's place if its mean accuracy on val over the seeds of its finals is higher by Welch's t-test, and
    both were measured on the same split.

    Args:
        mlflow: With its tracking URI set.
        winner: With runs in that store.

    Raises:
        MlflowException: if the store cannot be used.
    """
    client = mlflow.MlflowClient()
    run_id = next((trial.user_attrs[RUN_ID] for trial in winner.trials if RUN_ID in trial.user_attrs), None)
    run: Any = None if run_id is None else client.get_run(run_id)
    models = [] if run is None or run.outputs is None else run.outputs.model_outputs
    if not models:
        return "no champion: the winner's model is not in MLflow"
    model = f"{PREFIX}{run.data.params['data']}"
    tags = {
        "study": winner.study.study_name, "trial": winner.found["winner"],
        "overrides": run.data.tags.get("overrides", ""),
        "sweep_run_id": winner.study.user_attrs.get(RUN_ID, ""), VALUES: json.dumps(list(winner.accuracies)),
        "finals": statistics.mean_of(winner.accuracies).in_words(PERCENT),
        "test": statistics.format_mean(winner.found["test"], "test/accuracy"),
        SPLIT: f"{run.data.tags.get('data_digest', 'unknown images')}, val_size {run.data.params.get('data.val_size')}",
    }  # fmt: skip
    known = client.search_model_versions(f"name = '{model}'")
    version = next((version for version in known if version.run_id == run.info.run_id), None)
    if version is None:  # the same command twice is one winner
        with contextlib.suppress(mlflow.exceptions.MlflowException):  # there is one already
            client.create_registered_model(model)
        texts = {key: str(value)[:5000] for key, value in tags.items()}
        model_id = models[0].model_id
        version = client.create_model_version(model, f"models:/{model_id}", run.info.run_id, texts, model_id=model_id)
    earlier = _champion(client, mlflow, model)
    where = f"{model} version {version.version}"
    why = "the first"
    if earlier is not None and earlier.version == version.version:
        return f"champion: {where} (models:/{model}@{ALIAS})"
    if earlier is not None and earlier.tags.get(SPLIT) != tags[SPLIT]:
        return (
            f"no new champion: {where} was measured on other images than version {earlier.version}, so they cannot be "
            f"compared; take the alias {ALIAS} from that one in MLflow, and the next command gives it to this one"
        )
    if earlier is not None:
        more = statistics.unpaired(winner.accuracies, json.loads(earlier.tags[VALUES]))
        words = f"{statistics.format_value(more.mean, 'val/accuracy', '+')} on val against version {earlier.version}"
        if not (more.significant and more.mean > 0):
            return f"no new champion: {where} is not better beyond the noise ({words})"
        why = f"{words}, p = {more.p:.2g}"
    client.set_registered_model_alias(model, ALIAS, version.version)
    return f"new champion: {where} ({why}): models:/{model}@{ALIAS}"


def newest(tracking_uri: str, data: str | None = None) -> str | None:
    """The address of the champion that was registered last, or that of a data set; None if there is none.

    Raises:
        InputError: if the store cannot be used.
    """
    set_environment()
    import mlflow
    import sqlalchemy.exc

    mlflow.set_tracking_uri(tracking_uri)
    try:
        client = mlflow.MlflowClient()
        names = [model.name for model in client.search_registered_models() if model.name.startswith(PREFIX)]
    except (mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
        raise InputError(f"MLflow's models cannot be listed ({first_line(error)}): name one with --model") from error
    found = [_champion(client, mlflow, name) for name in names if data in (None, name.removeprefix(PREFIX))]
    champions = sorted((version for version in found if version is not None), key=lambda it: int(it.creation_timestamp))
    return f"models:/{champions[-1].name}@{ALIAS}" if champions else None


def _champion(client: Any, mlflow: Any, model: str) -> Any:
    try:
        return client.get_model_version_by_alias(model, ALIAS)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
