from collections.abc import Mapping

import pytest
import torch
from conftest import ROOT
from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from iolaus.classifier.models import build
from iolaus.classifier.models.layers import Layers
from iolaus.errors import InputError

CONFIG = ROOT / "conf" / "model" / "layers.yaml"
NAMES = list(OmegaConf.load(CONFIG).layers)


def network(config: DictConfig) -> nn.Module:
    """What src/train.py makes of a model's configuration, for MNIST."""
    make = instantiate(config, _partial_=True, _convert_="all", _execution_whitelist_=UNSAFE_DISABLE_EXECUTION_CHECKS)
    return build.build(make, (1, 28, 28), 10)


def default() -> DictConfig:
    config = OmegaConf.load(CONFIG)
    assert isinstance(config, DictConfig)
    return config


def small(**layers: nn.Module | None) -> Layers:
    return Layers((1, 8, 8), 10, layers)


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_children()]


def test_the_default_network_has_the_layers_of_its_yaml() -> None:
    model = network(default())

    assert names(model) == [*NAMES[: NAMES.index("fc1")], "flatten_images", *NAMES[NAMES.index("fc1") :], "logits"]


@pytest.mark.parametrize("name", NAMES)
def test_any_layer_of_the_default_network_can_be_removed(name: str) -> None:
    config = default()
    del config.layers[name]
    model = network(config)

    assert name not in names(model)
    assert model(torch.rand(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize("name", NAMES)
def test_any_layer_of_the_default_network_can_be_null(name: str) -> None:
    config = default()
    config.layers[name] = None
    model = network(config)

    assert name not in names(model)
    assert model(torch.rand(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize("name", NAMES)
def test_any_layer_of_the_default_network_can_stand_alone(name: str) -> None:
    config = default()
    config.layers = {name: config.layers[name]}

    assert network(config)(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_inputs_of_layers_are_inferred() -> None:
    model = small(conv=nn.LazyConv2d(5, 3), pool=nn.MaxPool2d(2), fc=nn.LazyLinear(7))

    assert model.conv.in_channels == 1
    assert model.fc.in_features == 5 * 3 * 3
    assert (model.logits.in_features, model.logits.out_features) == (7, 10)


def test_images_are_flattened_before_the_first_linear_layer_only() -> None:
    assert names(small(fc1=nn.LazyLinear(7), fc2=nn.LazyLinear(6))) == ["flatten_images", "fc1", "fc2", "logits"]


def test_a_flatten_of_ones_own_is_not_doubled() -> None:
    assert names(small(conv=nn.LazyConv2d(5, 3), flatten=nn.Flatten(), fc=nn.LazyLinear(7))) == [
        "conv",
        "flatten",
        "fc",
        "logits",
    ]


def test_logits_follow_a_convolution_directly() -> None:
    assert small(conv=nn.LazyConv2d(5, 3))(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_the_order_of_the_mapping_is_the_order_of_the_layers() -> None:
    assert names(small(zeta=nn.ReLU(), alpha=nn.LazyConv2d(2, 3), mid=nn.ReLU()))[:3] == ["zeta", "alpha", "mid"]


def test_layers_are_left_in_training_mode() -> None:
    assert all(layer.training for layer in small(fc=nn.LazyLinear(7), dropout=nn.Dropout(0.5)).modules())


def test_sizing_leaves_the_statistics_of_batch_norm_alone() -> None:
    model = small(conv=nn.LazyConv2d(5, 3), norm=nn.LazyBatchNorm2d())

    assert model.norm.num_batches_tracked == 0


def test_a_layers_network_survives_its_state_dict() -> None:
    first, second = (small(conv=nn.LazyConv2d(5, 3)) for _ in range(2))
    images = torch.rand(2, 1, 8, 8)
    assert not torch.equal(first(images), second(images))
    second.load_state_dict(first.state_dict())

    assert torch.equal(first(images), second(images))


@pytest.mark.parametrize("layers", [{}, None, {"conv1": None, "fc1": None}])
def test_layers_that_leave_nothing_are_an_error(layers: Mapping[str, nn.Module | None]) -> None:
    with pytest.raises(InputError, match=r"^model\.layers must keep at least one layer, but all were removed or null$"):
        Layers((1, 8, 8), 10, layers)


def test_a_layer_that_is_no_module_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"^model\.layers\.fc1 must be a torch\.nn\.Module, but got 'ReLU'$"):
        Layers((1, 8, 8), 10, {"fc1": "ReLU"})


def test_a_layer_called_logits_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^model\.layers\.logits must have another name"):
        small(logits=nn.LazyLinear(10))


def test_pooling_to_nothing_is_an_error_that_names_the_layer() -> None:
    with pytest.raises(InputError, match=r"^model\.layers\.pool2 cannot take the 1x2x2 that reaches it: .*too small"):
        small(pool1=nn.MaxPool2d(4), pool2=nn.MaxPool2d(4))


def test_a_layer_that_gives_nothing_is_an_error_that_names_it() -> None:
    class Crop(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images[..., 8:]

    with pytest.raises(InputError, match=r"^model\.layers\.crop shrinks the 1x8x8 that reaches it to nothing"):
        small(crop=Crop(), fc=nn.LazyLinear(3))


def test_a_layer_that_does_not_fit_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"^model\.layers\.conv2 cannot take the 4x6x6 that reaches it: .*channels"):
        small(conv1=nn.LazyConv2d(4, 3), conv2=nn.Conv2d(5, 2, 3))


def test_a_convolution_after_a_linear_layer_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"^model\.layers\.conv cannot take the 7 that reaches it"):
        small(fc=nn.LazyLinear(7), conv=nn.LazyConv2d(4, 3))


def test_a_layer_called_flatten_is_never_replaced() -> None:
    model = small(flatten=nn.ReLU(), fc=nn.LazyLinear(3))

    assert any(isinstance(layer, nn.ReLU) for layer in model)


def test_a_name_that_torch_refuses_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"model\.layers\.append"):
        small(append=nn.ReLU())


def test_a_layer_that_gives_a_tuple_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"model\.layers\.lstm"):
        small(flat=nn.Flatten(), lstm=nn.LSTM(64, 5))
