"""Loss and accuracy of an epoch while it runs, read from a GPU no more often than they are needed."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

READ_S = 0.1
"""Seconds between two looks at the losses on a GPU."""


class NonFiniteLossError(ArithmeticError):
    """The loss of a step is NaN or infinite."""

    def __init__(self, loss: float, step: int) -> None:
        """Keep the value, and the step counted from 1."""
        super().__init__(f"loss {loss} in step {step}")
        self.loss, self.step = loss, step


class EpochMetrics:
    """Loss and accuracy of an epoch, added up from its steps.

    Args:
        on_batch: See `iolaus.classifier.training.loop.fit`.
        read_s: Seconds for which values may stay where they are: to read one, a GPU has to be waited for.
    """

    def __init__(self, on_batch: Callable[[float, float, int], None] | None = None, read_s: float = 0.0) -> None:
        """Begin at nothing."""
        self.on_batch, self.read_s = on_batch, read_s
        self.steps, self.images, self.total_loss, self.total_correct = 0, 0, 0.0, 0
        self._unread: list[tuple[Tensor, int]] = []
        self._read_at = time.monotonic()

    def add(self, of_step: Tensor, count: int) -> None:
        """Take a step's loss and number of correct predictions, float32 (2,), over so many images."""
        self._unread.append((of_step, count))
        if time.monotonic() - self._read_at >= self.read_s:
            self.read()

    def read(self) -> None:
        """Add up what has not been read.

        Raises:
            NonFiniteLossError: for a loss that is NaN or infinite.
        """
        unread, self._unread = self._unread, []
        values = torch.stack([of_step for of_step, _ in unread]).tolist() if unread else []
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
        """Mean over the images."""
        return self.total_loss / self.images

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return self.total_correct / self.images
