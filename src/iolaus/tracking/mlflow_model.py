"""A model in MLflow: recorded in a form that others can load and serve, and loaded again."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from iolaus.errors import InputError
from iolaus.system.provenance import version
from iolaus.tracking.environment import first_line, set_environment

if TYPE_CHECKING:
    from torch import Tensor, nn

    from iolaus.classifier.data.dataset import Data
    from iolaus.classifier.training.checkpoint import Classifier

log = logging.getLogger(__name__)


def save(classifier: "Classifier", data: "Data") -> str | None:
    """Record a model in the active run, and give its id; None where it cannot be exported, which is said.

    Args:
        classifier: The model with what it needs to be deployed.
        data: That it was trained on, of which an example is taken.
    """
    import mlflow
    import torch
    from mlflow.models import infer_signature

    example = (data.val.images[:2].float() / 255).numpy()  # a batch of one would be exported as the only size
    deployed = classifier.pixels_to_logits().cpu().float().eval()
    try:
        with _silent():
            info = mlflow.pytorch.log_model(
                deployed,
                name="model",
                input_example=example,
                signature=infer_signature(example, example[:, 0, 0, :1].repeat(data.num_classes, 1)),
                serialization_format="pt2",
                # given, because to infer them MLflow would start a process that loads the model
                pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "numpy", "torch")],
                validate_serving_input=False,  # it would load the model again; a test asks a server instead
                metadata={"classes": classifier.classes, "digit_box": classifier.digit_box},
            )
    except Exception as error:
        if _exportable(deployed, torch.from_numpy(example)):
            raise
        reason = first_line(error)
        log.warning("no MLflow model: torch.export cannot take this one (%s); its weights are in model.pt", reason)
        mlflow.set_tag("model_not_exported", reason[:5000])
        return None
    return str(info.model_id)


def load(uri: str, tracking_uri: str | None = None) -> "tuple[nn.Module, dict[str, Any]]":
    """Load a model that `save` recorded, from ``runs:/<run id>/model`` or ``models:/<name>/<version>``.

    Args:
        uri: Its address.
        tracking_uri: Of the store that knows it; None: the one that MLflow is set to.

    Returns:
        The module, taking pixels float32 (B, C, H, W) in [0, 1], and its input_shape, classes and digit_box.

    Raises:
        InputError: if there is no such model, or it was not recorded by us.
    """
    set_environment()
    import mlflow

    if tracking_uri is not None:
        mlflow.set_tracking_uri(tracking_uri)
    try:
        info = mlflow.models.get_model_info(uri)
        facts = dict(info.metadata or {})
        if "classes" not in facts:
            raise InputError(f"{uri} is not a model of Iolaus: its metadata names no classes")
        network = mlflow.pytorch.load_model(uri)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise InputError(f"{uri} cannot be loaded: {first_line(error)}") from error
    shape = info.signature.inputs.inputs[0].shape
    facts["input_shape"] = tuple(shape[1:])
    return network, facts


def _exportable(model: "nn.Module", example: "Tensor") -> bool:
    """Whether torch.export can trace a model: not if what it computes depends on the values it sees, say."""
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
