"""A study: K trials of the same shapes trained as one stacked model, against a trial at a time in each of the workers.

    python benchmarks/stacked.py                # in about five minutes
    python benchmarks/stacked.py --stacks 8 64
    python benchmarks/stacked.py --device cuda --workers 1 4

The linear layers of a stack are batched matrix products, its convolutions are one with a group for each trial. Each
trial has its own weights, batches, learning rate and dropout, and its own parameter group of one optimizer. What is
timed is a training step, on a GPU one that is replayed as a graph; a trial is 5 epochs of MNIST, its evaluations not
counted. Before that a step of a stack is compared with those of its networks alone.
"""

import contextlib
import copy
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier

import torch
from table import Rows, parser, report, take_turns
from torch import Tensor, nn
from torch.nn import functional as F

from iolaus.classifier.data.batches import Batches, BatchOrder
from iolaus.classifier.models import cnn, mlp
from iolaus.classifier.training import loop
from iolaus.classifier.training.device import autocast, deterministic, place, resolve_precision
from iolaus.classifier.training.step import CapturedGraph, TrainStep
from iolaus.system import machine, process

IMAGES, EPOCHS = 55_000, 5
together: Barrier
"""Of the processes of a pool."""
FAMILIES: dict[str, Callable[[float], nn.Sequential]] = {
    "MLP 384-128": lambda dropout: mlp.MLP((1, 28, 28), 10, dropout=dropout),
    "CNN 16-32-64, kernel 3": lambda dropout: cnn.CNN((1, 28, 28), 10, dropout=dropout),
}


class Stack(nn.Module):
    """K networks of the same shapes as one.

    Args:
        networks: Of linear layers, convolutions, max pooling, batch norm, ReLU, dropout and flattening.
    """

    def __init__(self, networks: Sequence[nn.Sequential]) -> None:
        """Stack their parameters and statistics, each (K, ...)."""
        super().__init__()
        self.layers = copy.deepcopy(networks[0])
        self.size = len(networks)
        for layer, *same in zip(self.layers, *networks, strict=True):
            for name in dict(layer.named_parameters(recurse=False)):
                setattr(layer, name, nn.Parameter(torch.stack([getattr(each, name).detach() for each in same])))
            for name in dict(layer.named_buffers(recurse=False)):
                setattr(layer, name, torch.stack([getattr(each, name) for each in same]))
            if isinstance(layer, nn.Dropout):
                layer.register_buffer("kept", torch.tensor([1 - each.p for each in same]).view(-1, 1, 1))  # (K, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Give logits (K, B, classes) of images (K, B, C, H, W)."""
        x = images.transpose(0, 1).flatten(1, 2)  # (B, K * C, H, W)
        x = x.contiguous(memory_format=torch.channels_last) if isinstance(self.layers[0], nn.Conv2d) else x
        for layer in self.layers:
            match layer:
                case nn.Conv2d():
                    bias = layer.bias.flatten() if layer.bias is not None else None
                    x = F.conv2d(x, layer.weight.flatten(0, 1), bias, padding="same", groups=self.size)
                case nn.BatchNorm2d():
                    assert layer.running_mean is not None
                    assert layer.running_var is not None
                    statistics_of_all = layer.running_mean.flatten(), layer.running_var.flatten()
                    scale, shift = layer.weight.flatten(), layer.bias.flatten()
                    x = F.batch_norm(x, *statistics_of_all, scale, shift, training=self.training)
                case nn.Flatten():
                    x = x.unflatten(1, (self.size, -1)).transpose(0, 1).flatten(2)  # (K, B, features)
                case nn.Linear():
                    x = torch.baddbmm(layer.bias.unsqueeze(1), x, layer.weight.transpose(1, 2))
                case nn.Dropout():
                    kept = layer.get_buffer("kept")
                    x = x * (torch.rand_like(x) < kept) / kept if self.training else x
                case _:
                    x = layer(x)
        return x

    def by_trial(self) -> Iterator[list[Tensor]]:
        """The parameters of each network: parts of the stack's, with their gradients."""
        for parameter in self.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for number in range(self.size):
            own = [parameter.detach()[number] for parameter in self.parameters()]
            for part, parameter in zip(own, self.parameters(), strict=True):
                part.grad = parameter.grad[number]  # type: ignore[index]
            yield own


