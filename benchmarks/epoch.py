"""An epoch of the default MLP on MNIST, from memory in whole batches against a per-sample Dataset and DataLoader.

    python benchmarks/epoch.py

The same network, optimizer, batch size and number of images; ToTensor and Normalize on each sample, as in tutorials.
"""

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torchvision
from table import arguments, ratio, report, take_turns
from torch.utils.data import DataLoader, Subset
from torchvision import transforms

from iolaus.classifier.data import dataset, sources
from iolaus.classifier.data.batches import Shape
from iolaus.classifier.models import mlp
from iolaus.classifier.run.config import project_root
from iolaus.classifier.training import loop
from iolaus.classifier.training.step import TrainStep
from iolaus.system import process


def epoch_of(loader: loop.Loader, shape: Shape) -> Callable[[], float]:
    """A function that trains a fresh network for an epoch and gives the seconds."""

    def measure() -> float:
        torch.manual_seed(0)
        model = mlp.MLP(shape, 10)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003, fused=True)
        start = time.perf_counter()
        loop.train_epoch(TrainStep(model, optimizer), loader)
        return time.perf_counter() - start

    return measure


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__, rounds=5)
    process.keep_memory()  # as src/train.py does, for all of them
    root = Path(os.environ.get("IOLAUS_DATA", project_root() / "data"))
    mnist = dataset.load("mnist", sources.Torchvision("MNIST"), root, batch_size=256, val_size=5000)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mnist.mean, mnist.std)])
    samples = Subset(torchvision.datasets.MNIST(str(root), train=True, transform=transform), range(55_000))
    per_sample = partial(DataLoader, samples, batch_size=256, shuffle=True)
    seconds = take_turns(
        {
            "whole batches from memory (Iolaus)": epoch_of(mnist.loader("train"), mnist.input_shape),
            "per sample, in this process": epoch_of(per_sample(), mnist.input_shape),
            "per sample, 2 worker processes": epoch_of(per_sample(num_workers=2), mnist.input_shape),
        },
        options.rounds,
    )
    ours = next(iter(seconds.values()))
    rows = [("an epoch of 55,000 images, batch size 256", "median s", "min s", "times ours")]
    for name, values in seconds.items():
        rows.append((name, f"{statistics.median(values):.2f}", f"{min(values):.2f}", f"{ratio(values, ours):.1f}"))
    title = f"MLP epoch, {torch.get_num_threads()} threads, torch {torch.__version__}, {options.rounds} rounds in turn"
    report(title, rows, {"seconds": seconds}, options.json)


if __name__ == "__main__":
    main()
