"""Loss and accuracy of an epoch while it runs, copied from a GPU only as often as needed."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

READ_S = 0.1
"""Seconds between two copies of the losses from a GPU."""


class NonFiniteLossError(ArithmeticError):
    """The loss of a step is NaN or infinite."""

    def __init__(self, loss: float, step: int) -> None:
        """Store the loss and the step, which is counted from 1."""
        super().__init__(f"loss {loss} in step {step}")
        self.loss, self.step = loss, step


class EpochMetrics:
    """Loss and accuracy of an epoch, summed over its steps.

    Args:
        on_batch: See `iolaus.classifier.training.loop.fit`.
        read_s: Seconds for which values may stay on the device: to read one means to wait for a GPU.
    """

    def __init__(self, on_batch: Callable[[float, float, int], None] | None = None, read_s: float = 0.0) -> None:
        """Start with empty sums."""
        self.on_batch, self.read_s = on_batch, read_s
        self.steps, self.images, self.total_loss, self.total_correct = 0, 0, 0.0, 0
        self._unread: list[tuple[Tensor, int]] = []
        self._read_at = time.monotonic()

    def add(self, loss_and_correct: Tensor, count: int) -> None:
        """Add a step over `count` images: its loss and its number of correct predictions, float32 (2,).

        Raises:
            NonFiniteLossError: see `read`.
        """
        self._unread.append((loss_and_correct, count))
        if time.monotonic() - self._read_at >= self.read_s:
            self.read()

    def read(self) -> None:
        """Sum the values that have not been read.

        Raises:
            NonFiniteLossError: for a loss that is NaN or infinite.
        """
        unread, self._unread = self._unread, []
        values = torch.stack([loss_and_correct for loss_and_correct, _ in unread]).tolist() if unread else []
        for (loss, correct), (_, count) in zip(values, unread, strict=True):
            self.steps += 1
            if not math.isfinite(loss):
                raise NonFiniteLossError(loss, self.steps)
            self.total_loss += loss * count
            self.total_correct += int(correct)
            self.images += count
            if self.on_batch is not None:
                self.on_batch(loss, correct / count, count)
        self._read_at = time.monotonic()

    @property
    def loss(self) -> float:
        """The mean loss over the images."""
        return self.total_loss / self.images

    @property
    def accuracy(self) -> float:
        """The fraction of correct predictions, in [0, 1]."""
        return self.total_correct / self.images
