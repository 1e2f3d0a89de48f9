"""How close training comes to what this machine can do: FLOP/s of whole steps over those of a large matrix product.

    python benchmarks/limit.py                # all families, on one thread and on all, in about three minutes
    python benchmarks/limit.py --threads 1
    python benchmarks/limit.py --device cuda  # beside them a network that is too large for a CPU

A step is what `train_epoch` does for a batch that is already made: forward, loss, backward, optimizer;
on a GPU replayed.
What it computes are its matrix products and convolutions, padding included, as torch.utils.flop_counter has it. The
peak is that of a product of two square matrices in the precision that the network is trained in, measured in turn with
the steps. For networks too small for that, an estimate of the roofline: the time that the step would take if each
operation computed at the peak, or read its inputs and wrote its outputs at the speed at which a tensor of a few MB is
copied (on a GPU one of 1 GB, beyond its caches), whichever is longer.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from table import Rows, parser, ratio, report, take_turns
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from iolaus.classifier.models import cnn, mlp
from iolaus.classifier.training import loop
from iolaus.classifier.training.device import deterministic, place, resolve_precision
from iolaus.classifier.training.step import TrainStep
from iolaus.system import machine, process

FAMILIES: Mapping[str, Callable[[], nn.Module]] = {
    "MLP 384-128": lambda: mlp.MLP((1, 28, 28), 10, hidden_sizes=[384, 128]),
    "MLP 512-256-128": lambda: mlp.MLP((1, 28, 28), 10, hidden_sizes=[512, 256, 128]),
    "CNN 16-32-64, kernel 3": lambda: cnn.CNN((1, 28, 28), 10),
    "CNN 16-32-64, kernel 5": lambda: cnn.CNN((1, 28, 28), 10, kernel_size=5),
    "CNN 32-32-64, kernel 3": lambda: cnn.CNN((1, 28, 28), 10, channels=[32, 32, 64]),
    "CNN 8-8, no hidden layer": lambda: cnn.CNN((1, 28, 28), 10, channels=[8, 8], hidden_sizes=[]),
}
LARGE: Mapping[str, Callable[[], nn.Module]] = {
    "CNN 64-128-256, two convolutions each": lambda: cnn.CNN((1, 28, 28), 10, channels=[64, 128, 256], convs=2),
}
BATCH_SIZES = (64, 128, 512)
SIDE = {"cpu": 2048, "cuda": 8192}
"""Of the matrices whose product is the peak."""
COPIED = {"cpu": 2**20, "cuda": 2**28}
"""Numbers in the tensor that is copied."""
FLOP = {"cpu": 2e10, "cuda": 2e11}
"""Of the steps that are timed at once."""
NOTHING_MOVES = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten._unsafe_view}


class Traffic(TorchDispatchMode):
    """Counts the bytes that each operation reads and writes, and the FLOP."""

    def __init__(self) -> None:
        """Begin at nothing."""
        super().__init__()
        self.operations: list[tuple[int, int]] = []
        """Bytes and FLOP of each."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count it unless it only makes a view or room."""
        given = func(*args, **(kwargs or {}))
        if func.is_view or func.overloadpacket in NOTHING_MOVES:
            return given
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in read + written)
        count = flop_registry.get(func.overloadpacket)
        self.operations.append((moved, count(*args, **(kwargs or {}), out_val=given) if count else 0))
        return given


class Training:
    """A network of a family with its batch."""

    def __init__(self, make: Callable[[], nn.Module], batch_size: int, device: torch.device) -> None:
        """Build it as src/train.py does."""
        torch.manual_seed(0)
        self.device, model = device, place(make(), device)
        self.precision = resolve_precision("auto", model)
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        images, labels = torch.randn(batch_size, 1, 28, 28), torch.randint(10, (batch_size,))
        self.batch = images.to(device), labels.to(device)
        self.step = TrainStep(
            model, optimizer, precision=self.precision, capture=False
        )  # in a graph nothing can be counted
        self.steps(3)
        with Traffic() as traffic:
            self.steps(1)
        self.operations = traffic.operations
        self.flops = sum(flops for _, flops in self.operations)
        if device.type == "cuda":
            self.step = TrainStep(model, optimizer, precision=self.precision)
            self.steps(3)

    def roofline_s(self, flop_s: float, byte_s: float) -> float:
        """Seconds of a step if each operation took as long as what it computes or as what it moves."""
        return sum(max(moved * byte_s, flops * flop_s) for moved, flops in self.operations)

    def steps(self, count: int) -> None:
        """Train on the same batch again and again."""
        loop.train_epoch(self.step, [self.batch] * count)

    def step_s(self) -> float:
        """Seconds of a step."""
        count = max(10, int(FLOP[self.device.type] / self.flops))
        start = time.perf_counter()
        self.steps(count)
        return (time.perf_counter() - start) / count


