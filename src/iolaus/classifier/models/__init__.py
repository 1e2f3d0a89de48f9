"""Classifiers: modules that take normalised images (B, C, H, W) and return logits (B, num_classes)."""

from iolaus.classifier.models.cnn import CNN
from iolaus.classifier.models.layers import Layers
from iolaus.classifier.models.mlp import MLP

__all__ = ["CNN", "MLP", "Layers"]
