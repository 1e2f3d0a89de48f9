"""A study: what CUDA graphs would be worth, in images a second of steps that Python launches or that are replayed.

    python benchmarks/graphs.py               # on a GPU
    python benchmarks/graphs.py --compile     # beside them torch.compile, with the seconds that its start takes

An epoch of so many random images as MNIST has, batches and their augmentation included. A GPU is done with the kernels
of a small network sooner than Python has launched them; forward and backward pass, recorded as a graph, are launched at
once. Before that the losses of both are compared, of a network with batch norm and dropout: they must be bitwise equal.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from limit import FAMILIES, LARGE
from table import Rows, parser, ratio, report, take_turns
from torch import Tensor, nn
from torch.utils.data import DataLoader

from iolaus import augment, data, engine, hardware, models
from iolaus.epoch_metrics import READ_S, EpochMetrics

CUDA = torch.device("cuda")
IMAGES = 55_000
NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    name: {**FAMILIES, **LARGE}[name]
    for name in ("MLP 384-128", "CNN 16-32-64, kernel 3", "CNN 16-32-64, kernel 5", *LARGE)
}


class Recording:
    """A CUDA graph of what a function of tensors does, the gradients that it leaves in parameters included.

    What Python decides while it is recorded stays decided: dropping a layer at random would be the same for ever.

    Args:
        function: Gives a tensor; called once before, so that the libraries have settled.
        parameters: Whose gradients it leaves.
        inputs: Examples of what it takes.
    """

    def __init__(self, function: Callable[..., Tensor], parameters: Iterable[nn.Parameter], *inputs: Tensor) -> None:
        """Record, without computing anything yet."""
        self.inputs, self.parameters = [tensor.clone() for tensor in inputs], list(parameters)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # others may go on using the GPU
            self.output = function(*self.inputs)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the function gives, for inputs of the same shapes."""
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.output.clone()


class Training:
    """A network in training, as src/train.py does it or with its steps replayed."""

    def __init__(self, model: nn.Module, device: torch.device, replays: bool = False) -> None:
        """Nothing is recorded before the second batch."""
        self.model, self.replays = hardware.place(model, device), replays
        self.optimizer = torch.optim.Adam(self.model.parameters(), fused=True)
        self.precision = hardware.resolve_precision("auto", self.model)
        self.recordings: dict[torch.Size, Recording | None] = {}  # by the shape of a batch; None: seen once

    def epoch(self, batches: Iterable[engine.Batch]) -> float:
        """Train, and give the loss."""
        if not self.replays:
            return engine.train_epoch(self.model, batches, self.optimizer, precision=self.precision)[0]
        self.model.train()
        epoch = EpochMetrics(read_s=READ_S)
        for images, labels in batches:
            of_step = self._replay(images, labels)
            self.optimizer.step()
            epoch.add(of_step, len(labels))
        epoch.read()
        return epoch.loss

    def _replay(self, images: Tensor, labels: Tensor) -> Tensor:
        if images.shape not in self.recordings:
            self.recordings[images.shape] = None
            return self._learn(images, labels)
        recording = self.recordings[images.shape]
        if recording is None:
            recording = Recording(self._learn, self.model.parameters(), images, labels)
            self.recordings[images.shape] = recording
        return recording(images, labels)

    def _learn(self, images: Tensor, labels: Tensor) -> Tensor:
        return engine.learn(self.model, images, labels, precision=self.precision)

    def epoch_s(self, batches: engine.Loader) -> Callable[[], float]:
        """A function that trains for an epoch and gives the seconds."""

        def measure() -> float:
            start = time.perf_counter()
            self.epoch(batches)
            return time.perf_counter() - start

        return measure


def loader(batch_size: int, augmented: bool) -> engine.Loader:
    """Random images, served as a data set's are."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 1, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (IMAGES,), generator=generator)
    made = data.Batches(images.cuda(), labels.cuda(), [0.13], [0.31], augment.Affine() if augmented else None)
    return DataLoader(made, sampler=data.BatchOrder(IMAGES, batch_size, shuffle=True), batch_size=None)


def check() -> None:
    """Compare losses of replayed steps with those that Python launches."""
    torch.manual_seed(0)
    network = models.CNN((1, 28, 28), 10, dropout=0.2)
    batches, losses = loader(1000 - 7, augmented=True), []  # the last batch is smaller
    for replays in (False, True):
        training = Training(copy.deepcopy(network), CUDA, replays)
        torch.manual_seed(1)
        losses.append([training.epoch(batches) for _ in range(3)])
    assert losses[0] == losses[1], losses


def main() -> None:
    """Measure in turn, and report."""
    options_of = parser(__doc__, rounds=3)
    options_of.add_argument("--batch-sizes", type=int, nargs="*", default=[64, 256])
    options_of.add_argument("--compile", action="store_true", help="compile the networks as well")
    options = options_of.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("graphs.py needs a CUDA device")
    hardware.deterministic(CUDA)
    check()
    rows: Rows = [
        ("images a second", "batch", "augmented", "launched", "replayed", "times", "compiled", "its first, s")
    ]
    figures: dict[str, object] = {}
    for name, make in NETWORKS.items():
        for batch_size in options.batch_sizes:
            for augmented in (False, True):
                batches = loader(batch_size, augmented)
                turns = {
                    "launched": Training(make(), CUDA).epoch_s(batches),
                    "replayed": Training(make(), CUDA, replays=True).epoch_s(batches),
                }
                if options.compile and augmented:
                    torch.compiler.reset()  # it compiles the same code a few times only
                    compiled = make()
                    compiled.compile()
                    turns["compiled"] = Training(compiled, CUDA).epoch_s(batches)
                first = {kind: measure() for kind, measure in turns.items()}
                for measure in turns.values():
                    measure()  # in which a last batch that is smaller is recorded
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
