"""What CUDA graphs are worth: images a second of training whose steps Python launches, or that are replayed.

    python benchmarks/graphs.py               # on a GPU, in about a minute
    python benchmarks/graphs.py --compile     # beside them torch.compile, with the seconds of its first epoch

Epochs of so many random images as a fifth of MNIST has, batches and their augmentation included.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from limit import FAMILIES, LARGE
from table import Rows, parser, ratio, report, take_turns
from torch import nn
from torch.utils.data import DataLoader

from iolaus.classifier.data import augment
from iolaus.classifier.data.batches import Batches, BatchOrder
from iolaus.classifier.training import device, loop
from iolaus.classifier.training.step import TrainStep

CUDA = torch.device("cuda")
IMAGES = 11_000
NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    name: {**FAMILIES, **LARGE}[name]
    for name in ("MLP 384-128", "CNN 16-32-64, kernel 3", "CNN 16-32-64, kernel 5", *LARGE)
}


def loader(batch_size: int, augmented: bool) -> loop.Loader:
    """Random images, served as a data set's are."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (IMAGES,), generator=generator)
    made = Batches(images.cuda(), labels.cuda(), [0.13], [0.31], augment.Affine() if augmented else None)
    return DataLoader(made, sampler=BatchOrder(IMAGES, batch_size, shuffle=True), batch_size=None)


def epoch_s(model: nn.Module, batches: loop.Loader, capture: bool) -> Callable[[], float]:
    """A function that trains a model for an epoch and gives the seconds."""
    model = device.place(model, CUDA)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    step = TrainStep(model, optimizer, precision=device.resolve_precision("auto", model), capture=capture)

    def measure() -> float:
        start = time.perf_counter()
        loop.train_epoch(step, batches)
        return time.perf_counter() - start

    return measure


def main() -> None:
    """Measure in turn, and report."""
    options_of = parser(__doc__, rounds=3)
    options_of.add_argument("--batch-sizes", type=int, nargs="*", default=[64, 256])
    options_of.add_argument("--compile", action="store_true", help="compile the networks as well")
    options = options_of.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("graphs.py needs a CUDA device")
    device.deterministic(CUDA)
    rows: Rows = [
        ("images a second", "batch", "augmented", "launched", "replayed", "times", "compiled", "its first, s")
    ]
    figures: dict[str, object] = {}
    for name, make in NETWORKS.items():
        for batch_size in options.batch_sizes:
            for augmented in (False, True):
                batches = loader(batch_size, augmented)
                turns = {
                    "launched": epoch_s(make(), batches, capture=False),
                    "replayed": epoch_s(make(), batches, capture=True),
                }
                if options.compile and augmented:
                    torch.compiler.reset()  # it compiles the same code a few times only
                    compiled = make()
                    compiled.compile()
                    turns["compiled"] = epoch_s(compiled, batches, capture=False)
                first = {kind: measure() for kind, measure in turns.items()}
                turns["replayed"]()  # in which a last batch that is smaller is captured
                seconds = take_turns(turns, options.rounds)
                figures[f"{name}, {batch_size}, {'augmented' if augmented else 'as they are'}"] = {
                    "first epoch": first,
                    "seconds": seconds,
                }
                speed = {kind: f"{IMAGES / statistics.median(values):,.0f}" for kind, values in seconds.items()}
                rows.append(
                    (
                        name, f"{batch_size}", "yes" if augmented else "no", speed["launched"], speed["replayed"],
                        f"{ratio(seconds['launched'], seconds['replayed']):.2f}", speed.get("compiled", ""),
                        f"{first['compiled']:.1f}" if "compiled" in first else "",
                    )
                )  # fmt: skip
    report(f"Epochs on {torch.cuda.get_device_name()}, {options.rounds} rounds in turn", rows, figures, options.json)


if __name__ == "__main__":
    main()
