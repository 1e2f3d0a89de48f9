"""The training loop: plain arguments and a callback for each epoch, independent of configuration and tracking."""

import inspect
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from iolaus.classifier.training import metrics
from iolaus.classifier.training.device import autocast, resolve_precision
from iolaus.classifier.training.epoch_metrics import READ_S, EpochMetrics, NonFiniteLossError
from iolaus.classifier.training.step import TrainStep
from iolaus.errors import InputError

Batch = tuple[Tensor, Tensor]
Metrics = dict[str, float]


class Loader(Protocol):
    """An iterable of batches (images, labels), such as any ``torch.utils.data.DataLoader`` of them."""

    def __len__(self) -> int:
        """Return the number of batches."""
        ...

    def __iter__(self) -> Any:
        """Yield batches."""
        ...


@dataclass
class State:
    """A training run between two epochs: all that is needed to continue, in plain values and tensors."""

    epoch: int = 0
    """The number of finished epochs."""
    history: list[Metrics] = field(default_factory=list)
    """The metrics of each epoch: train/loss, train/accuracy, val/loss and val/accuracy (with val only), lr, epoch_s.

    train/loss is the minimised loss, with label smoothing; val/loss is the cross-entropy alone."""
    best_epoch: int = 0
    """The epoch whose weights are kept, counted from 1; 0 before the first."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    fit_s: float = 0.0
    """Seconds of training and validation."""
    images: int = 0
    """The number of training images seen, over all epochs."""
    train_s: float = 0.0
    """Seconds of training alone."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] | None = None

    def capture(self, model: nn.Module, optimizer: Optimizer, scheduler: Any) -> None:
        """Store the weights and the states of optimizer and scheduler."""
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.optimizer = optimizer.state_dict()
        self.scheduler = scheduler.state_dict() if scheduler is not None else None

    def restore(self, model: nn.Module, optimizer: Optimizer, scheduler: Any) -> None:
        """Load what `capture` stored."""
        model.load_state_dict(self.weights)
        optimizer.load_state_dict(self.optimizer)
        if scheduler is not None and self.scheduler is not None:
            scheduler.load_state_dict(self.scheduler)

    @property
    def best(self) -> Metrics:
        """The metrics of the best epoch."""
        return self.history[self.best_epoch - 1]

    @property
    def images_per_s(self) -> float:
        """Training images per second, without validation."""
        return self.images / self.train_s if self.train_s > 0 else 0.0


def fit(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader | None,
    optimizer: Optimizer,
    *,
    epochs: int,
    scheduler: Callable[..., Any] | None = None,
    seed: int = 0,
    precision: str = "auto",
    label_smoothing: float = 0.0,
    patience: int | None = None,
    monitor: str = "val/accuracy",
    state: State | None = None,
    on_batch: Callable[[float, float, int], None] | None = None,
    on_epoch: Callable[[State], None] | None = None,
) -> State:
    """Train a model, and leave the best epoch's weights in it.

    At the start of each epoch torch's global generator is seeded from (seed, epoch). It determines the order of the
    batches, dropout and augmentation, so a run that was interrupted between epochs ends bitwise the same.

    Args:
        model: Takes normalised images (B, C, H, W) and returns logits (B, K); on its device (see `device.place`).
        train_loader: Batches of (images, labels) on the model's device.
        val_loader: Batches that decide which epoch is the best; None keeps the last epoch.
        optimizer: Over the model's parameters.
        epochs: The number of epochs, including those before a resumption; at least 1.
        scheduler: Called with the optimizer; see `make_scheduler`.
        seed: Seed of the generator, at least 0.
        precision: ``fp32``, ``bf16`` (autocast) or ``auto``, see `iolaus.classifier.training.device.resolve_precision`.
        label_smoothing: Share of each target that is spread over all classes, in [0, 1).
        patience: Stop after this many epochs without a better `monitor`; None never stops early.
        monitor: ``val/accuracy`` or ``val/loss``. Of two equal accuracies the one with the smaller loss is better.
        state: Where to continue; None starts from the beginning.
        on_batch: Called soon after each step with its loss, its accuracy in [0, 1] and the number of images.
        on_epoch: Called after each epoch; an exception that it raises ends the training.

    Returns:
        The state after the last epoch.

    Raises:
        InputError: if the loss becomes NaN or infinite, in training or on val.
    """
    if epochs < 1:
        raise InputError(f"epochs must be at least 1, but got {epochs}")
    precision = resolve_precision(precision, model)
    schedule, each_batch = make_scheduler(scheduler, optimizer, epochs * len(train_loader))
    state = state or State()
    if state.epoch > 0:
        state.restore(model, optimizer, schedule)
    step = TrainStep(model, optimizer, precision=precision, label_smoothing=label_smoothing)

    for epoch in range(state.epoch + 1, epochs + 1):
        if patience is not None and state.epoch - state.best_epoch >= patience:
            break
        torch.manual_seed(seed * 1_000_003 + epoch)
        lr = optimizer.param_groups[0]["lr"]
        start = time.perf_counter()
        try:
            loss, accuracy, count = train_epoch(step, train_loader, schedule if each_batch else None, on_batch)
        except NonFiniteLossError as error:
            raise _diverged(f"{error.loss} in step {error.step} of epoch {epoch}", lr) from error
        trained = time.perf_counter()
        val: Metrics = {}
        if val_loader is not None:
            val_logits, val_labels = infer(model, val_loader, precision=precision)
            val_loss = metrics.loss(val_logits, val_labels)
            if not math.isfinite(val_loss):  # because of the last steps of the epoch
                raise _diverged(f"{val_loss} on val after epoch {epoch}", lr)
            val = {"val/loss": val_loss, "val/accuracy": metrics.accuracy(val_logits, val_labels)}
        if schedule is not None and not each_batch:
            # the only scheduler of PyTorch that needs a metric
            plateau = isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau)
            schedule.step(val.get("val/loss", loss)) if plateau else schedule.step()
        state.epoch = epoch
        state.train_s += trained - start
        state.fit_s += time.perf_counter() - start
        state.images += count
        state.history.append(
            {"train/loss": loss, "train/accuracy": accuracy, **val, "lr": lr, "epoch_s": trained - start}
        )
        state.capture(model, optimizer, schedule)
        if val_loader is None or state.best_epoch == 0 or better(state.history[-1], state.best, monitor):
            state.best_epoch, state.best_weights = epoch, state.weights
        if on_epoch is not None:
            on_epoch(state)

    if val_loader is None and not all(bool(tensor.isfinite().all()) for tensor in state.best_weights.values()):
        raise _diverged(f"NaN or infinite after epoch {state.epoch}", optimizer.param_groups[0]["lr"])
    model.load_state_dict(state.best_weights)
    return state


