"""How long a training will take: a few of its steps timed."""

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
"""Steps."""


def seconds(cfg: DictConfig, threads: int) -> float:
    """Seconds that the training and the evaluations on val of a run would take, without start-up and pruning.

    Args:
        cfg: Of the run.
        threads: That it would have on the CPU, unless it says so itself.

    Raises:
        InputError: for whatever the run would be refused for.
    """
    device = resolve_device(cfg.device)
    torch.set_num_threads(threads if cfg.threads == "auto" else cfg.threads)
    data = instantiate(cfg.data)
    data.lock_test("an estimate has no use for it")
    train, val = (
        data.loader("train", augment=instantiate(cfg.augment), device=device),
        data.loader("val", device=device),
    )
    model = build.build(instantiate(cfg.model, _partial_=True, _convert_="all"), data.input_shape, data.num_classes)
    model = place(model, device)
    optimizer = loop.make_optimizer(instantiate(cfg.optimizer, _convert_="all"), model.parameters())
    precision = resolve_precision(cfg.precision, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # so that no rate can make it diverge
    step = TrainStep(model, optimizer, precision=precision)

    def epoch(loader: loop.Loader, learn: bool) -> float:
        """Seconds for all of its batches, from those of a few, which are made meanwhile."""
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

    return float(cfg.epochs * (epoch(train, learn=True) + epoch(val, learn=False)))
