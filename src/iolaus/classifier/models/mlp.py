"""``model=mlp``: fully connected layers, which a `iolaus.classifier.models.cnn.CNN` ends with as well."""

import math
from collections.abc import Sequence

from torch import nn

from iolaus.classifier.data.batches import Shape
from iolaus.errors import InputError, is_number, require


class MLP(nn.Sequential):
    """Fully connected layers with ReLU and dropout between them, on flattened images.

    Args:
        input_shape: Channels, height and width of an image.
        num_classes: Number of logits.
        hidden_sizes: Width of each hidden layer; an empty list makes it a linear classifier.
        dropout: Probability of dropping a hidden activation, in [0, 1).
        input_dropout: Probability of dropping an input value (of a grey image: a pixel), in [0, 1).
        batch_norm: Add batch norm to each hidden layer.

    Raises:
        InputError: for a value out of range.
    """

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        hidden_sizes: Sequence[int] = (384, 128),
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        """Build the layers."""
        pixels: list[nn.Module] = [nn.Flatten()]
        pixels += [nn.Dropout(input_dropout)] if check_dropout(input_dropout, "model.input_dropout") else []
        super().__init__(*pixels, *dense(math.prod(input_shape), num_classes, hidden_sizes, dropout, batch_norm))


def dense(
    in_features: int,
    out_features: int,
    hidden_sizes: Sequence[int] = (),
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> list[nn.Module]:
    """Return linear layers from (B, in_features) to (B, out_features), with batch norm, ReLU and dropout between them.

    Args:
        in_features: Number of inputs.
        out_features: Number of outputs.
        hidden_sizes: Width of each hidden layer.
        dropout: Probability of dropping a hidden activation, in [0, 1).
        batch_norm: Add batch norm to each hidden layer.

    Raises:
        InputError: for a value out of range.
    """
    check_sizes("model.hidden_sizes", hidden_sizes)
    dropping = check_dropout(dropout)
    layers: list[nn.Module] = []
    for size in hidden_sizes:
        layers.append(nn.Linear(in_features, size, bias=not batch_norm))
        layers += [nn.BatchNorm1d(size)] if batch_norm else []
        layers.append(nn.ReLU())
        layers += [nn.Dropout(dropout)] if dropping else []
        in_features = size
    return [*layers, nn.Linear(in_features, out_features)]


def check_sizes(key: str, sizes: Sequence[int]) -> None:
    """Raise `InputError` unless `sizes` is a list of whole numbers of at least 1."""
    listed = isinstance(sizes, Sequence) and not isinstance(sizes, str)
    if not listed or not all(type(size) is int and size >= 1 for size in sizes):
        raise InputError(f"{key} must be a list of whole numbers of at least 1, but got {sizes}")


def check_dropout(dropout: float, key: str = "model.dropout") -> bool:
    """Raise `InputError` unless `dropout` is in [0, 1); return True if it is above 0."""
    require(is_number(dropout) and 0 <= dropout < 1, key, "in [0, 1)", dropout)
    return dropout > 0