def seconds_of(operation: Callable[[], object], device: torch.device) -> float:
    """Seconds until an operation is done, on a GPU as well."""
    start = time.perf_counter()
    operation()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def product_s(precision: str, device: torch.device) -> Callable[[], float]:
    """A function that multiplies two matrices and gives the seconds."""
    dtype, side = torch.bfloat16 if precision == "bf16" else torch.float32, SIDE[device.type]
    a, b = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))

    def measure() -> float:
        return seconds_of(lambda: a @ b, device)

    measure()
    return measure


def copy_s(device: torch.device) -> Callable[[], float]:
    """A function that copies a tensor again and again, and gives the seconds of a byte read or written."""
    source, target = torch.ones(COPIED[device.type], device=device), torch.zeros(COPIED[device.type], device=device)

    def measure() -> float:
        seconds = seconds_of(lambda: [target.copy_(source) for _ in range(100)], device)
        return seconds / (100 * 2 * source.numel() * source.element_size())

    measure()
    return measure


def measured(rounds: int, device: torch.device) -> tuple[Rows, dict[str, object]]:
    """A row for each network and batch size, with as many threads as are set."""
    trainings = {
        (family, batch_size): Training(make, batch_size, device)
        for family, make in {**FAMILIES, **(LARGE if device.type == "cuda" else {})}.items()
        for batch_size in BATCH_SIZES
    }
    precisions = sorted({training.precision for training in trainings.values()})
    turns: dict[str, Callable[[], float]] = {f"peak {each}": product_s(each, device) for each in precisions}
    turns["copy"] = copy_s(device)
    turns |= {f"{family}, {batch_size}": training.step_s for (family, batch_size), training in trainings.items()}
    seconds = take_turns(turns, rounds)
    rows: Rows = []
    for (family, batch_size), training in trainings.items():
        steps, peaks = seconds[f"{family}, {batch_size}"], seconds[f"peak {training.precision}"]
        flop_s = [peak / (2 * SIDE[device.type] ** 3) for peak in peaks]
        compute = [training.flops * each for each in flop_s]  # seconds at the peak
        limit = [training.roofline_s(each, byte_s) for each, byte_s in zip(flop_s, seconds["copy"], strict=True)]
        rows.append(
            (
                family, f"{batch_size}", training.precision, f"{torch.get_num_threads()}",
                f"{1000 * statistics.median(steps):.2f}",
                f"{training.flops / statistics.median(steps) / 1e9:.0f}", f"{100 * ratio(compute, steps):.0f}",
                f"{100 * ratio(limit, steps):.0f}",
            )
        )  # fmt: skip
    return rows, {"seconds": seconds}


def main() -> None:
    """Measure with one thread and with all, and report."""
    options_of = parser(__doc__, rounds=5)
    options_of.add_argument("--threads", type=int, nargs="*", default=sorted({1, machine.cores()}))
    options_of.add_argument("--device", default="cpu", choices=["cpu", "cuda"][: 1 + torch.cuda.is_available()])
    options = options_of.parse_args()
    device = torch.device(options.device)
    deterministic(device)
    process.keep_memory()
    rows: Rows = [
        ("network", "batch", "precision", "threads", "ms a step", "GFLOP/s", "% of the peak", "% of the roofline")
    ]
    figures: dict[str, object] = {}
    for threads in options.threads if device.type == "cpu" else [1]:
        torch.set_num_threads(threads)
        new, figures[f"{threads} threads"] = measured(options.rounds, device)
        rows += new
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    report(f"Training steps, {where}, {options.rounds} rounds in turn", rows, figures, options.json)


if __name__ == "__main__":
    main()
