from collections.abc import Callable

import pytest
import torch
from torch import nn

from iolaus.classifier.data.batches import Shape
from iolaus.classifier.models.cnn import CNN
from iolaus.classifier.models.mlp import MLP
from iolaus.errors import InputError

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 32, 32), (2, 9, 14)]


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model.children()]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_mlp_gives_logits_for_any_shape(shape: Shape) -> None:
    assert MLP(shape, 7)(torch.rand(5, *shape)).shape == (5, 7)


def test_depth_and_width_of_an_mlp_are_a_list() -> None:
    linear = [layer for layer in MLP((1, 8, 8), 10, [40, 30, 20]) if isinstance(layer, nn.Linear)]

    assert [(layer.in_features, layer.out_features) for layer in linear] == [(64, 40), (40, 30), (30, 20), (20, 10)]


def test_an_mlp_without_hidden_layers_is_linear() -> None:
    assert kinds(MLP((1, 8, 8), 10, [])) == ["Flatten", "Linear"]


def test_an_mlp_has_relu_and_dropout_after_each_layer_but_the_last() -> None:
    model = MLP((1, 8, 8), 10, [5, 4], dropout=0.3)

    assert kinds(model) == ["Flatten", *["Linear", "ReLU", "Dropout"] * 2, "Linear"]
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


def test_an_mlp_without_dropout_has_no_dropout_layers() -> None:
    assert "Dropout" not in kinds(MLP((1, 8, 8), 10, [5, 4], dropout=0))


def test_an_mlp_drops_pixels_first_and_normalises_before_each_relu() -> None:
    model = MLP((1, 8, 8), 10, [5], batch_norm=True, dropout=0.2, input_dropout=0.1)

    assert kinds(model) == ["Flatten", "Dropout", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    assert model[1].p == 0.1
    assert model[2].bias is None


@pytest.mark.parametrize("make", [MLP, CNN])
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dropout": 1.5}, r"^model\.dropout must be in \[0, 1\), but got 1\.5$"),
        ({"dropout": 1}, r"^model\.dropout must be in \[0, 1\), but got 1$"),
        ({"dropout": -0.1}, r"^model\.dropout must be in \[0, 1\), but got -0\.1$"),
        ({"dropout": float("nan")}, r"^model\.dropout must be in \[0, 1\), but got nan$"),
        ({"hidden_sizes": [0]}, r"^model\.hidden_sizes must be a list of whole numbers .*, but got \[0\]$"),
        ({"hidden_sizes": [8, -1]}, r"^model\.hidden_sizes must be a list of whole numbers .*, but got \[8, -1\]$"),
        ({"hidden_sizes": [2.5]}, r"^model\.hidden_sizes must be a list of whole numbers .*, but got \[2\.5\]$"),
        ({"hidden_sizes": [True]}, r"^model\.hidden_sizes must be a list of whole numbers .*, but got \[True\]$"),
        ({"hidden_sizes": 128}, r"^model\.hidden_sizes must be a list of whole numbers .*, but got 128$"),
        ({"hidden_sizes": "128"}, r"^model\.hidden_sizes must be a list of whole numbers .*, but got 128$"),
    ],
)
def test_a_value_that_no_layer_can_have_is_an_error(
    make: Callable[..., nn.Module], keywords: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make((1, 28, 28), 10, **keywords)


def test_dropout_is_checked_without_hidden_layers_too() -> None:
    with pytest.raises(InputError, match=r"^model\.dropout must be in \[0, 1\), but got 1\.5$"):
        MLP((1, 8, 8), 10, [], dropout=1.5)


@pytest.mark.parametrize("sizes", [None, 2.5])
def test_sizes_that_are_no_list_are_an_error(sizes: object) -> None:
    with pytest.raises(InputError, match=r"^model\.hidden_sizes must be a list"):
        MLP((1, 8, 8), 10, sizes)
