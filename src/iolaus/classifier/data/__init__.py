"""Data sets in memory, the sources that they are decoded from, and augmentations of their batches."""

from iolaus.classifier.data.augment import Affine, Elastic
from iolaus.classifier.data.dataset import Data, load
from iolaus.classifier.data.sources import Digits, Folder, Torchvision

__all__ = ["Affine", "Data", "Digits", "Elastic", "Folder", "Torchvision", "load"]
