"""TODO."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from iolaus.errors import require

Shape = tuple[int, int, int]
"""Channels, height, width of an image."""
Augment = Callable[[Tensor], Tensor]
"""Takes and gives float32 (B, C, H, W) in [0, 1], on any device."""


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """A data set that is indexed by a whole batch of indices at once."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: list[float],
        std: list[float],
        augment: Augment | None = None,
    ) -> None:
        """Keep images uint8 (N, C, H, W) and labels (N,) where they are."""
        self.images, self.labels, self.augment = images, labels, augment
        means, stds = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))  # (C, 1, 1)
        self.factor, self.offset = 1 / (255 * stds), -means / stds  # from grey levels, in two passes

    def __len__(self) -> int:
        """The number of images, not of batches."""
        return len(self.labels)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 (B, C, H, W), normalised, and labels int64 (B,), for int64 indices (B,)."""
        indices = send(indices, self.labels.device)
        images = self.images.index_select(0, indices).float()  # on the CPU six times as fast as indexing with []
        if self.augment is not None:
            images = self.augment(images.div_(255)).mul_(255)
        return images.mul_(self.factor).add_(self.offset), self.labels.index_select(0, indices)


class BatchOrder(Sampler[Tensor]):
    """The indices of each batch, as one tensor: drawing them one by one would cost more than an MLP's step.

    Args:
        size: Number of samples.
        batch_size: Samples a batch; the last may be smaller, but one sample alone, which batch norm cannot take,
            joins the batch before.
        shuffle: Draw a new order from torch's global generator each time.
    """

    def __init__(self, size: int, batch_size: int, shuffle: bool) -> None:
        """Check the batch size."""
        require(type(batch_size) is int and batch_size >= 1, "data.batch_size", "at least 1", batch_size)
        self.size, self.batch_size, self.shuffle = size, batch_size, shuffle
        self._joins = int(1 < batch_size < size and size % batch_size == 1)  # samples at the end

    def __len__(self) -> int:
        """Number of batches."""
        return max(1, -(-(self.size - self._joins) // self.batch_size))

    def __iter__(self) -> Iterator[Tensor]:
        """Yield int64 tensors (B,)."""
        order = torch.randperm(self.size) if self.shuffle else torch.arange(self.size)
        *batches, last = order[: self.size - self._joins].split(self.batch_size)
        yield from batches
        yield torch.cat([last, order[self.size - self._joins :]])


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a small tensor from the CPU to where it is needed, without waiting for what a GPU has still to do.

    CUDA has copied what lies in ordinary memory before the call returns, so that the source may change or go.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")
