from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn

from iolaus.classifier.data.batches import Shape
from iolaus.classifier.models.build import WithNormalization, build, num_parameters
from iolaus.classifier.models.cnn import CNN
from iolaus.classifier.models.mlp import MLP
from iolaus.errors import InputError

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 32, 32), (2, 9, 14)]


def kinds(model: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in model.children()]


# MLP


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


def test_an_mlp_drops_pixels_first_and_normalises_before_each_relu() -> None:
    model = MLP((1, 8, 8), 10, [5], batch_norm=True, dropout=0.2, input_dropout=0.1)

    assert kinds(model) == ["Flatten", "Dropout", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    assert model[1].p == 0.1
    assert model[2].bias is None


# CNN


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


# values out of range


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


# OnPixels


def test_on_pixels_normalises_as_by_hand() -> None:
    model, pixels = MLP((3, 6, 6), 4), torch.rand(5, 3, 6, 6)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    by_hand = torch.stack([(pixels[:, i] - mean[i]) / std[i] for i in range(3)], dim=1)

    assert torch.equal(WithNormalization(model, mean, std)(pixels), model(by_hand))


def test_on_pixels_saves_its_statistics() -> None:
    state = WithNormalization(MLP((1, 6, 6), 4), [0.25], [0.5]).state_dict()

    assert (state["mean"].flatten().tolist(), state["std"].flatten().tolist()) == ([0.25], [0.5])


# build


class OnlyClasses(nn.Module):
    def __init__(self, num_classes: int, width: int = 3) -> None:
        super().__init__()
        self.width, self.last = width, nn.LazyLinear(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images.flatten(1))


class ChannelsAndClasses(nn.Module):
    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_classes, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean((2, 3))


def a_function(input_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(input_shape[1]), nn.Flatten(), nn.Linear(input_shape[0], num_classes))


def asks_for_nothing() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


@pytest.mark.parametrize("make", [MLP, CNN, OnlyClasses, ChannelsAndClasses, a_function, asks_for_nothing])
def test_any_class_or_function_that_gives_a_module_is_a_model(make: Callable[..., nn.Module]) -> None:
    assert build(make, (3, 8, 8), 10)(torch.rand(4, 3, 8, 8)).shape == (4, 10)


def test_what_the_user_set_reaches_the_constructor() -> None:
    model = build(partial(OnlyClasses, width=9), (1, 8, 8), 10)

    assert model.width == 9


def test_lazy_layers_are_sized_by_build() -> None:
    assert num_parameters(build(OnlyClasses, (1, 8, 8), 10)) == 64 * 10 + 10


def test_a_resnet_of_torchvision_is_a_model() -> None:
    model = build(partial(torchvision.models.resnet18, weights=None), (3, 32, 32), 10)

    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_a_model_that_cannot_take_the_images_is_an_error_with_their_shape() -> None:
    with pytest.raises(InputError, match=r"^the model cannot take images of shape \(2, 1, 28, 28\): .*3 channels"):
        build(torchvision.models.resnet18, (1, 28, 28), 10)


def test_an_unknown_keyword_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"^model does not fit MLP: .*unexpected keyword argument 'hiden_sizes'$"):
        build(partial(MLP, hiden_sizes=[5]), (1, 8, 8), 10)


def test_a_missing_argument_is_an_error_that_names_it() -> None:
    class Demanding(OnlyClasses):
        def __init__(self, num_classes: int, depth: int) -> None:
            super().__init__(num_classes, depth)

    with pytest.raises(InputError, match=r"^model does not fit .*Demanding: missing a required argument: 'depth'$"):
        build(Demanding, (1, 8, 8), 10)


def test_logits_of_another_shape_are_an_error_that_gives_both() -> None:
    with pytest.raises(InputError, match=r"^the model must give logits of shape \(2, 10\) .* but gave \(2, 7\)$"):
        build(partial(MLP, num_classes=7), (1, 8, 8), 10)


def test_something_else_than_a_module_is_an_error_that_names_its_type() -> None:
    with pytest.raises(InputError, match=r"^model\._target_ must give a torch\.nn\.Module, but got dict$"):
        build(lambda num_classes: {"classes": num_classes}, (1, 8, 8), 10)


def test_a_mistake_within_the_constructor_keeps_its_message() -> None:
    with pytest.raises(InputError, match=r"^model\.dropout must be in"):
        build(partial(MLP, dropout=1.5), (1, 8, 8), 10)


def test_a_built_model_is_ready_to_be_trained() -> None:
    assert all(layer.training for layer in build(CNN, (1, 8, 8), 10).modules())


def test_building_leaves_the_statistics_of_batch_norm_alone() -> None:
    state = build(CNN, (1, 8, 8), 10).state_dict()

    assert {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")} == {0}


# num_parameters


def test_parameters_are_counted() -> None:
    assert num_parameters(MLP((1, 8, 8), 10, [16])) == (64 * 16 + 16) + (16 * 10 + 10)


def test_frozen_parameters_are_not_counted() -> None:
    model = MLP((1, 8, 8), 10, [16])
    model[1].requires_grad_(False)

    assert num_parameters(model) == 16 * 10 + 10


def test_dropout_is_checked_without_hidden_layers_too() -> None:
    with pytest.raises(InputError, match=r"^model\.dropout must be in \[0, 1\), but got 1\.5$"):
        MLP((1, 8, 8), 10, [], dropout=1.5)


def test_the_last_block_of_a_cnn_without_hidden_layers_has_dropout() -> None:
    assert "Dropout" in kinds(CNN((1, 8, 8), 10, [4], hidden_sizes=[], dropout=0.5))


@pytest.mark.parametrize("sizes", [None, 2.5])
def test_sizes_that_are_no_list_are_an_error(sizes: object) -> None:
    with pytest.raises(InputError, match=r"^model\.hidden_sizes must be a list"):
        MLP((1, 8, 8), 10, sizes)


def test_a_kernel_size_that_is_no_whole_number_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^model\.kernel_size must be"):
        CNN((1, 8, 8), 10, kernel_size=3.0)


def test_a_model_that_asserts_another_image_size_is_an_error_with_the_shape() -> None:
    class Choosy(OnlyClasses):
        def forward(self, images: Tensor) -> Tensor:
            torch._assert(images.shape[-1] == 224, "Wrong image width!")  # as torchvision's vit_b_16 does
            return super().forward(images)

    with pytest.raises(InputError, match="cannot take images of shape"):
        build(Choosy, (1, 8, 8), 10)


def test_a_batch_norm_of_the_wrong_rank_is_an_error_with_the_shape() -> None:
    def make(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(1), nn.Flatten(), nn.LazyLinear(num_classes))

    with pytest.raises(InputError, match="cannot take images of shape"):
        build(make, (1, 8, 8), 10)


def test_a_model_that_gives_a_tuple_is_an_error() -> None:
    class Pair(OnlyClasses):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(images), images

    with pytest.raises(InputError, match="must give logits"):
        build(Pair, (1, 8, 8), 10)
