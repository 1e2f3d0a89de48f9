"""Models built from a constructor and checked, and joined with the normalisation of their images.

A model of your own needs nothing from here: any class or function that returns a module from normalised images
(B, C, H, W) to logits (B, num_classes) can be named as ``model._target_``. `build` passes the arguments that it names.
"""

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from iolaus.classifier.data.batches import Shape
from iolaus.errors import InputError


class WithNormalization(nn.Module):
    """A model preceded by the normalisation that it was trained with: the form in which it is deployed.

    Args:
        model: Takes normalised images (B, C, H, W).
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        """Register the statistics as buffers."""
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))  # (C, 1, 1)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (B, K) of pixels float32 (B, C, H, W) in [0, 1]."""
        return self.model((pixels - self.mean) / self.std)


def build(make: Callable[..., nn.Module], input_shape: Shape, num_classes: int) -> nn.Module:
    """Call a model's constructor with the arguments that it names, and check that the model returns logits.

    Args:
        make: Names any of ``input_shape``, ``in_channels`` and ``num_classes`` as arguments; one that takes any
            keywords, as torchvision's models do, is given ``num_classes`` only.
        input_shape: Channels, height and width of the data set's images.
        num_classes: Number of its classes.

    Returns:
        The model, in training mode and on the CPU unless the constructor decides otherwise.

    Raises:
        InputError: if the arguments do not fit, or if the model cannot take such images or does not return logits.
    """
    offered = {"input_shape": input_shape, "in_channels": input_shape[0], "num_classes": num_classes}
    target = getattr(make, "func", make)  # not the partial, whose signature would accept unknown keywords
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
        raise InputError(f"model._target_ must return a torch.nn.Module, but returned {type(model).__name__}")
    logits = probe(model, input_shape)
    if not isinstance(logits, Tensor):
        raise InputError(f"the model must return logits as a tensor, but returned a {type(logits).__name__}")
    if tuple(logits.shape) != (2, num_classes):
        raise InputError(
            f"the model must return logits of shape (2, {num_classes}) for a batch of 2, but returned "
            f"{tuple(logits.shape)}"
        )
    return model


@torch.no_grad()
def probe(model: nn.Module, input_shape: Shape) -> Tensor:
    """Return the output for a batch of two black images in eval mode; this also sizes torch's lazy layers."""
    training = model.training
    model.eval()
    try:
        return model(torch.zeros(2, *input_shape))
    except (RuntimeError, TypeError, ValueError, IndexError, AssertionError) as error:
        raise InputError(f"the model cannot take images of shape {(2, *input_shape)}: {error}") from error
    finally:
        model.train(training)


def num_parameters(model: nn.Module) -> int:
    """Return the number of a model's trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
