"""What an entry point does with its configuration before anything heavy is imported.

The types and ranges of the run-level keys, the expansion of ``resume=PATH``, and the one clear line that a
user's mistake ends in. Nothing here imports torch or a tracker: ``--help`` and a misspelt key answer at once.
"""

import errno
import itertools
import re
import shlex
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from iolaus.errors import InputError, is_number, require

NOT_SETTINGS = ("resume", "from_run", "from_trial", "tracking", "root")
"""Keys that may differ between a run and its resumption, or its repetition."""
METRICS = {
    "val/accuracy": "maximize",
    "val/loss": "minimize",
    "fit_s": "minimize",
    "params": "minimize",
    "images_per_s": "maximize",
}
"""What `objective` may name, and which direction is better.

Train and test metrics are missing on purpose: what selects sees ``val`` only.
"""


@dataclass
class EarlyStopping:
    """Key ``early_stopping``."""

    patience: int | None = MISSING


@dataclass
class Loss:
    """Key ``loss``."""

    label_smoothing: float = MISSING


@dataclass
class RunConfig:
    """Schema of ``conf/config.yaml``, which holds the values: a group's content is checked by its constructor."""

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
    """Make the schema known to Hydra as ``run_schema``, and ``${project_root:}`` to its YAML."""
    ConfigStore.instance().store(name="run_schema", node=RunConfig, replace=True)
    OmegaConf.register_resolver("project_root", lambda: str(project_root()), replace=True)


def project_root() -> Path:
    """The checkout that this file lies in or, for an installed package, the current folder."""
    checkout = Path(__file__).resolve().parents[2]
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
        raise InputError("train_on_val leaves no val to stop early by: set early_stopping.patience=null")
    for metric in objectives(cfg):
        require(metric in METRICS, "objective", f"one of {', '.join(METRICS)} or a list of them", metric)
    check_constraints(cfg)


def check_constraints(cfg: DictConfig) -> None:
    """Check that ``constraints`` names metrics of a run.

    Raises:
        InputError: naming what is none.
    """
    bounds = {} if cfg.constraints is None else cfg.constraints
    require(isinstance(bounds, Mapping), "constraints", "null or a mapping such as {params: 10000}", bounds)
    for metric, bound in bounds.items():
        require(metric in METRICS, "constraints", f"bounds of {', '.join(METRICS)}", metric)
        require(is_number(bound), f"constraints.{metric}", "a number", bound)


def objectives(cfg: DictConfig) -> list[str]:
    """The names in ``objective``, which may be one name or a list of them."""
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
        rule = f"{METRICS[name]} for {name} (where none is given it is minimize)"
        require(direction == METRICS[name], "hydra.sweeper.direction", rule, direction)


def check_target(cfg: DictConfig, target: float | None) -> None:
    """Refuse a target that no value of the first objective can pass.

    Raises:
        InputError: naming the metric and its range.
    """
    name = objectives(cfg)[0]
    if target is None:
        return
    if name.endswith("/accuracy"):
        require(0 <= target <= 1, "hydra.sweeper.target", f"in [0, 1], since {name} is a fraction", target)
    else:
        require(target > 0, "hydra.sweeper.target", f"above 0, as {name} is", target)


def excess(cfg: DictConfig, results: Mapping[str, float]) -> dict[str, float]:
    """By how much a run's metrics break each of ``constraints``; what is not above 0 keeps it.

    Args:
        cfg: Its ``constraints`` are the worst values that are allowed, by metric.
        results: The metrics.
    """
    return {
        str(name): (results[str(name)] - bound) * (1 if METRICS[str(name)] == "minimize" else -1)
        for name, bound in (cfg.constraints or {}).items()
        if name in results  # with train_on_val there is no val
    }


def monitored(cfg: DictConfig) -> str:
    """The metric that decides which epoch's weights are kept: the first objective that has a value each epoch."""
    return next((name for name in objectives(cfg) if name.startswith("val/")), "val/accuracy")


