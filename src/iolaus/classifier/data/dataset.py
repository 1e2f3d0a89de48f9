"""Images in memory: decoded once into a checksummed cache, split, normalised, and loaded in batches."""

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from iolaus.classifier.data import cache
from iolaus.classifier.data.batches import Augment, Batches, BatchOrder
from iolaus.classifier.data.sources import Source, stratified
from iolaus.errors import InputError, is_number, require
from iolaus.task import require_open_test

log = logging.getLogger(__name__)


class Split(NamedTuple):
    """Images of one split, not normalised."""

    images: Tensor
    """uint8, (N, C, H, W)."""
    labels: Tensor
    """int64, (N,)."""


@dataclass
class Data:
    """A data set in memory, split into train, val and test; made by `load`."""

    name: str
    classes: list[str]
    train: Split
    val: Split
    mean: list[float]
    """Mean of each channel over the training split, of pixels in [0, 1]; zeros without normalisation."""
    std: list[float]
    """Standard deviation of each channel, likewise; ones without normalisation."""
    digest: str
    """SHA-256 of the decoded training images and labels."""
    batch_size: int
    digit_box: int | None
    """Side in pixels of the box that a digit fills, for the preparation of photos; None: they are resized only."""
    root: Path
    _read_test: Callable[[], Split] = field(repr=False)
    _count_test: Callable[[], int] = field(repr=False)
    on_test_read: Callable[[int], object] | None = field(default=None, repr=False)
    """Called with the number of test images when they are read for the first time."""
    _locked: str | None = field(default=None, repr=False)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def test(self) -> Split:
        """The test split, which is read from disk only when it is asked for.

        Raises:
            InputError: after `lock_test`, and in a trial that is compared with others.
        """
        require_open_test()
        if self._locked:
            raise InputError(f"the test set is locked: {self._locked}")
        test = self._read_test()
        if self.on_test_read is not None:
            self.on_test_read(len(test.labels))
            self.on_test_read = None
        return test

    @property
    def num_test(self) -> int:
        """The number of test images; no image is read for it, so that it is allowed after `lock_test`."""
        return self._count_test()

    def lock_test(self, reason: str) -> None:
        """Make every later use of `test` raise an error that gives `reason`."""
        self._locked = reason

    def join_val(self) -> None:
        """Add the val images to the train images, once nothing is left to select; the normalisation stays the same."""
        self.train = Split(*(torch.cat(parts) for parts in zip(self.train, self.val, strict=True)))

    def loader(
        self, split: str, *, augment: Augment | None = None, device: str | torch.device = "cpu"
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        """Return a loader of normalised batches of a split; ``train`` is shuffled by torch's global generator.

        Args:
            split: ``train``, ``val`` or ``test``.
            augment: Applied to each batch of pixels in [0, 1], before normalisation, on the device.
            device: Where the images are stored and the batches made.

        Returns:
            A loader of batches: images float32 (B, C, H, W), labels int64 (B,). The last batch may be smaller.
        """
        assert split in ("train", "val", "test"), split
        images, labels = getattr(self, split)
        if isinstance(augment, nn.Identity):
            augment = None  # saves two passes over each batch
        batches = Batches(images.to(device), labels.to(device), self.mean, self.std, augment)
        # evaluation keeps no activations for a backward pass, so larger batches cost little memory
        batch_size = self.batch_size if split == "train" else max(self.batch_size, 1000)
        order = BatchOrder(len(labels), batch_size, shuffle=split == "train")
        return DataLoader(batches, sampler=order, batch_size=None)


def load(
    name: str,
    source: Source,
    root: str | Path = "data",
    *,
    batch_size: int = 256,
    val_size: int | float = 0.1,
    normalize: bool = True,
    digit_box: int | None = None,
) -> Data:
    """Load a data set into memory: from its cache or, the first time, from its source.

    The validation split is taken from the training set, stratified; it is the same for every seed.

    Args:
        name: The data set's name, in the cache's file name and in the log.
        source: Where the images come from.
        root: Folder of the files and of the cache.
        batch_size: Images per training batch.
        val_size: Images of the validation split or, below 1, its share of the training set.
        normalize: Subtract the training split's mean and divide by its standard deviation, for each channel.
        digit_box: See `Data.digit_box`.

    Raises:
        InputError: for files that are missing or damaged, and for values out of range.
    """
    require(type(batch_size) is int and batch_size >= 1, "data.batch_size", "at least 1", batch_size)
    folder = Path(root).expanduser()
    key = cache.locate(name, source, folder, train=True)
    cached = cache.read(*key)
    train, val, mean, std = _split_once(*key, val_size)
    channels, height, width = cached.images.shape[1:]
    if digit_box is not None and (channels > 1 or height != width):
        raise InputError(f"data.digit_box must be null for images that are not grey and square, but got {digit_box}")
    if digit_box is not None and not 1 <= digit_box <= height:
        raise InputError(f"data.digit_box must be null or in 1..{height}, but got {digit_box}")

    def read_test() -> Split:
        test = cache.read(*cache.locate(name, source, folder, train=False))
        return Split(test.images, test.labels)

    def count_test() -> int:
        path, _, _ = cache.locate(name, source, folder, train=False)
        with cache.damage_reported(path), open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return len(arrays["labels"])

    return Data(
        name=name,
        classes=cached.classes,
        train=train,
        val=val,
        mean=mean if normalize else [0.0] * len(mean),
        std=std if normalize else [1.0] * len(std),
        digest=cached.digest,
        batch_size=batch_size,
        digit_box=digit_box,
        root=folder,
        _read_test=read_test,
        _count_test=count_test,
    )


@functools.lru_cache(maxsize=2)
def _split_once(
    path: Path, changed_ns: int, size: int, val_size: int | float
) -> tuple[Split, Split, list[float], list[float]]:
    """Return train, val, and the mean and std of train; cached like `cache.read`, by the same file."""
    cached = cache.read(path, changed_ns, size)
    in_val = stratified(cached.labels.numpy(), _val_count(val_size, len(cached.labels)))
    train = Split(cached.images[~in_val], cached.labels[~in_val])
    return train, Split(cached.images[in_val], cached.labels[in_val]), *statistics(train.images)


def statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, of pixels in [0, 1]; for a constant channel 1 as the latter.

    They are exact: counted over the 256 grey levels.

    Args:
        images: uint8, (N, C, H, W).
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.unbind(1):  # (N, H, W)
        share = torch.bincount(channel.reshape(-1), minlength=256).double() / channel.numel()
        mean = (share * levels).sum()
        means.append(mean.item())
        deviation = (share * (levels - mean) ** 2).sum().sqrt().item()
        deviations.append(deviation if deviation > 0 else 1.0)
    return means, deviations


def _val_count(val_size: int | float, available: int) -> int:
    rule = f"in 1..{available - 1}"
    require(is_number(val_size) and math.isfinite(val_size), "data.val_size", rule, val_size)
    count = round(val_size * available) if 0 < val_size < 1 else val_size
    require(count == int(count) and 1 <= count < available, "data.val_size", rule, val_size)
    return int(count)
