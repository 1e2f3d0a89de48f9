"""The progress of a run, shown while it trains: a bar in a terminal, and a log line for each epoch."""

import datetime
import logging
import sys
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from iolaus import metric_table
from iolaus.classifier.training.loop import State
from iolaus.classifier.training.metrics import accuracy_interval

log = logging.getLogger(__name__)
LOSS, ACCURACY, SPEED = (metric_table.of(it).shown for it in ("loss", "accuracy", "images_per_s"))


class Progress:
    """Context of a training run, whose methods are callbacks for `iolaus.classifier.training.loop.fit`.

    Args:
        epochs: Number of epochs of the whole run.
        batches: Batches per epoch.
        done: Epochs that were finished before the run was resumed.
    """

    def __init__(self, epochs: int, batches: int, done: int = 0) -> None:
        """Start the bar if there is a terminal."""
        self.epochs, self.batches, self.seconds = epochs, batches, 0.0
        self.bar = tqdm(
            total=epochs * batches,
            initial=done * batches,
            disable=not sys.stderr.isatty(),
            desc=f"epoch {done + 1}/{epochs}",
            bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left{postfix}",
            dynamic_ncols=True,
            leave=False,
        )
        self.redirected = logging_redirect_tqdm()
        self.loss = self.accuracy = 0.0  # exponential averages over about 20 batches
        self.images = 0
        self.done = done

    def __enter__(self) -> "Progress":
        """Redirect log lines past the bar."""
        if not self.bar.disable:
            self.redirected.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if not self.bar.disable:
            self.redirected.__exit__(kind, error, traceback)
        self.bar.close()

    def on_batch(self, loss: float, accuracy: float, count: int) -> None:
        """Advance the bar by one batch."""
        if self.bar.disable:
            return
        weight = 0.05 if self.images > 0 else 1.0
        self.loss += weight * (loss - self.loss)
        self.accuracy += weight * (accuracy - self.accuracy)
        self.images += count
        if self.bar.update():  # True when it was time to draw
            elapsed = self.bar.format_dict["elapsed"]
            self.bar.set_postfix_str(
                f"loss {LOSS(self.loss)}, accuracy {self.accuracy:.2%}, {SPEED(self.images / max(elapsed, 1e-9))}",
                refresh=False,
            )

    def on_epoch(self, state: State) -> None:
        """Log the epoch as one line."""
        values = state.history[-1]
        self.seconds += values["epoch_s"]
        # early stopping may end it sooner
        left = (self.epochs - state.epoch) * self.seconds / max(state.epoch - self.done, 1)
        self.bar.set_description_str(f"epoch {min(state.epoch + 1, self.epochs)}/{self.epochs}", refresh=False)
        splits = [split for split in ("train", "val") if f"{split}/loss" in values]
        parts = [
            f"{it} loss {LOSS(values[f'{it}/loss'])}, accuracy {ACCURACY(values[f'{it}/accuracy'])}" for it in splits
        ]
        log.info(
            "epoch %d/%d: %s%s; %s, %s left",
            state.epoch,
            self.epochs,
            "; ".join(parts),
            " (best)" if "val" in splits and state.best_epoch == state.epoch else "",
            SPEED(state.images_per_s),
            datetime.timedelta(seconds=round(left)),
        )


def summary(results: Mapping[str, float], epochs: int, counts: Mapping[str, int]) -> str:
    """Return the results of a run in a few lines.

    Args:
        results: Metrics of the kept weights.
        epochs: Number of epochs that were trained.
        counts: Number of images of each split that is reported.
    """
    lines = [f"kept epoch {results['best_epoch']} of {epochs}"]
    for split, count in counts.items():
        accuracy = results[f"{split}/accuracy"]
        low, high = accuracy_interval(accuracy, count)
        interval = f"95 % interval {ACCURACY.number(low)} to {ACCURACY(high)}, n = {count:,}"
        loss = LOSS(results[f"{split}/loss"])
        lines.append(f"{split + ' accuracy':14} {ACCURACY(accuracy)}  ({interval}), loss {loss}")
    params, seconds, speed = (metric_table.of(it).shown(results[it]) for it in ("params", "fit_s", "images_per_s"))
    lines.append(f"{params} parameters, trained in {seconds}, {speed}")
    return "\n".join(lines)
