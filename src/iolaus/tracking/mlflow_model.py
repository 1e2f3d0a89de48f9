"""A model in MLflow: recorded in a form that others can load and serve, and loaded again."""

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from iolaus.errors import InputError
from iolaus.system.provenance import version
from iolaus.tracking.environment import first_line, set_environment

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)


def save(module: "nn.Module", example: "Tensor", metadata: Mapping[str, Any]) -> str | None:
    """Record a model in the active run, and return its id; None, with a line, if it cannot be exported.

    Args:
        module: The model as it is deployed. It is moved to the CPU and to eval mode.
        example: A batch of at least two inputs: a batch of one would be exported as the only size.
        metadata: Facts that its users need, as plain values.
    """
    import mlflow
    import torch
    from mlflow.models import infer_signature

    deployed = module.cpu().float().eval()
    try:
        with _silent():
            with torch.no_grad():
                outputs = deployed(example)
            info = mlflow.pytorch.log_model(
                deployed,
                name="model",
                input_example=example.numpy(),
                signature=infer_signature(example.numpy(), outputs.numpy()),
                serialization_format="pt2",
                # given, because to infer them MLflow would start a process that loads the model
                pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "numpy", "torch")],
                validate_serving_input=False,  # it would load the model again; a test asks a server instead
                metadata=dict(metadata),
            )
    except Exception as error:
        if _exportable(deployed, example):
            raise
        reason = first_line(error)
        log.warning("no MLflow model: torch.export cannot take this one (%s)", reason)
        mlflow.set_tag("model_not_exported", reason[:5000])
        return None
    return str(info.model_id)


def load(uri: str, facts: Collection[str], tracking_uri: str | None = None) -> "tuple[nn.Module, dict[str, Any]]":
    """Load a model that `save` recorded, from ``runs:/<run id>/model`` or ``models:/<name>/<version>``.

    Args:
        uri: The model's address.
        facts: The names of what its metadata must hold.
        tracking_uri: The address of the store that knows it; None: the one that MLflow is set to.

    Returns:
        The module, and its metadata with the shape of one input as ``input_shape``.

    Raises:
        InputError: if there is no such model, or it was not recorded by `save` with these facts.
    """
    set_environment()
    import mlflow

    if tracking_uri is not None:
        mlflow.set_tracking_uri(tracking_uri)
    try:
        info = mlflow.models.get_model_info(uri)
        metadata = dict(info.metadata or {})
        if missing := [name for name in facts if name not in metadata]:
            raise InputError(f"{uri} is not a model of Iolaus: its metadata does not name {', '.join(missing)}")
        module = mlflow.pytorch.load_model(uri)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise InputError(f"{uri} cannot be loaded: {first_line(error)}") from error
    metadata["input_shape"] = tuple(info.signature.inputs.inputs[0].shape[1:])
    return module, metadata


def _exportable(model: "nn.Module", example: "Tensor") -> bool:
    """Return whether torch.export can trace a model: not if its computation depends on the values it sees, say."""
    import torch

    try:
        with _silent():
            torch.export.export(model, (example,))
    except Exception:  # it lets through whatever the model raises when it is traced
        return False
    return True


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep back the advice that torch.export and MLflow print for each other's authors."""
    torch_log = logging.getLogger("torch")
    level = torch_log.level
    torch_log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch_log.setLevel(level)
