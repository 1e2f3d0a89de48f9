"""Classifiers: modules that take normalised images (B, C, H, W) and give logits (B, num_classes).

A model of your own needs nothing from here: any class or function that gives such a module can be named as
``model._target_``. It is told what it asks for: see `build`.
"""

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from iolaus.errors import InputError, is_number, require

Shape = tuple[int, int, int]
"""Channels, height, width."""


class MLP(nn.Sequential):
    """Fully connected layers with ReLU and dropout between them, on flattened images.

    Args:
        input_shape: Channels, height, width.
        num_classes: Number of logits.
        hidden_sizes: Width of each hidden layer; none at all makes it a linear classifier.
        dropout: Probability of dropping a hidden activation, in [0, 1).
        input_dropout: Probability of dropping an input value (of a grey image: a pixel), in [0, 1).
        batch_norm: Whether the hidden layers normalise.
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


class CNN(nn.Sequential):
    """Blocks of convolution, max pooling, batch norm and ReLU, then fully connected layers.

    Pooling comes after a block's last convolution and before its batch norm, which then has that many fewer pixels to
    do.

    Args:
        input_shape: Channels, height, width.
        num_classes: Number of logits.
        channels: Output channels of each block.
        convs: Number of convolutions in a block: the same in all, or a list with one for each.
        kernel_size: Side of the convolutions' kernels, odd: the image keeps its size.
        pool_size: Side and stride of each block's max pooling; 1 pools nothing.
        batch_norm: Whether the blocks normalise.
        global_pool: Whether each channel of the last block becomes one feature, its mean over the image.
        hidden_sizes: Width of each hidden layer after the blocks.
        dropout: Probability of dropping a hidden activation, and a feature of the last block, in [0, 1).
        crop: Pixels that are cut off each side of the images first, less than half of the shorter side.
    """

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        channels: Sequence[int] = (16, 32, 64),
        convs: int | Sequence[int] = 1,
        kernel_size: int = 3,
        pool_size: int = 2,
        batch_norm: bool = True,
        global_pool: bool = False,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
        crop: int = 0,
    ) -> None:
        """Build the layers."""
        check_sizes("model.channels", channels)
        if not channels:
            raise InputError("model.channels must name at least one block, but got []: model=mlp has no convolutions")
        if type(kernel_size) is not int or kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"model.kernel_size must be odd and at least 1, but got {kernel_size}")
        if type(pool_size) is not int or pool_size < 1:
            raise InputError(f"model.pool_size must be at least 1, but got {pool_size}")
        depths: Sequence[int] = [convs] * len(channels) if isinstance(convs, int) else convs
        listed = isinstance(depths, Sequence) and len(depths) == len(channels)
        if not listed or not all(type(depth) is int and depth >= 1 for depth in depths):
            raise InputError(
                "model.convs must be a whole number of at least 1, or a list of one for each of "
                f"model.channels={channels}, but got {convs}"
            )
        in_channels, height, width = input_shape
        largest = (min(height, width) - 1) // 2
        require(type(crop) is int and 0 <= crop <= largest, "model.crop", f"a whole number in 0..{largest}", crop)
        height, width = height - 2 * crop, width - 2 * crop
        cropped = f"{height}x{width}"
        blocks: list[nn.Module] = [nn.ZeroPad2d(-crop)] if crop else []  # negative padding cuts off
        for block, (out_channels, depth) in enumerate(zip(channels, depths, strict=True), start=1):
            if min(height, width) < pool_size:
                left = f"{cropped}{f' (after model.crop={crop})' if crop else ''}"
                raise InputError(
                    f"model.pool_size={pool_size} in {len(channels)} blocks shrinks images of {left} to nothing: "
                    f"block {block} is left {height}x{width}; pool less or drop blocks"
                )
            height, width = height // pool_size, width // pool_size
            for conv in range(1, depth + 1):
                # a bias before a batch norm would be subtracted again
                blocks.append(nn.Conv2d(in_channels, out_channels, kernel_size, padding="same", bias=not batch_norm))
                blocks += [nn.MaxPool2d(pool_size)] if pool_size > 1 and conv == depth else []
                blocks += [nn.BatchNorm2d(out_channels)] if batch_norm else []
                blocks.append(nn.ReLU())
                in_channels = out_channels
        if global_pool:
            blocks.append(nn.AdaptiveAvgPool2d(1))
            height = width = 1
        features: list[nn.Module] = [nn.Flatten()]
        features += [nn.Dropout(dropout)] if check_dropout(dropout) else []
        super().__init__(*blocks, *features, *dense(in_channels * height * width, num_classes, hidden_sizes, dropout))


class OnPixels(nn.Module):
    """A model behind the normalisation that it was trained with: the form in which it is deployed.

    Args:
        model: Takes normalised images.
        mean: Of each channel.
        std: Of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        """Keep the statistics as buffers."""
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))  # (C, 1, 1)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, K) of pixels float32 (B, C, H, W) in [0, 1]."""
        return self.model((pixels - self.mean) / self.std)


def dense(
    in_features: int,
    out_features: int,
    hidden_sizes: Sequence[int] = (),
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> list[nn.Module]:
    """Linear layers from (B, in_features) to (B, out_features); after each but the last batch norm, ReLU, dropout."""
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
    """Raise `InputError` unless `dropout` is in [0, 1); tell whether there is any."""
    require(is_number(dropout) and 0 <= dropout < 1, key, "in [0, 1)", dropout)
    return dropout > 0


def build(make: Callable[..., nn.Module], input_shape: Shape, num_classes: int) -> nn.Module:
    """Call a model's constructor with what it asks for by name, and see that it gives logits.

    Args:
        make: Takes any of ``input_shape``, ``in_channels`` and ``num_classes``, or takes them as keywords in
            general: then only ``num_classes``, as torchvision's models do.
        input_shape: Channels, height, width of the data set's images.
        num_classes: Number of its classes.

    Raises:
        InputError: if the module cannot take such images, or gives something else than logits.
    """
    offered = {"input_shape": input_shape, "in_channels": input_shape[0], "num_classes": num_classes}
    target = getattr(make, "func", make)  # of a partial: its signature proper also tells of unknown keywords
    given = getattr(make, "keywords", {})
    signature = inspect.signature(target)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    wanted = {
        name: value
        for name, value in offered.items()
        if name not in given and (name in signature.parameters or (open_ended and name == "num_classes"))
    }
    try:
        signature.bind(**given, **wanted)
    except TypeError as error:
        raise InputError(f"model does not fit {getattr(target, '__qualname__', target)}: {error}") from error
    model = make(**wanted)
    if not isinstance(model, nn.Module):
        raise InputError(f"model._target_ must give a torch.nn.Module, but got {type(model).__name__}")
    logits = probe(model, input_shape)
    if not isinstance(logits, Tensor):
        raise InputError(f"the model must give logits as a tensor, but gave a {type(logits).__name__}")
    if tuple(logits.shape) != (2, num_classes):
        raise InputError(
            f"the model must give logits of shape (2, {num_classes}) for a batch of 2, but gave {tuple(logits.shape)}"
        )
    return model


@torch.no_grad()
def probe(model: nn.Module, input_shape: Shape) -> Tensor:
    """Run a batch of two black images through the model in eval mode, which also sizes torch's lazy layers."""
    training = model.training
    model.eval()
    try:
        return model(torch.zeros(2, *input_shape))
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        raise InputError(f"the model cannot take images of shape {(2, *input_shape)}: {error}") from error
    finally:
        model.train(training)


def num_parameters(model: nn.Module) -> int:
    """The number of trainable numbers in a model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
