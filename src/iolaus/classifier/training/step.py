"""A training step; on a CUDA device its forward and backward pass are replayed from a graph."""

import functools
import logging
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from iolaus.classifier.training.device import autocast
from iolaus.errors import InputError

log = logging.getLogger(__name__)
CAPTURABLE = ("torch.nn.", "torchvision.models.", "torchvision.ops.", "iolaus.classifier.models.")
"""Packages whose modules decide nothing in Python that may differ between batches, as torchvision.transforms do."""


class TrainStep:
    """A training step on a batch.

    A GPU finishes the kernels of a small network long before Python has launched them. So on a CUDA device the forward
    and the backward pass are captured as a graph, which is launched at once. This happens at the second batch of each
    shape, since libraries are loaded and tuned during the first. Decisions that Python makes during the capture stay
    fixed, so a model is captured only if nothing in it is `uncapturable`.

    Args:
        model: Takes normalised images (B, C, H, W) and returns logits (B, K).
        optimizer: Over the model's parameters.
        precision: ``fp32`` or ``bf16`` (autocast).
        label_smoothing: Share of each target that is spread over all classes, in [0, 1).
        capture: Use graphs where they can be used.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        precision: str = "fp32",
        label_smoothing: float = 0.0,
        capture: bool = True,
    ) -> None:
        """Store the arguments, and decide on capturing."""
        self.model, self.optimizer = model, optimizer
        self.precision, self.label_smoothing = precision, label_smoothing
        self.parameters = list(model.parameters())
        self.device = self.parameters[0].device
        self.captures = capture and self.device.type == "cuda"
        if self.captures and (names := uncapturable(model)):
            self.captures = False
            log.info("slower than it could be: README on capturable = True says what %s may need", " and ".join(names))
        self.graphs: dict[torch.Size, CapturedGraph | None] = {}
        """The graph for each shape of a batch; None for a shape seen once."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step.

        Returns:
            The loss and the number of correct predictions, both before the step: float32 (2,), on the model's device.

        Raises:
            InputError: for a batch of one image, if the model cannot learn from one alone.
        """
        loss_and_correct = self._replay(images, labels) if self.captures else self._learn(images, labels)
        self.optimizer.step()
        return loss_and_correct

    def _learn(self, images: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients in the parameters, and return the loss and the number of correct predictions."""
        self.model.zero_grad()
        try:
            with autocast(images.device, self.precision):
                logits = self.model(images)
        except ValueError as error:
            if len(labels) > 1 or isinstance(error, InputError):
                raise
            raise InputError(
                f"data.batch_size must be at least 2 for this model, which normalises over a batch: {error}"
            ) from error
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)
        loss.backward()
        return torch.stack([loss.detach(), (logits.detach().argmax(1) == labels).sum().float()])

    def _replay(self, images: Tensor, labels: Tensor) -> Tensor:
        if images.shape not in self.graphs:
            self.graphs[images.shape] = None
            return self._learn(images, labels)
        graph = self.graphs[images.shape]
        if graph is None:
            try:
                graph = self.graphs[images.shape] = CapturedGraph(self._learn, self.parameters, images, labels)
            except RuntimeError as error:  # it asks for a value of the GPU, for example
                log.info("slower: no CUDA graph can be made of this model (%s)", str(error).partition("\n")[0])
                self.captures = False
                self.graphs.clear()  # they hold memory
        # not within "except": the error refers to the captured tensors, whose gradients would be added to
        return graph(images, labels) if graph is not None else self._learn(images, labels)


class CapturedGraph:
    """A CUDA graph of a function of tensors, including the gradients that the function leaves in parameters.

    ``torch.cuda.make_graphed_callables`` does this for a module, but its warm-up changes the running statistics of
    batch norm and draws random numbers, so that a run would differ from one without it.

    Args:
        function: Returns a tensor; it must have been called once before, so that its libraries are loaded and tuned.
        parameters: The parameters in which it leaves gradients.
        inputs: Examples of its arguments.
    """

    def __init__(self, function: Callable[..., Tensor], parameters: Iterable[nn.Parameter], *inputs: Tensor) -> None:
        """Capture without computing anything yet; if that fails, restore the stream and the random generator."""
        self.inputs, self.parameters = [tensor.clone() for tensor in inputs], list(parameters)
        self.graph = torch.cuda.CUDAGraph()
        device = self.inputs[0].device
        generator = torch.cuda.default_generators[device.index]
        before = generator.clone_state()
        here = torch.cuda.stream(torch.cuda.current_stream())
        # "thread_local": other threads may use the GPU meanwhile
        capture = torch.cuda.graph(self.graph, stream=_stream(device), capture_error_mode="thread_local")
        try:
            with here, capture:
                self.output = function(*self.inputs)
        except BaseException:  # PyTorch 2.11 would treat all further random numbers as captured
            generator.graphsafe_set_state(before)
            raise
        self.gradients = [parameter.grad for parameter in self.parameters]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Return what the function returns for inputs of the same shapes."""
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient  # each graph has gradients of its own
        return self.output.clone()


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream on which graphs are captured; PyTorch's default belongs to the first GPU that was used."""
    return torch.cuda.Stream(device)


def uncapturable(model: nn.Module) -> list[str]:
    """Return the classes of modules that are not of `CAPTURABLE` and lack ``capturable = True``, or that have hooks."""
    return sorted(
        {
            type(module).__name__
            for module in model.modules()
            if not (type(module).__module__.startswith(CAPTURABLE) or getattr(module, "capturable", False))
            or module._forward_hooks
            or module._forward_pre_hooks
        }
    )
