"""An augmentation that keeps a run in the middle of an epoch, for tests that interrupt it there."""

from pathlib import Path

from torch import Tensor
from waiting import wait_until

from iolaus.classifier.data.augment import Affine


class Held(Affine):
    """An affine augmentation of which, while a file exists, no more than a number of batches can be had.

    Args:
        file: The test makes it, and removes it when runs may go on.
        batches: How many.
    """

    def __init__(self, file: str, batches: int, **affine: float) -> None:
        super().__init__(**affine)
        self.file, self.left = Path(file), batches

    def __call__(self, images: Tensor) -> Tensor:
        self.left -= 1
        wait_until(lambda: self.left >= 0 or not self.file.exists())
        return super().__call__(images)
