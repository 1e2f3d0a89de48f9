"""Batches of images in memory: indexed whole, in a random or fixed order, on the device that computes."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from iolaus.errors import require

Shape = tuple[int, int, int]
"""Channels, height, width of an image."""
Augment = Callable[[Tensor], Tensor]
"""A function of pixels float32 (B, C, H, W) in [0, 1] on any device, which returns such pixels."""


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """A data set that is indexed by all indices of a batch at once.

    Args:
        images: uint8 (N, C, H, W); they stay on their device.
        labels: int64 (N,), on the same device.
        mean: Of each channel, of pixels in [0, 1].
        std: Of each channel, likewise.
        augment: Applied to each batch before it is normalised.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: list[float],
        std: list[float],
        augment: Augment | None = None,
    ) -> None:
        """Store the images, and prepare the normalisation."""
        self.images, self.labels, self.augment = images, labels, augment
        means, stds = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))  # (C, 1, 1)
        self.factor, self.offset = 1 / (255 * stds), -means / stds  # from grey levels, in two passes

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised images float32 (B, C, H, W) and labels int64 (B,), for indices int64 (B,)."""
        indices = send(indices, self.labels.device)
        images = self.images.index_select(0, indices).float()  # on the CPU six times as fast as indexing with []
        if self.augment is not None:
            images = self.augment(images.div_(255)).mul_(255)
        return images.mul_(self.factor).add_(self.offset), self.labels.index_select(0, indices)


class BatchOrder(Sampler[Tensor]):
    """The indices of each batch as one tensor: to draw them one by one would cost more than an MLP's step.

    Args:
        size: Number of samples.
        batch_size: Samples per batch. The last batch may be smaller; a single sample, which batch norm cannot take, is
            added to the batch before.
        shuffle: Draw a new order from torch's global generator for each epoch.

    Raises:
        InputError: for a batch size below 1.
    """

    def __init__(self, size: int, batch_size: int, shuffle: bool) -> None:
        """Check the batch size."""
        require(type(batch_size) is int and batch_size >= 1, "data.batch_size", "at least 1", batch_size)
        self.size, self.batch_size, self.shuffle = size, batch_size, shuffle
        self._joins = int(1 < batch_size < size and size % batch_size == 1)  # samples at the end

    def __len__(self) -> int:
        """Return the number of batches."""
        return max(1, -(-(self.size - self._joins) // self.batch_size))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield int64 tensors (B,)."""
        order = torch.randperm(self.size) if self.shuffle else torch.arange(self.size)
        *batches, last = order[: self.size - self._joins].split(self.batch_size)
        yield from batches
        yield torch.cat([last, order[self.size - self._joins :]])


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor from the CPU to a device, without waiting for the GPU to finish its work.

    CUDA copies ordinary (not pinned) memory before the call returns, so the source may change afterwards.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")
