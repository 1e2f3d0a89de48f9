"""Images in memory: decoded once into a checksummed cache, split, normalised and served in whole batches."""

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
    """Images of one split, as they are on disk."""

    images: Tensor
    """uint8, (N, C, H, W)."""
    labels: Tensor
    """int64, (N,)."""


@dataclass
class Data:
    """A data set in memory, split into train, val and test. Made by `load`."""

    name: str
    classes: list[str]
    train: Split
    val: Split
    mean: list[float]
    """Of the training split, for each channel, of pixels in [0, 1]; zeros where `normalize` is off."""
    std: list[float]
    digest: str
    """SHA-256 of the decoded training images and labels."""
    batch_size: int
    digit_box: int | None
    """Pixels of the box that a digit fills, by which `predict.py` prepares photos; None: they are resized."""
    root: Path
    _read_test: Callable[[], Split] = field(repr=False)
    _count_test: Callable[[], int] = field(repr=False)
    on_test_read: Callable[[int], object] | None = field(default=None, repr=False)
    """Told the number of test images when they are first looked at."""
    _locked: str | None = field(default=None, repr=False)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.classes)

    @property
    def test(self) -> Split:
        """The test split, read from disk when it is asked for and not before.

        Raises:
            InputError: after `lock_test`, and in a trial that others are compared with.
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
        """How many test images there are; this looks at none of them, and `lock_test` lets it through."""
        return self._count_test()

    def lock_test(self, reason: str) -> None:
        """Make every later use of `test` raise, with `reason`."""
        self._locked = reason

    def join_val(self) -> None:
        """Add the images of val to those of train, once nothing is left to select; normalisation stays as it is."""
        self.train = Split(*(torch.cat(parts) for parts in zip(self.train, self.val, strict=True)))

    def loader(
        self, split: str, *, augment: Augment | None = None, device: str | torch.device = "cpu"
    ) -> DataLoader[tuple[Tensor, Tensor]]:
        """Serve normalised batches of a split; ``train`` is shuffled by torch's global generator.

        Args:
            split: ``train``, ``val`` or ``test``.
            augment: Applied to each batch of pixels in [0, 1], before normalisation, on the device.
            device: Where the images are kept and the batches made.

        Returns:
            A loader of batches: images float32 (B, C, H, W), labels int64 (B,). The last batch may be smaller.
        """
        assert split in ("train", "val", "test"), split
        images, labels = getattr(self, split)
        if isinstance(augment, nn.Identity):
            augment = None  # saves two passes over each batch
        batches = Batches(images.to(device), labels.to(device), self.mean, self.std, augment)
        # nothing is kept for the way back in evaluation, so larger batches cost no memory to speak of
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
    """Load a data set into memory, from its cache or, the first time, from its source.

    The validation split is carved from the training set, stratified, and is the same for every seed.

    Args:
        name: Names the cache, and the data set in what is logged.
        source: Where the images come from.
        root: Folder of the files and of the cache.
        batch_size: Images a training batch.
        val_size: Images of the validation split or, below 1, its share of the training set.
        normalize: Subtract the training split's mean and divide by its standard deviation, for each channel.
        digit_box: See `Data.digit_box`.

    Raises:
        InputError: for files that are missing or damaged, and values out of range.
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
    """Train, val, and the training split's statistics; remembered like `cache.read`, from the same file."""
    cached = cache.read(path, changed_ns, size)
    in_val = stratified(cached.labels.numpy(), _val_count(val_size, len(cached.labels)))
    train = Split(cached.images[~in_val], cached.labels[~in_val])
    return train, Split(cached.images[in_val], cached.labels[in_val]), *statistics(train.images)


def statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1]; a constant channel's deviation is given as 1.

    Exact: counted over the 256 grey levels.

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