class Stacked:
    """A stack in training."""

    def __init__(self, networks: Sequence[nn.Sequential], rates: Sequence[float], device: torch.device) -> None:
        """Give each network its learning rate."""
        self.model = Stack(networks).to(device)
        groups = [{"params": own, "lr": lr} for own, lr in zip(self.model.by_trial(), rates, strict=True)]
        self.optimizer = torch.optim.Adam(groups, fused=True, capturable=device.type == "cuda")
        self.precision = resolve_precision("auto", self.model)
        self.graph: CapturedGraph | None = None

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Learn from images (K, B, C, H, W) and labels (K, B); gives the losses (K,) of before."""
        return (self.graph or self.learn)(images, labels)

    def record(self, images: Tensor, labels: Tensor) -> None:
        """Have later steps replayed from a CUDA graph, the optimizer's kernels for each trial included."""
        self.graph = CapturedGraph(self.learn, self.model.parameters(), images, labels)

    def learn(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step that Python launches."""
        with autocast(images.device, self.precision):
            logits = self.model(images)
        losses = F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none").mean(1)
        for parameter in self.model.parameters():
            parameter.grad.zero_()  # type: ignore[union-attr]
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach()


def networks(family: str, count: int, dropout: float = 0.2) -> list[nn.Sequential]:
    """Networks with seeds of their own."""
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(FAMILIES[family](dropout))
    return made


def batches(batch_size: int, device: torch.device, size: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of random images (K * B, C, H, W), made as those of MNIST are, in K orders, again and again."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 1, 28, 28), dtype=torch.uint8, generator=generator).to(device)
    made = Batches(images, torch.randint(10, (IMAGES,), generator=generator).to(device), [0.13], [0.31])
    while True:
        orders = zip(*(BatchOrder(IMAGES, batch_size, shuffle=True) for _ in range(size)), strict=True)
        yield from (made[torch.cat(indices)] for indices in orders if len(indices[0]) == batch_size)


def check(family: str, device: torch.device) -> None:
    """Compare the weights of a stack of three after a step with those of its networks alone."""
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    images, labels = torch.randn(3, 16, 1, 28, 28).to(device), torch.randint(10, (3, 16)).to(device)
    alone, rates = networks(family, 3, dropout=0.0), [0.001, 0.01, 0.1]
    stacked = Stacked(alone, rates, device)
    stacked.precision = "fp32"
    stacked.step(images, labels)
    for network, lr, x, y, own in zip(alone, rates, images, labels, stacked.model.by_trial(), strict=True):
        optimizer = torch.optim.Adam(network.to(device).parameters(), lr=lr, fused=True)
        loop.train_epoch(TrainStep(network, optimizer), [(x, y)])
        for mine, theirs in zip(network.parameters(), own, strict=True):
            far = (mine - theirs).abs() > 0.02 * lr  # Adam's first step is the sign of a gradient, which may be near 0
            assert far.float().mean() < 0.01, (family, far.float().mean())
    torch.backends.cudnn.allow_tf32 = True


def stacked_s(family: str, size: int, batch_size: int, device: torch.device) -> Callable[[], float]:
    """A function that gives the seconds of a step of a stack for each of its trials."""
    training = Stacked(networks(family, size), [0.003] * size, device)
    source = batches(batch_size, device, size)

    def batch() -> tuple[Tensor, Tensor]:
        images, labels = next(source)
        return images.unflatten(0, (size, batch_size)), labels.unflatten(0, (size, batch_size))

    def measure(count: int = 6 if device.type == "cpu" else 50) -> float:
        start = time.perf_counter()
        for _ in range(count):
            losses = training.step(*batch())
        losses.tolist()  # waits for a GPU
        return (time.perf_counter() - start) / count / size

    measure(2)
    if device.type == "cuda":
        training.record(*batch())
        measure(2)
    return measure


def alone_s(family: str, batch_size: int, count: int, device: torch.device) -> float:
    """Seconds of a step of one network, with one thread."""
    torch.set_num_threads(1)
    deterministic(device)
    process.keep_memory()
    network = place(networks(family, 1)[0], device)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003, fused=True)
    step = TrainStep(network, optimizer, precision=resolve_precision("auto", network))
    source = batches(batch_size, device)
    loop.train_epoch(step, (next(source) for _ in range(5)))
    together.wait()  # those that have begun before have nothing to share the machine with
    start = time.perf_counter()
    loop.train_epoch(step, (next(source) for _ in range(count)))
    return (time.perf_counter() - start) / count


def pool_of(count: int) -> ProcessPoolExecutor:
    """So many processes that begin to measure together."""
    context = get_context("spawn")
    return ProcessPoolExecutor(count, context, initializer=meet_at, initargs=(context.Barrier(count),))


def meet_at(barrier: Barrier) -> None:
    """Keep where the processes of a pool wait for each other."""
    global together
    together = barrier


def main() -> None:
    """Measure in turn, and report."""
    options_of = parser(__doc__, rounds=3)
    options_of.add_argument("--stacks", type=int, nargs="*", default=[2, 4, 8, 16, 32, 64], help="K")
    options_of.add_argument("--batch-sizes", type=int, nargs="*", default=[64, 256])
    options_of.add_argument("--device", default="cpu", choices=["cpu", "cuda"][: 1 + torch.cuda.is_available()])
    options_of.add_argument("--workers", type=int, nargs="*", default=[machine.cores()], help="how many beside them")
    options = options_of.parse_args()
    device = torch.device(options.device)
    deterministic(device)
    process.keep_memory()
    heading = (*(f"{count} workers" for count in options.workers), *(f"K = {size}" for size in options.stacks))
    rows: Rows = [("trials an hour", "batch", *heading)]
    figures: dict[str, object] = {}
    with contextlib.ExitStack() as stack:
        pools = {count: stack.enter_context(pool_of(count)) for count in options.workers}
        for family in FAMILIES:
            check(family, device)
            for batch_size in options.batch_sizes:

                def separate(count: int, family: str = family, batch_size: int = batch_size) -> float:
                    length = 60 if device.type == "cpu" else 5000
                    steps = [pools[count].submit(alone_s, family, batch_size, length, device) for _ in range(count)]
                    return statistics.mean(step.result() for step in steps) / count

                turns: dict[str, Callable[[], float]] = {
                    f"{count} workers": functools.partial(separate, count) for count in options.workers
                }
                turns |= {f"K = {size}": stacked_s(family, size, batch_size, device) for size in options.stacks}
                seconds = take_turns(turns, options.rounds)
                figures[f"{family}, {batch_size}"] = seconds
                trial_steps = EPOCHS * IMAGES / batch_size
                hourly = [3600 / (trial_steps * statistics.median(values)) for values in seconds.values()]
                rows.append((family, f"{batch_size}", *(f"{each:.0f}" for each in hourly)))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    title = f"Stacked trials, {where}, {options.rounds} rounds in turn"
    report(title, rows, figures, options.json)


if __name__ == "__main__":
    main()
