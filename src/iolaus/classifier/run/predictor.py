"""Predictions for image files by a trained model, which is loaded from a file or from MLflow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iolaus.classifier.data import photos
from iolaus.classifier.data.batches import Shape
from iolaus.classifier.data.dataset import Data
from iolaus.classifier.models import build
from iolaus.classifier.run.config import CHAMPION_PREFIX
from iolaus.classifier.training import checkpoint
from iolaus.errors import InputError
from iolaus.tracking import mlflow_model


@dataclass
class Predictor:
    """A model of pixels in [0, 1], with all that is needed to prepare photos and to name its classes."""

    network: nn.Module
    """A module from pixels float32 (B, C, H, W) in [0, 1] to logits (B, K)."""
    input_shape: Shape
    classes: list[str]
    """K names."""
    digit_box: int | None
    """See `iolaus.classifier.data.dataset.Data.digit_box`."""

    @classmethod
    def load(cls, model: str | Path, trust: Sequence[str] = (), tracking_uri: str | None = None) -> "Predictor":
        """Load a model from a file or from MLflow.

        Args:
            model: A ``model.pt``, a run's folder, or an MLflow URI ``runs:/…`` or ``models:/…``.
            trust: See `iolaus.classifier.training.checkpoint.load_model`.
            tracking_uri: The MLflow store that knows the URI; None means the one that MLflow is set to.

        Raises:
            InputError: for a model that does not exist or is not safe to load.
        """
        if str(model).startswith(("runs:/", "models:/", "mlflow-artifacts:/")):
            network, facts = mlflow_model.load(str(model), ("classes", "digit_box"), tracking_uri)
            return cls(network, facts["input_shape"], facts["classes"], facts["digit_box"])
        path = Path(model).expanduser()
        classifier = checkpoint.load_model(path / "model.pt" if path.is_dir() else path, trust)
        network = classifier.pixels_to_logits().eval()
        return cls(network, classifier.input_shape, classifier.classes, classifier.digit_box)

    @classmethod
    def of(cls, model: nn.Module, data: Data) -> "Predictor":
        """Join a model of normalised images with the shape, classes and statistics of its data set."""
        network = build.WithNormalization(model, data.mean, data.std).eval()
        return cls(network, data.input_shape, data.classes, data.digit_box)

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """Return logits float32 (B, K) of pixels float32 (B, C, H, W) in [0, 1]."""
        return self.network(pixels)

    def images(self, paths: Sequence[str | Path]) -> "Predictions":
        """Read, prepare and classify image files; those that cannot be read are among the failures."""
        prepared, failures = {}, {}
        for path in paths:
            try:
                prepared[str(path)] = photos.prepare(path, self.input_shape, self.digit_box)
            except InputError as error:
                failures[str(path)] = str(error)
        pixels = torch.stack(list(prepared.values())) if prepared else torch.empty(0, *self.input_shape)
        probs = self.logits(pixels).softmax(1) if prepared else torch.empty(0, len(self.classes))
        return Predictions(list(prepared), pixels, probs, self.classes, failures)


@dataclass
class Predictions:
    """The predictions for N images."""

    paths: list[str]
    pixels: Tensor
    """The model's input before normalisation, float32 (N, C, H, W) in [0, 1]."""
    probs: Tensor
    """The probability of each class, float32 (N, K)."""
    classes: list[str]
    """K names."""
    failures: dict[str, str]
    """The reason for each path that could not be read."""

    def __iter__(self) -> Any:
        """Yield path, name of the most probable class, and its probability in [0, 1]."""
        for path, probs in zip(self.paths, self.probs, strict=True):
            yield path, self.classes[int(probs.argmax())], float(probs.max())


def champion(tracking_uri: str, data: str | None = None) -> str | None:
    """Return the MLflow URI of the champion that was registered last; None if there is none.

    Args:
        tracking_uri: The MLflow store; it may be a database file that does not exist.
        data: The name of a data set, to consider its champions only.

    Raises:
        InputError: if that data set has no champion, or the store cannot be used.
    """
    file = tracking_uri.removeprefix("sqlite:///")
    found = None
    if "://" in file or Path(file).is_file():
        from iolaus.tracking import mlflow_registry  # with Optuna and MLflow, which a model.pt need not import

        found = mlflow_registry.newest(tracking_uri, CHAMPION_PREFIX, data)
    if found is None and data is not None:
        raise InputError(
            f"no search over {data} has a champion yet: run one with hydra/sweeper/finals=seeds, or name a --model"
        )
    return found


def newest_model(outputs: Path) -> Path:
    """Return the ``model.pt`` that was written last in the runs of a folder.

    Raises:
        InputError: if there is none.
    """
    found = sorted(outputs.glob("*/*/model.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(
            f"there is no model in {outputs} yet: train one with python src/train.py, or name one with --model"
        )
    return found[-1]
