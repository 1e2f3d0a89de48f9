"""Metrics of a model: pure functions of logits float (N, K) and labels int64 (N,).

Each is computed over all N samples at once: a mean of batches would give a small last batch the weight of a full one.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the number of correct predictions divided by the number of samples, in [0, 1]."""
    return (logits.argmax(1) == labels).double().mean().item()


def accuracy_interval(accuracy: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy over `count` samples by Wilson (1927), valid also near 0 and 1."""
    center = accuracy + z**2 / (2 * count)
    spread = z * math.sqrt(accuracy * (1 - accuracy) / count + z**2 / (4 * count**2))
    scale = 1 + z**2 / count
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def loss(logits: Tensor, labels: Tensor) -> float:
    """Return the mean cross-entropy, in nats."""
    return F.cross_entropy(logits.double(), labels).item()


def confusion_matrix(logits: Tensor, labels: Tensor) -> Tensor:
    """Return counts int64 (K, K): the row is the label, the column the prediction."""
    classes = logits.shape[1]
    return torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)


def per_class_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the fraction of each label's samples that are correct, float64 (K,); NaN for a label without samples."""
    matrix = confusion_matrix(logits, labels).double()
    return matrix.diagonal() / matrix.sum(1)


def mistakes(logits: Tensor, labels: Tensor, most: int = 25) -> Tensor:
    """Return the indices int64 (M,) of wrong predictions, the most confident first, at most `most`."""
    top, preds = logits.double().max(1)
    # log odds, because the probabilities of a very confident model are all 1
    confidence = top - logits.double().scatter(1, preds[:, None], -math.inf).logsumexp(1)
    wrong = (preds != labels).nonzero().squeeze(1)
    return wrong[confidence[wrong].argsort(descending=True, stable=True)[:most]]
