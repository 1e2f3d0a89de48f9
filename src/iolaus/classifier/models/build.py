"""Classifiers: modules that take normalised images (B, C, H, W) and give logits (B, num_classes).

A model of your own needs nothing from here: any class or function that gives such a module can be named as
``model._target_``. It is told what it asks for: see `build`.
"""

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from iolaus.classifier.data.batches import Shape
from iolaus.errors import InputError


class WithNormalization(nn.Module):
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
