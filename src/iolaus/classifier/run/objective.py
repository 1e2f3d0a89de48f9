"""The objective of a run: the metrics that it may name, their directions, targets and constraints."""

from collections.abc import Mapping, Sequence

from omegaconf import DictConfig

from iolaus import metric_table
from iolaus.errors import InputError, is_number, require

METRICS = ("val/accuracy", "val/loss", "fit_s", "params", "images_per_s")
"""The metrics that `objective` may name.

Train and test metrics are missing on purpose: what selects sees ``val`` only.
"""


def check_constraints(cfg: DictConfig) -> None:
    """Check that ``constraints`` gives bounds of metrics of a run.

    Raises:
        InputError: naming the key that does not.
    """
    bounds = {} if cfg.constraints is None else cfg.constraints
    require(isinstance(bounds, Mapping), "constraints", "null or a mapping such as {params: 10000}", bounds)
    for metric, bound in bounds.items():
        require(metric in METRICS, "constraints", f"bounds of {', '.join(METRICS)}", metric)
        require(is_number(bound), f"constraints.{metric}", "a number", bound)


def objectives(cfg: DictConfig) -> list[str]:
    """Return the names in ``objective``, which may be one name or a list of them."""
    names = [cfg.objective] if isinstance(cfg.objective, str) else list(cfg.objective or [])
    require(len(names) > 0, "objective", f"one of {', '.join(METRICS)} or a list of them", cfg.objective)
    return names


def check_directions(cfg: DictConfig, directions: Sequence[str]) -> None:
    """Refuse to search for the worst: each direction must be that in which its objective is better.

    Raises:
        InputError: naming the metric and its direction.
    """
    names = objectives(cfg)
    for name in names:
        require(name in METRICS, "objective", f"one of {', '.join(METRICS)} or a list of them", name)
    if len(names) != len(directions):
        raise InputError(
            f"hydra.sweeper.direction has {len(directions)} directions for {len(names)} objectives: give one for each"
        )
    for name, direction in zip(names, directions, strict=True):
        better = metric_table.of(name).direction
        rule = f"{better} for {name} (where none is given it is minimize)"
        require(direction == better, "hydra.sweeper.direction", rule, direction)


def check_target(cfg: DictConfig, target: float | None) -> None:
    """Refuse a target that no value of the first objective can pass.

    Raises:
        InputError: naming the metric and its range.
    """
    name = objectives(cfg)[0]
    if target is None:
        return
    low, high = metric_table.of(name).low, metric_table.of(name).high
    if low is not None and high is not None:
        rule = f"in [{low:g}, {high:g}], since {name} is a fraction"
        require(low <= target <= high, "hydra.sweeper.target", rule, target)
    elif low is not None:
        require(target > low, "hydra.sweeper.target", f"above {low:g}, as {name} is", target)


def excess(cfg: DictConfig, results: Mapping[str, float]) -> dict[str, float]:
    """Return by how much a run's metrics exceed each of ``constraints``; 0 or less satisfies a constraint.

    Args:
        cfg: The configuration, whose ``constraints`` are the worst values allowed, by metric.
        results: The run's metrics.
    """
    return {
        str(name): (results[str(name)] - bound) * (1 if metric_table.of(str(name)).direction == "minimize" else -1)
        for name, bound in (cfg.constraints or {}).items()
        if name in results  # with train_on_val there is no val
    }


def monitored(cfg: DictConfig) -> str:
    """Return the metric that decides which epoch is kept: the first objective that has a value in each epoch."""
    return next((name for name in objectives(cfg) if name.startswith("val/")), "val/accuracy")
