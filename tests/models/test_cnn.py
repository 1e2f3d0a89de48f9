import pytest
import torch
from torch import nn

from iolaus.classifier.data.batches import Shape
from iolaus.classifier.models.cnn import CNN
from iolaus.errors import InputError

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 32, 32), (2, 9, 14)]


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model.children()]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cnn_gives_logits_for_any_shape(shape: Shape) -> None:
    assert CNN(shape, 7)(torch.rand(5, *shape)).shape == (5, 7)


@pytest.mark.parametrize(
    "keywords", [{"kernel_size": 5}, {"pool_size": 1}, {"batch_norm": False}, {"hidden_sizes": []}]
)
def test_a_cnn_gives_logits_for_each_option(keywords: dict[str, object]) -> None:
    assert CNN((1, 9, 14), 7, **keywords)(torch.rand(5, 1, 9, 14)).shape == (5, 7)


def test_depth_and_width_of_a_cnn_are_a_list() -> None:
    blocks = [layer for layer in CNN((3, 28, 28), 10, [4, 8]) if isinstance(layer, nn.Conv2d)]

    assert [(layer.in_channels, layer.out_channels) for layer in blocks] == [(3, 4), (4, 8)]


def test_each_block_of_a_cnn_pools() -> None:
    model = CNN((1, 28, 28), 10, [4, 8], hidden_sizes=[])

    assert kinds(model) == [*["Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"] * 2, "Flatten", "Linear"]
    assert model[-1].in_features == 8 * 7 * 7


def test_blocks_of_a_cnn_may_have_several_convolutions_and_pool_after_the_last() -> None:
    block = ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "MaxPool2d", "BatchNorm2d", "ReLU"]

    assert kinds(CNN((1, 28, 28), 10, [4, 8], convs=2, hidden_sizes=[])) == [*block * 2, "Flatten", "Linear"]
    assert kinds(CNN((1, 28, 28), 10, [4, 8], convs=[1, 2], hidden_sizes=[]))[4:-2] == block


def test_global_pooling_leaves_a_feature_for_each_channel() -> None:
    model = CNN((1, 28, 28), 10, [4, 8], global_pool=True, hidden_sizes=[])

    assert kinds(model)[-3:] == ["AdaptiveAvgPool2d", "Flatten", "Linear"]
    assert model[-1].in_features == 8
    assert model(torch.rand(5, 1, 28, 28)).shape == (5, 10)


def test_a_pool_size_of_one_pools_nothing() -> None:
    model = CNN((1, 12, 12), 10, [4], pool_size=1, hidden_sizes=[])

    assert "MaxPool2d" not in kinds(model)
    assert model[-1].in_features == 4 * 12 * 12


def test_a_cnn_without_batch_norm_has_biases_in_its_place() -> None:
    model = CNN((1, 28, 28), 10, [4], batch_norm=False)

    assert "BatchNorm2d" not in kinds(model)
    assert model[0].bias is not None


def test_a_cnn_has_dropout_before_and_after_each_hidden_layer() -> None:
    model = CNN((1, 28, 28), 10, [4], hidden_sizes=[6, 5], dropout=0.2)

    assert kinds(model)[4:] == ["Flatten", "Dropout", *["Linear", "ReLU", "Dropout"] * 2, "Linear"]


def test_a_cnn_without_dropout_has_no_dropout_layers() -> None:
    assert "Dropout" not in kinds(CNN((1, 28, 28), 10, dropout=0))


def test_the_last_block_of_a_cnn_without_hidden_layers_has_dropout() -> None:
    assert "Dropout" in kinds(CNN((1, 8, 8), 10, [4], hidden_sizes=[], dropout=0.5))


@pytest.mark.parametrize("crop", [-1, 14, 1.0, True])
def test_no_more_can_be_cut_off_than_there_is(crop: object) -> None:
    with pytest.raises(InputError, match=rf"^model.crop must be a whole number in 0..13, but got {crop}$"):
        CNN((1, 28, 30), 10, crop=crop)  # type: ignore[arg-type]


def test_a_cropped_cnn_sees_the_middle_alone() -> None:
    model = CNN((1, 28, 30), 10, [4], crop=3, hidden_sizes=[])
    images = torch.rand(5, 1, 28, 30)
    framed = images.clone()
    framed[:, :, 3:-3, 3:-3] = 0
    assert torch.equal(model.eval()(images - framed), model(images))
    assert model[-1].in_features == 4 * 11 * 12


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"channels": []}, r"^model\.channels must name at least one block, but got \[\]: model=mlp"),
        ({"channels": [0]}, r"^model\.channels must be a list of whole numbers of at least 1, but got \[0\]$"),
        ({"channels": 16}, r"^model\.channels must be a list of whole numbers of at least 1, but got 16$"),
        ({"kernel_size": 4}, r"^model\.kernel_size must be odd and at least 1, but got 4$"),
        ({"kernel_size": 0}, r"^model\.kernel_size must be odd and at least 1, but got 0$"),
        ({"kernel_size": -3}, r"^model\.kernel_size must be odd and at least 1, but got -3$"),
        ({"pool_size": 0}, r"^model\.pool_size must be at least 1, but got 0$"),
        ({"convs": 0}, r"^model\.convs must be a whole number of at least 1, or a list .*, but got 0$"),
        ({"convs": True}, r"^model\.convs must be .*, but got True$"),
        ({"convs": 2.0}, r"^model\.convs must be .*, but got 2\.0$"),
        ({"convs": "12"}, r"^model\.convs must be .*, but got 12$"),
        ({"convs": [1, 2]}, r"^model\.convs must be .* of model\.channels=\(16, 32, 64\), but got \[1, 2\]$"),
    ],
)
def test_a_value_that_no_block_can_have_is_an_error(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CNN((1, 28, 28), 10, **keywords)


def test_blocks_that_pool_the_image_to_nothing_are_an_error_that_names_the_block() -> None:
    message = r"^model\.pool_size=2 in 5 blocks shrinks images of 28x28 to nothing: block 5 is left 1x1"
    with pytest.raises(InputError, match=message):
        CNN((1, 28, 28), 10, [8] * 5)


def test_the_shorter_side_decides_whether_anything_is_left() -> None:
    with pytest.raises(InputError, match="block 2 is left 2x10"):
        CNN((1, 6, 32), 10, [8, 8], pool_size=3)


def test_as_many_blocks_as_the_image_allows_are_allowed() -> None:
    assert CNN((1, 28, 28), 10, [8] * 4)(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_a_kernel_size_that_is_no_whole_number_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^model\.kernel_size must be"):
        CNN((1, 8, 8), 10, kernel_size=3.0)
