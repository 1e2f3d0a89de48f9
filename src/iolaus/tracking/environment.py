"""MLflow's settings from the environment, its addresses and its messages."""

import os
from pathlib import Path

SQLITE = "sqlite:///"


def set_environment() -> None:
    """Set what we wish of MLflow, where the user's environment does not say otherwise."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")


def default_uri() -> str:
    """Return ``MLFLOW_TRACKING_URI`` or, where it is not set, the address of a database in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"


def absolute_uri(uri: str) -> str:
    """Return a tracking URI that means the same database from every folder: a task may change the current one."""
    return uri if not uri.startswith(SQLITE) else f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}"


def artifacts_beside(uri: str) -> Path:
    """Return the folder ``mlruns`` beside a database file; of any other store, that in the current folder."""
    folder = Path(uri.removeprefix(SQLITE)).parent if uri.startswith(SQLITE) else Path()
    return folder.absolute() / "mlruns"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition("\n")[0]