def _diverged(loss: str, lr: float) -> InputError:
    return InputError(
        f"the loss became {loss}: lower optimizer.lr (the rate was {lr:g} as the epoch began), "
        "or look at the inputs with src/explore.py"
    )


def train_epoch(
    step: TrainStep,
    loader: Iterable[Batch],
    scheduler: Any = None,
    on_batch: Callable[[float, float, int], None] | None = None,
) -> tuple[float, float, int]:
    """Take one step for each batch.

    Returns:
        Loss and accuracy in [0, 1] over all images, measured in each step before the weights change and with dropout
        active, and the number of images.

    Raises:
        NonFiniteLossError: after the step with such a loss, on a GPU soon after it; the weights are then useless.
    """
    step.model.train()
    epoch = EpochMetrics(on_batch, read_s=0.0 if step.device.type == "cpu" else READ_S)
    for images, labels in loader:
        loss_and_correct = step(images, labels)
        if scheduler is not None:
            scheduler.step()
        epoch.add(loss_and_correct, len(labels))
    epoch.read()
    return epoch.loss, epoch.accuracy, epoch.images


@torch.inference_mode()
def infer(model: nn.Module, loader: Iterable[Batch], *, precision: str = "fp32") -> Batch:
    """Return the logits of all images of a loader; every metric of a model is a function of them.

    Returns:
        Logits float32 (N, K) and labels int64 (N,), on the CPU.
    """
    precision = resolve_precision(precision, model)
    model.eval()
    logits, labels = [], []
    for images, batch_labels in loader:
        with autocast(images.device, precision):
            logits.append(model(images).float())
        labels.append(batch_labels)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def better(new: Metrics, old: Metrics, monitor: str) -> bool:
    """Return True if an epoch is better than another: by the monitored metric, then by val/loss."""
    return _rank(new, monitor) > _rank(old, monitor)


def _rank(values: Metrics, monitor: str) -> tuple[float, float]:
    sign = -1 if monitor.endswith("loss") else 1
    return sign * values[monitor], -values["val/loss"]


def make_optimizer(make: Callable[..., Optimizer], parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Build an optimizer.

    Raises:
        InputError: for a value that it refuses.
    """
    try:
        return make(parameters)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {error}") from error


def make_scheduler(make: Callable[..., Any] | None, optimizer: Optimizer, total_steps: int) -> tuple[Any | None, bool]:
    """Build a scheduler of ``torch.optim.lr_scheduler``.

    One that plans over a known horizon (it takes ``total_steps`` or ``T_max``) is given the number of steps and steps
    after each batch. Any other steps after each epoch, as in PyTorch's documentation.

    Returns:
        The scheduler, and True if it steps after each batch.

    Raises:
        InputError: for a value that it refuses.
    """
    if make is None:
        return None, False
    parameters = inspect.signature(getattr(make, "func", make)).parameters
    given = getattr(make, "keywords", {})
    horizon = {name: total_steps for name in ("total_steps", "T_max") if name in parameters and name not in given}
    try:
        return make(optimizer, **horizon), bool(horizon)
    except (TypeError, ValueError) as error:
        raise InputError(f"scheduler: {error}") from error
