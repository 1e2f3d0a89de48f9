"""A step of training; on a CUDA device its forward and backward pass are replayed from a graph."""

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
"""Where modules decide nothing in Python that may differ from batch to batch; torchvision.transforms do."""


class TrainStep:
    """Learns from a batch.

    A GPU is done with the kernels of a small network long before Python has launched them. So on a CUDA device the
    forward and the backward pass are captured as a graph, which is launched at once: at the second batch of each shape,
    as the first lets the libraries settle. What Python decides while a graph is captured stays decided, so a model is
    captured only if nothing in it is `uncapturable`.

    Args:
        model: Takes normalised images (B, C, H, W), gives logits (B, K).
        optimizer: Over the model's parameters.
        precision: ``fp32`` or ``bf16`` (autocast).
        label_smoothing: Share of each target that is spread over all classes, in [0, 1).
        capture: Whether graphs are used where they can be.
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
        """Keep what learns, and how."""
        self.model, self.optimizer = model, optimizer
        self.precision, self.label_smoothing = precision, label_smoothing
        self.parameters = list(model.parameters())
        self.device = self.parameters[0].device
        self.captures = capture and self.device.type == "cuda"
        if self.captures and (names := uncapturable(model)):
            self.captures = False
            log.info("slower than it could be: README on capturable = True says what %s may need", " and ".join(names))
        self.recordings: dict[torch.Size, CapturedGraph | None] = {}
        """By the shape of a batch; None for one that was seen once."""

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step.

        Returns:
            The loss and the number of correct predictions of before it, float32 (2,), on the model's device.

        Raises:
            InputError: for a model that cannot learn from one image alone, if it is given one.
        """
        of_step = self._replay(images, labels) if self.captures else self._learn(images, labels)
        self.optimizer.step()
        return of_step

    def _learn(self, images: Tensor, labels: Tensor) -> Tensor:
        """Leave the gradients in the parameters."""
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
        if images.shape not in self.recordings:
            self.recordings[images.shape] = None
            return self._learn(images, labels)
        recording = self.recordings[images.shape]
        if recording is None:
            try:
                recording = self.recordings[images.shape] = CapturedGraph(self._learn, self.parameters, images, labels)
            except RuntimeError as error:  # it asks for a value of the GPU, for example
                log.info("slower: no CUDA graph can be made of this model (%s)", str(error).partition("\n")[0])
                self.captures = False
                self.recordings.clear()  # they hold memory
        # not within "except": the error holds what was captured, whose gradients would go astray
        return recording(images, labels) if recording is not None else self._learn(images, labels)


class CapturedGraph:
    """A CUDA graph of what a function of tensors does, the gradients that it leaves in parameters included.

    ``torch.cuda.make_graphed_callables`` would do it for a module, but its warm-up changes the running statistics of
    batch norm and draws random numbers, so that a run would not be the same as without it.

    Args:
        function: Gives a tensor; called once before, so that the libraries have settled.
        parameters: Whose gradients it leaves.
        inputs: Examples of what it takes.
    """

    def __init__(self, function: Callable[..., Tensor], parameters: Iterable[nn.Parameter], *inputs: Tensor) -> None:
        """Capture, without computing anything yet; if that fails, stream and random generator are put back."""
        self.inputs, self.parameters = [tensor.clone() for tensor in inputs], list(parameters)
        self.graph = torch.cuda.CUDAGraph()
        device = self.inputs[0].device
        generator = torch.cuda.default_generators[device.index]
        before = generator.clone_state()
        here = torch.cuda.stream(torch.cuda.current_stream())
        # "thread_local": others may go on using the GPU meanwhile
        capture = torch.cuda.graph(self.graph, stream=_stream(device), capture_error_mode="thread_local")
        try:
            with here, capture:
                self.output = function(*self.inputs)
        except BaseException:  # PyTorch 2.11 would take all that is drawn from now on for captured
            generator.graphsafe_set_state(before)
            raise
        self.gradients = [parameter.grad for parameter in self.parameters]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the function gives, for inputs of the same shapes."""
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient  # of several recordings each has its own
        return self.output.clone()


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Where graphs are captured: PyTorch's own default is of the GPU that was the first."""
    return torch.cuda.Stream(device)


def uncapturable(model: nn.Module) -> list[str]:
    """Classes whose modules are not of `CAPTURABLE` and do not say ``capturable = True``, or have hooks of others."""
    return sorted(
        {
            type(module).__name__
            for module in model.modules()
            if not (type(module).__module__.startswith(CAPTURABLE) or getattr(module, "capturable", False))
            or module._forward_hooks
            or module._forward_pre_hooks
        }
    )
