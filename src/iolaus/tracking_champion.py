"""The champion of a data set in MLflow's registry: the model ``iolaus-<data>@champion``, with its evidence as tags."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from iolaus import compare
from iolaus.errors import InputError
from iolaus.finals import in_words, mean_in_words
from iolaus.tracking import first_line, set_environment
from iolaus.tracking_sweep import RUN_ID

ALIAS = "champion"
PREFIX = "iolaus-"
VALUES = "finals.val_accuracy"
"""A tag: the accuracies on val of the winner's runs in the finals."""
SPLIT = "split"
"""A tag: what val was carved from, and how much."""


def register(mlflow: Any, study_attrs: Mapping[str, Any], name: str, found: Mapping[str, Any],
             results: Sequence[Mapping[str, float]]) -> str:  # fmt: skip
    """Register the winner of a search, and make it the champion unless an earlier one is as good; say which.

    Of the winner's last runs the first one's model is taken: to choose by test accuracy would flatter it. It takes an
    earlier champion's place if its mean accuracy on val over the seeds of its finals is higher by Welch's t-test.

    Args:
        mlflow: With its tracking URI set.
        study_attrs: Of the search's study.
        name: Of the study.
        found: What its finals came to.
        results: The metrics of the winner's runs in the finals.
    """
    client = mlflow.MlflowClient()
    run_id = next((run_id for run_id in found["test"]["runs"] if run_id), None)
    run: Any = None if run_id is None else client.get_run(run_id)
    models = [] if run is None or run.outputs is None else run.outputs.model_outputs
    if not models:
        return "no champion: the winner's model is not in MLflow"
    model = f"{PREFIX}{run.data.params['data']}"
    values = [result["val/accuracy"] for result in results]
    tags = {
        "study": name, "trial": found["winner"], "overrides": run.data.tags.get("overrides", ""),
        "sweep_run_id": study_attrs.get(RUN_ID, ""), VALUES: json.dumps(values),
        "finals": compare.mean_of(values).in_words(100, " %", 2),
        "test": mean_in_words(found["test"], "test/accuracy"),
        SPLIT: f"{_digest(run)}, {run.data.params.get('data.val_size')} images for val",
    }  # fmt: skip
    known = client.search_model_versions(f"name = '{model}'")
    version = next((version for version in known if version.run_id == run.info.run_id), None)
    if version is None:  # the same command twice is one winner
        with contextlib.suppress(mlflow.exceptions.MlflowException):  # there is one already
            client.create_registered_model(model)
        tags = {key: str(value)[:5000] for key, value in tags.items()}
        model_id = models[0].model_id
        version = client.create_model_version(model, f"models:/{model_id}", run.info.run_id, tags, model_id=model_id)
    earlier = _champion(client, mlflow, model)
    where = f"{model} version {version.version}"
    if earlier is not None and earlier.version == version.version:
        return f"champion: {where} (models:/{model}@{ALIAS})"
    why = "the first"
    if earlier is not None and earlier.tags.get(SPLIT) != tags[SPLIT]:
        why = f"version {earlier.version} was compared on another split"
    elif earlier is not None:
        more = compare.unpaired(values, json.loads(earlier.tags.get(VALUES, "[]")) or values[:1])
        words = f"{in_words(more.mean, 'val/accuracy', '+')} on val against version {earlier.version}"
        if not (more.told_apart and more.mean > 0):
            return f"no new champion: {where} has {words}, which is not better beyond the noise"
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
    except mlflow.exceptions.MlflowException:
        return None


def _digest(run: Any) -> str:
    inputs = run.inputs.dataset_inputs if run.inputs is not None else []
    return inputs[0].dataset.digest if inputs else "unknown images"
