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


def test_with_normalization_normalises_as_by_hand() -> None:
    model, pixels = MLP((3, 6, 6), 4), torch.rand(5, 3, 6, 6)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    by_hand = torch.stack([(pixels[:, i] - mean[i]) / std[i] for i in range(3)], dim=1)

    assert torch.equal(WithNormalization(model, mean, std)(pixels), model(by_hand))


def test_with_normalization_saves_its_statistics() -> None:
    state = WithNormalization(MLP((1, 6, 6), 4), [0.25], [0.5]).state_dict()

    assert (state["mean"].flatten().tolist(), state["std"].flatten().tolist()) == ([0.25], [0.5])


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
    with pytest.raises(InputError, match=r"^the model must return logits of shape \(2, 10\) .* but returned \(2, 7\)$"):
        build(partial(MLP, num_classes=7), (1, 8, 8), 10)


def test_something_else_than_a_module_is_an_error_that_names_its_type() -> None:
    with pytest.raises(InputError, match=r"^model\._target_ must return a torch\.nn\.Module, but returned dict$"):
        build(lambda num_classes: {"classes": num_classes}, (1, 8, 8), 10)


def test_a_mistake_within_the_constructor_keeps_its_message() -> None:
    with pytest.raises(InputError, match=r"^model\.dropout must be in"):
        build(partial(MLP, dropout=1.5), (1, 8, 8), 10)


def test_a_built_model_is_ready_to_be_trained() -> None:
    assert all(layer.training for layer in build(CNN, (1, 8, 8), 10).modules())


def test_building_leaves_the_statistics_of_batch_norm_alone() -> None:
    state = build(CNN, (1, 8, 8), 10).state_dict()

    assert {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")} == {0}


def test_parameters_are_counted() -> None:
    assert num_parameters(MLP((1, 8, 8), 10, [16])) == (64 * 16 + 16) + (16 * 10 + 10)


def test_frozen_parameters_are_not_counted() -> None:
    model = MLP((1, 8, 8), 10, [16])
    model[1].requires_grad_(False)

    assert num_parameters(model) == 16 * 10 + 10


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

    with pytest.raises(InputError, match="must return logits"):
        build(Pair, (1, 8, 8), 10)
