"""The configuration of a run: the types and ranges of its run-level keys, and what a tracker records of it.

Nothing here imports torch or a tracker, so that ``--help`` and a misspelt key are answered at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from iolaus.classifier.run.objective import METRICS, check_constraints, objectives
from iolaus.errors import InputError, is_number, require
from iolaus.search_space.keys import flatten

NOT_SETTINGS = ("resume", "from_run", "from_trial", "tracking", "root")
"""Keys that may differ between a run and its resumption or repetition."""
CHAMPION_PREFIX = "iolaus-"
"""Begins the name of a data set's champion in the tracker's registry; the name of the data set follows."""


@dataclass
class EarlyStopping:
    """Schema of the key ``early_stopping``."""

    patience: int | None = MISSING


@dataclass
class Loss:
    """Schema of the key ``loss``."""

    label_smoothing: float = MISSING


@dataclass
class RunConfig:
    """Schema of ``conf/config.yaml``, which holds the values; the keys of a group are checked by its constructor."""

    data: Any = MISSING
    augment: Any = MISSING
    model: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    tracking: Any = MISSING
    loss: Loss = field(default_factory=Loss)
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    epochs: int = MISSING
    seed: int = MISSING
    device: str = MISSING
    precision: str = MISSING
    threads: Any = MISSING  # "auto" or a number
    objective: Any = MISSING  # a metric's name or a list of them
    constraints: Any = None  # bounds by metric
    train_on_val: bool = MISSING
    resume: str | None = MISSING
    from_run: str | None = MISSING
    from_trial: str | None = MISSING
    root: str = MISSING


def register() -> None:
    """Register the schema with Hydra as ``run_schema``, and the resolver ``${project_root:}``."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig, replace=True)
    OmegaConf.register_resolver("project_root", lambda: str(project_root()), replace=True)


def project_root() -> Path:
    """Return the checkout that holds this file or, for an installed package, the current folder."""
    checkout = Path(__file__).resolve().parents[4]
    return checkout if (checkout / "conf" / "config.yaml").is_file() else Path.cwd()


def check(cfg: DictConfig) -> None:
    """Check the ranges of the run-level keys.

    Raises:
        InputError: naming the key, its rule and the value that broke it.
    """
    require(cfg.epochs >= 1, "epochs", "at least 1", cfg.epochs)
    require(0 <= cfg.seed < 2**32, "seed", "in 0..4294967295", cfg.seed)
    require(
        re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", cfg.device) is not None,
        "device",
        "one of auto, cpu, cuda, cuda:<index>, mps",
        cfg.device,
    )
    require(cfg.precision in ("auto", "fp32", "bf16"), "precision", "one of auto, fp32, bf16", cfg.precision)
    require(
        cfg.threads == "auto" or (type(cfg.threads) is int and cfg.threads >= 1),
        "threads",
        "auto or at least 1",
        cfg.threads,
    )
    smoothing = cfg.loss.label_smoothing
    require(0 <= smoothing < 1, "loss.label_smoothing", "in [0, 1)", smoothing)
    patience = cfg.early_stopping.patience
    require(patience is None or patience >= 1, "early_stopping.patience", "null or at least 1", patience)
    if "lr" in cfg.optimizer:
        lr = cfg.optimizer.lr
        require(is_number(lr) and 0 < lr < float("inf"), "optimizer.lr", "a number above 0", lr)
    resume = cfg.resume
    require(
        resume is None or Path(resume).is_file(), "resume", "the path of a run's checkpoint.pt", resume or "nothing"
    )
    if cfg.train_on_val and patience is not None:
        raise InputError("train_on_val leaves no val for early stopping: set early_stopping.patience=null")
    for metric in objectives(cfg):
        require(metric in METRICS, "objective", f"one of {', '.join(METRICS)} or a list of them", metric)
    check_constraints(cfg)


def settings(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain values, without `NOT_SETTINGS` and the folder of the data."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    kept = {str(key): value for key, value in plain.items() if key not in NOT_SETTINGS}
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "root"}
    return kept


def params(settings: dict[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params of a run for a tracker: the choice of each group, and every key with its value."""
    chosen = {group: choices[group] for group in ("data", "augment", "model", "optimizer", "scheduler")}
    return chosen | {key: value for key, value in flatten(settings).items() if not key.endswith("_partial_")}


def check_same_settings(ours: Mapping[str, Any], theirs: Mapping[str, Any], origin: str) -> None:
    """Refuse to resume a run under other settings, since it could not end the same.

    Args:
        ours: The settings of the run now.
        theirs: Those of the checkpoint.
        origin: The checkpoint's path.

    Raises:
        InputError: listing each key that differs.
    """
    ours, theirs = flatten(ours), flatten(theirs)
    missing = "(absent)"
    different = [
        f"{key} was {theirs.get(key, missing)}, now {ours.get(key, missing)}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key, missing) != theirs.get(key, missing)
    ]
    if different:
        raise InputError(
            f"{origin} was made with other settings: {'; '.join(different)}; leave them as they were "
            "(options such as --config-dir, and overrides that name a _target_, must be repeated)"
        )
