"""The champions in MLflow's registry: of each registered model the version ``@champion``, with its evidence as tags."""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from iolaus.compare import statistics
from iolaus.errors import InputError
from iolaus.study.attributes import RUN_ID
from iolaus.tracking.base import Winner
from iolaus.tracking.environment import first_line, set_environment

ALIAS = "champion"
VALUES = "finals.values"
"""The tag with the values of the winner's runs in the finals."""
METRIC = "finals.metric"
"""The tag with the metric that they are values of."""
MEASURED_ON = "finals.measured_on"
"""The tag with `Winner.measured_on`: values are compared only where it is the same."""


def register(mlflow: Any, winner: Winner) -> str:
    """Register the winner of a search, make it the champion unless an earlier one is as good, and return a line on it.

    Of the winner's last runs the first one's model is taken: to choose by their test values would flatter it. It takes
    an earlier champion's place if the mean of its values in the finals is better by Welch's t-test, and both were
    measured on the same data.

    Args:
        mlflow: The module, with its tracking URI set.
        winner: A winner with runs in that store.

    Raises:
        MlflowException: if the store cannot be used.
    """
    client = mlflow.MlflowClient()
    run_id = next((trial.user_attrs[RUN_ID] for trial in winner.trials if RUN_ID in trial.user_attrs), None)
    run: Any = None if run_id is None else client.get_run(run_id)
    models = [] if run is None or run.outputs is None else run.outputs.model_outputs
    if not models:
        return "no champion: the winner's model is not in MLflow"
    facts = {**run.data.tags, **run.data.params}
    name, tags = _filled(winner.model, facts), _evidence(winner, facts)
    version = _version(mlflow, client, name, run.info.run_id, models[0].model_id, tags)
    earlier = _champion(client, mlflow, name)
    if earlier is not None and earlier.version == version.version:
        return f"champion: {name} version {version.version} (models:/{name}@{ALIAS})"
    better, why = _compared(winner, tags, earlier)
    if not better:
        return f"no new champion: {name} version {version.version} {why}"
    client.set_registered_model_alias(name, ALIAS, version.version)
    return f"new champion: {name} version {version.version} ({why}): models:/{name}@{ALIAS}"


def newest(tracking_uri: str, prefix: str, rest: str | None = None) -> str | None:
    """Return the address of the champion that was registered last; None if there is none.

    Args:
        tracking_uri: The address of the store.
        prefix: Begins the names of the models that are looked at.
        rest: The rest of the name of the only model that is; None for all of them.

    Raises:
        InputError: if the store cannot be used.
    """
    set_environment()
    import mlflow
    import sqlalchemy.exc

    mlflow.set_tracking_uri(tracking_uri)
    try:
        client = mlflow.MlflowClient()
        names = [model.name for model in client.search_registered_models() if model.name.startswith(prefix)]
    except (mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
        raise InputError(f"MLflow's models cannot be listed ({first_line(error)}): name one with --model") from error
    found = [_champion(client, mlflow, name) for name in names if rest in (None, name.removeprefix(prefix))]
    champions = sorted((version for version in found if version is not None), key=lambda it: int(it.creation_timestamp))
    return f"models:/{champions[-1].name}@{ALIAS}" if champions else None


def _evidence(winner: Winner, facts: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a winner's version, whose values MLflow takes."""
    tags = {
        "study": winner.study.study_name, "trial": winner.finals["winner"], "overrides": facts.get("overrides", ""),
        "sweep_run_id": winner.study.user_attrs.get(RUN_ID, ""), VALUES: json.dumps(list(winner.values)),
        "finals": statistics.format_mean(asdict(statistics.mean_of(winner.values)), winner.metric),
        "test": statistics.format_mean(winner.finals["test"], winner.metric), METRIC: winner.metric,
        MEASURED_ON: _filled(winner.measured_on, facts),
    }  # fmt: skip
    return {name: str(value)[:5000] for name, value in tags.items()}


def _version(mlflow: Any, client: Any, name: str, run_id: str, model_id: str, tags: Mapping[str, str]) -> Any:
    """Return the version of a run's model, made unless it is there: the same command twice is one winner."""
    known = client.search_model_versions(f"name = '{name}'")
    version = next((version for version in known if version.run_id == run_id), None)
    if version is not None:
        return version
    with contextlib.suppress(mlflow.exceptions.MlflowException):  # there is such a model already
        client.create_registered_model(name)
    return client.create_model_version(name, f"models:/{model_id}", run_id, dict(tags), model_id=model_id)


def _compared(winner: Winner, tags: Mapping[str, str], earlier: Any) -> tuple[bool, str]:
    """Return whether a winner takes the place of an earlier champion, which may be None, and why in words."""
    if earlier is None:
        return True, "the first"
    if any(earlier.tags.get(name) != tags[name] for name in (METRIC, MEASURED_ON)):
        return False, (
            f"was measured on other data than version {earlier.version}, so they cannot be compared; take the alias "
            f"{ALIAS} from that one in MLflow, and the next command gives it to this one"
        )
    more = statistics.unpaired(winner.values, json.loads(earlier.tags[VALUES]))
    words = f"{statistics.format_value(more.mean, winner.metric, '+')} in the finals against version {earlier.version}"
    if not more.significant or (more.mean > 0) != winner.maximize:
        return False, f"is not better beyond the noise ({words})"
    return True, f"{words}, p = {more.p:.2g}"


def _filled(template: str, facts: Mapping[str, str]) -> str:
    """Return a text with the facts that it names in braces."""
    return re.sub(r"\{([^{}]+)\}", lambda name: facts.get(name[1], f"unknown {name[1]}"), template)


def _champion(client: Any, mlflow: Any, name: str) -> Any:
    """Return the champion of a registered model; None if there is none."""
    try:
        return client.get_model_version_by_alias(name, ALIAS)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
