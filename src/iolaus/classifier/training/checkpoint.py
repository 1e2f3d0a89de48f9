"""Files of tensors and plain values: written atomically, and read without unpickling anything else."""

import importlib
import io
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import nn

from iolaus.classifier.data.batches import Shape
from iolaus.classifier.data.dataset import Data
from iolaus.classifier.models import build
from iolaus.classifier.training.loop import State
from iolaus.errors import InputError
from iolaus.system.files import atomic_write

STATE_FORMAT = "iolaus-state-2"
"""The format of a ``checkpoint.pt``; the number increases when older files can no longer be used."""
MODEL_FORMAT = "iolaus-model-2"
"""The format of a ``model.pt``, likewise."""
NAMES = {STATE_FORMAT: ("checkpoint", "checkpoint.pt"), MODEL_FORMAT: ("model", "model.pt")}
"""The kind and the name of a file, by its format."""


@dataclass
class Classifier:
    """A trained model with all that is needed to prepare its input and to name its classes."""

    model: nn.Module
    """A module from normalised images (B, C, H, W) to logits (B, K)."""
    spec: dict[str, Any]
    """The model's configuration, with ``_target_``, from which it can be built again."""
    input_shape: Shape
    classes: list[str]
    """K names."""
    mean: list[float]
    """Of each channel, for pixels in [0, 1]."""
    std: list[float]
    """Of each channel, likewise."""
    digit_box: int | None
    """See `iolaus.classifier.data.dataset.Data.digit_box`."""

    @classmethod
    def of(cls, model: nn.Module, spec: Mapping[str, Any], data: Data) -> "Classifier":
        """Join a model with the shape, classes and statistics of the data set that it was trained on."""
        return cls(model, dict(spec), data.input_shape, data.classes, data.mean, data.std, data.digit_box)

    def pixels_to_logits(self) -> nn.Module:
        """Return the module as it is deployed: from pixels float32 (B, C, H, W) in [0, 1] to logits (B, K)."""
        return build.WithNormalization(self.model, self.mean, self.std)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values, so that `path` holds either the old content or the new, never a part.

    Raises:
        OSError: if it cannot be written, as on a full disk; the old content is then still there.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)  # into memory, because torch's own file writer hides the reason of a failure
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load(path: Path, kind: str) -> dict[str, Any]:
    """Read a file that `save` wrote.

    Args:
        path: The file.
        kind: The ``format`` that it must have.

    Raises:
        InputError: for a file that is missing, damaged, of another format, or not of tensors and plain values only.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file: give the path of a run's {NAMES[kind][1]}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on pickles, which are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is not a file of Iolaus: it is damaged, or holds pickled objects, which could run code when "
            "loaded; train the model here, or export it as tensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        raise InputError(
            f"{path} is damaged ({str(error).splitlines()[0]}): take another copy or train again"
        ) from error
    _check_format(str(content.get("format")) if isinstance(content, dict) else "", kind, path)
    return dict(content)


def _check_format(found: str, kind: str, path: Path) -> None:
    if found == kind:
        return
    what, name = NAMES[kind]
    (family, _, number), (expected, _, current) = found.rpartition("-"), kind.rpartition("-")
    if family == expected and number.isdecimal():
        age = "an earlier" if int(number) < int(current) else "a later"
        raise InputError(f"{path} was made by {age} version of Iolaus: use that version, or train again")
    raise InputError(f"{path} is not a {what} of Iolaus: give the path of a run's {name}")


def save_state(path: Path, state: State, settings: dict[str, Any], run_id: str | None) -> None:
    """Write all that `fit` needs to continue, with the settings and the id of the tracked run."""
    save(path, {"format": STATE_FORMAT, "state": vars(state), "settings": settings, "run_id": run_id})


def load_state(path: Path) -> tuple[State, dict[str, Any], str | None]:
    """Read a file that `save_state` wrote.

    Returns:
        The state, the settings, and the id of the tracked run.

    Raises:
        InputError: for a file that is missing, damaged, or not a checkpoint of this version.
    """
    content = load(path, STATE_FORMAT)
    return State(**content["state"]), content["settings"], content["run_id"]


def save_model(path: Path, classifier: Classifier) -> None:
    """Write a model's weights, and all that is needed to build it again, as a ``torch.save`` dict."""
    save(
        path,
        {
            "format": MODEL_FORMAT,
            "model": classifier.spec,
            "state_dict": {name: tensor.cpu() for name, tensor in classifier.model.state_dict().items()},
            "input_shape": list(classifier.input_shape),
            "classes": classifier.classes,
            "mean": classifier.mean,
            "std": classifier.std,
            "digit_box": classifier.digit_box,
        },
    )


def load_model(path: str | Path, trust: Sequence[str] = ()) -> Classifier:
    """Rebuild a model that `save_model` wrote, on the CPU, in eval mode.

    Args:
        path: The file.
        trust: Modules whose functions a file may name as ``_target_``. Subclasses of ``torch.nn.Module`` and
            torchvision's models need no such trust.

    Raises:
        InputError: for a file that is not a model of this version, or that names other code than that of a module.
    """
    path = Path(path)
    content = load(path, MODEL_FORMAT)
    shape = content["input_shape"]
    model = build.build(_maker(content["model"], trust), (shape[0], shape[1], shape[2]), len(content["classes"]))
    try:
        model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise InputError(
            f"the weights in {path} do not fit {content['model']['_target_']}: its code has changed since they were "
            "trained; use the code of then, or train again"
        ) from error
    return Classifier(
        model=model.eval(),
        spec=content["model"],
        input_shape=(shape[0], shape[1], shape[2]),
        classes=content["classes"],
        mean=content["mean"],
        std=content["std"],
        digit_box=content["digit_box"],
    )


def _maker(spec: Mapping[str, Any], trust: Sequence[str]) -> Callable[..., nn.Module]:
    """Return what Hydra's ``instantiate`` makes of a ``_partial_`` node, for targets that only build modules."""
    target = _locate(spec["_target_"], trust)
    arguments = {key: _built(value, trust) for key, value in spec.items() if not key.startswith("_")}
    if target.__module__.startswith("torchvision.models"):
        arguments["weights"] = None  # those in the file are loaded next; download no others
    return partial(target, **arguments)


def _built(value: Any, trust: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            make = _maker(value, trust)
            return make if value.get("_partial_") else make()
        return {key: _built(child, trust) for key, child in value.items()}
    return [_built(child, trust) for child in value] if isinstance(value, list) else value


def _locate(name: str, trust: Sequence[str]) -> Callable[..., Any]:
    module_name, _, attribute = str(name).rpartition(".")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"the model's code {name} cannot be imported ({error}): put it on PYTHONPATH") from error
    if isinstance(target, type) and issubclass(target, nn.Module):
        return target
    if isinstance(target, FunctionType) and (
        target.__module__.startswith("torchvision.models.") or target.__module__ in trust
    ):
        return target
    raise InputError(
        f"the file asks to call {name}, which is not a torch.nn.Module: if you know what it does, trust {module_name}"
    )