def settings(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain values, without what may differ between a run and its resumption."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    kept = {str(key): value for key, value in plain.items() if key not in NOT_SETTINGS}
    kept["data"] = {key: value for key, value in kept["data"].items() if key != "root"}
    return kept


def params(settings: dict[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """What a tracker records of a run: the choice of each group, and every key with its value."""
    chosen = {group: choices[group] for group in ("data", "augment", "model", "optimizer", "scheduler")}
    return chosen | {key: value for key, value in flatten(settings).items() if not key.endswith("_partial_")}


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted keys; lists stay whole. ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    return {
        name: leaf
        for key, value in tree.items()
        for name, leaf in flatten(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def check_same_settings(ours: dict[str, Any], theirs: dict[str, Any], origin: str) -> None:
    """Refuse to resume a run under another configuration, since it could not come to the same end.

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


def expand_resume(argv: Sequence[str]) -> list[str]:
    """Put the overrides that a run was started with before those beside its ``resume=PATH``.

    They are taken from ``.hydra/overrides.yaml`` in the checkpoint's folder; where the command line names the
    same key, its own value stands alone. Without such a file the command line must repeat them, and
    `check_same_settings` sees to it.
    """
    path = next((Path(arg.split("=", 1)[1].strip("'\"")) for arg in argv if arg.startswith("resume=")), None)
    saved = path.parent / ".hydra" / "overrides.yaml" if path else None
    if saved is None or not saved.is_file():
        return list(argv)
    given = {key_of(arg) for arg in argv}
    given |= {"from_run", "from_trial"}  # what these stood for is among the recorded
    recorded = [override for override in harmless(map(str, OmegaConf.load(saved))) if "_target_" not in override]
    return [override for override in recorded if key_of(override) not in given] + list(argv)


def harmless(overrides: Iterable[str]) -> list[str]:
    """Of overrides from elsewhere those that choose among our configurations and set values.

    They must not say where code lies. Whether they name code to run, with a ``_target_``, is for the caller to look at.
    """
    return [
        override for override in overrides if not override.startswith("-") and not key_of(override).startswith("hydra")
    ]


def key_of(override: str) -> str:
    """The key that an override names, without its sign and its package."""
    return override.split("=", 1)[0].lstrip("+~").split("@", 1)[0]


def resume_command(overrides: Sequence[str], checkpoint: Path) -> str:
    """The shell command that goes on with a run that was started with `overrides`."""
    kept = [override for override in overrides if key_of(override) not in ("resume", "from_run", "from_trial")]
    path = str(checkpoint) if re.fullmatch(r"[\w./:+-]+", str(checkpoint)) else f"'{checkpoint}'"  # Hydra's quotes
    return shlex.join(["python", sys.argv[0], *config_options(sys.argv[1:]), *kept, f"resume={path}"])


def config_options(argv: Sequence[str]) -> list[str]:
    """Hydra's options among these arguments that say which configuration is meant, with their values."""
    return [
        part
        for flag, value in itertools.pairwise([*argv, ""])
        if flag.split("=")[0] in ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
        for part in ([flag] if "=" in flag else [flag, value])
    ]


def report_mistakes() -> None:
    """Let a user's mistake, a full disk and Ctrl-C end in one line; all else keeps its traceback.

    Hydra hands exceptions of a task to ``sys.excepthook``. SIGTERM is made to end a run as Ctrl-C does.
    """
    fallback = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if (line := one_line(error)) is not None:
            print(f"error: {line}", file=sys.stderr)
        elif kind is KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        else:
            fallback(kind, error, traceback)

    sys.excepthook = hook
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def one_line(error: BaseException | None) -> str | None:
    """The message of a mistake, also where another exception wraps it; None for anything else."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or "the output folder"
            return f"no space left on the disk of {where}: free some, or choose another (hydra.run.dir, data.root)"
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"no permission for {error.filename}: choose another folder (hydra.run.dir, root, data.root)"
        if "database or disk is full" in str(error):  # SQLite's words, through the layers above it
            return "no space left on the disk of the tracking database: free some, or use tracking=none"
        if isinstance(error, MissingMandatoryValue):
            return f"{error.full_key} has no value: give one with {error.full_key}=VALUE"
        if isinstance(error, InstantiationException) and str(error).startswith("Error locating target"):
            root: BaseException = error
            while root.__cause__ is not None:
                root = root.__cause__
            why = f"({type(root).__name__}: {root}): is it spelt right, and on PYTHONPATH?"
            return f"{' '.join(str(error).split())} {why}"
        if isinstance(error, yaml.YAMLError):
            return f"a configuration file is no YAML: {' '.join(str(error).split())}"
        error = error.__cause__
    return None
