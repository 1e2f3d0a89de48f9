"""``model=layers``: a network as a mapping of named layers, any of which can be removed."""

from collections.abc import Mapping

import torch
from torch import nn

from iolaus.classifier.data.batches import Shape
from iolaus.errors import InputError


class Layers(nn.Sequential):
    """The named layers in order, then a linear layer to the logits.

    Input sizes are inferred: name ``torch.nn.LazyConv2d``, ``LazyLinear`` and the like, which have no argument for
    them. Images are flattened before the first linear layer. So any layer can be removed, and those that follow still
    fit: ``~model.layers.conv2`` or ``model.layers.conv2=null``.

    Args:
        input_shape: Channels, height and width of an image.
        num_classes: Number of logits.
        layers: Modules by name; None leaves a layer out.

    Raises:
        InputError: if no layer is left, a name cannot be used, or a layer does not fit its input.
    """

    def __init__(self, input_shape: Shape, num_classes: int, layers: Mapping[str, nn.Module | None]) -> None:
        """Build the network and size its layers."""
        super().__init__()
        kept = {name: layer for name, layer in (layers or {}).items() if layer is not None}
        if not kept:
            raise InputError("model.layers must keep at least one layer, but all were removed or null")
        for name in kept:
            if hasattr(self, name) or "." in name or name in ("logits", "flatten_images"):
                raise InputError(f"model.layers.{name} must have another name: a network has something called that")
        activations = torch.zeros(2, *input_shape)
        for name, layer in {**kept, "logits": nn.LazyLinear(num_classes)}.items():
            if not isinstance(layer, nn.Module):
                raise InputError(f"model.layers.{name} must be a torch.nn.Module, but got {layer!r}")
            if isinstance(layer, nn.Linear) and activations.dim() > 2:
                self.add_module("flatten_images", nn.Flatten())
                activations = activations.flatten(1)
            self.add_module(name, layer)
            activations = self._sized(name, layer, activations)

    @staticmethod
    @torch.no_grad()
    def _sized(name: str, layer: nn.Module, activations: torch.Tensor) -> torch.Tensor:
        """Return a layer's output for the activations before it; this also gives a lazy layer its size."""
        shape = "x".join(str(size) for size in activations.shape[1:])
        try:
            given = layer.eval()(activations)
        except (RuntimeError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"model.layers.{name} cannot take the {shape} that reaches it: {first}") from error
        finally:
            layer.train()
        if not isinstance(given, torch.Tensor):
            raise InputError(f"model.layers.{name} must return a tensor, but returned a {type(given).__name__}")
        if given.numel() == 0:
            raise InputError(
                f"model.layers.{name} shrinks the {shape} that reaches it to nothing: remove it or pool less"
            )
        return given
