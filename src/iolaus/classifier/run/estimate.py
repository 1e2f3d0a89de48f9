"""An estimate of the time that a training will take, from a few of its steps."""

import itertools
import time

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from iolaus.classifier.models import build
from iolaus.classifier.training import loop
from iolaus.classifier.training.device import place, resolve_device, resolve_precision
from iolaus.classifier.training.step import TrainStep

WARM_UP, TIMED = 3, 8
"""Numbers of steps."""


def seconds(cfg: DictConfig, threads: int) -> float:
    """Return the seconds that training and validation of a run would take, without start-up and pruning.

    Args:
        cfg: The run's configuration.
        threads: Number of threads on the CPU, unless the configuration gives one.

    Raises:
        InputError: for a configuration that the run itself would refuse.
    """
    device = resolve_device(cfg.device)
    torch.set_num_threads(threads if cfg.threads == "auto" else cfg.threads)
    data = instantiate(cfg.data)
    data.lock_test("an estimate does not need it")
    train_loader = data.loader("train", augment=instantiate(cfg.augment), device=device)
    val_loader = data.loader("val", device=device)
    model = build.build(instantiate(cfg.model, _partial_=True, _convert_="all"), data.input_shape, data.num_classes)
    model = place(model, device)
    optimizer = loop.make_optimizer(instantiate(cfg.optimizer, _convert_="all"), model.parameters())
    precision = resolve_precision(cfg.precision, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # so that the loss cannot diverge
    step = TrainStep(model, optimizer, precision=precision)

    def epoch_s(loader: loop.Loader, learn: bool) -> float:
        """Return the seconds for all batches of a loader, extrapolated from a few, with the time to make them."""
        batches, count = iter(loader), min(WARM_UP + TIMED, len(loader))
        warm_up = min(WARM_UP, count - 1)
        for steps in (warm_up, count - warm_up):
            start = time.perf_counter()
            part = itertools.islice(batches, steps)
            if steps and learn:
                loop.train_epoch(step, part)
            elif steps:
                loop.infer(model, part, precision=precision)
        return (time.perf_counter() - start) / (count - warm_up) * len(loader)

    return float(cfg.epochs * (epoch_s(train_loader, learn=True) + epoch_s(val_loader, learn=False)))
