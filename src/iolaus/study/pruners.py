"""The pruners to choose from with ``hydra/sweeper/pruner``, and all that depends on which of them is chosen.

To offer another one, add an entry to `PRUNERS`. Other arguments for one of Optuna's need only a YAML file, such as
``conf/hydra/sweeper/pruner/worst_quarter.yaml``. Hydra's plugin reads the table whenever any Hydra app starts, so
Optuna is imported inside the functions.
"""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from iolaus.errors import InputError, one_line

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

PRUNERS: dict[str, dict[str, Any]] = {
    "none": {"_target_": "optuna.pruners.NopPruner"},
    "median": {
        "_target_": "optuna.pruners.MedianPruner",
        "n_startup_trials": 5,
        "n_warmup_steps": 0,
        "interval_steps": 1,
        "n_min_trials": 1,
    },
    "asha": {
        "_target_": "optuna.pruners.SuccessiveHalvingPruner",
        "min_resource": 1,
        "reduction_factor": 3,
        "min_early_stopping_rate": 0,
        "bootstrap_count": 0,
    },
    "hyperband": {
        "_target_": "optuna.pruners.HyperbandPruner",
        "min_resource": 1,
        "max_resource": "auto",
        "reduction_factor": 3,
        "bootstrap_count": 0,
    },
    "threshold": {
        "_target_": "optuna.pruners.ThresholdPruner",
        "lower": None,
        "upper": None,
        "n_warmup_steps": 0,
        "interval_steps": 1,
    },
    "patient": {
        "_target_": "optuna.pruners.PatientPruner",
        "wrapped_pruner": {"_target_": "optuna.pruners.MedianPruner"},
        "patience": 1,
        "min_delta": 0.0,
    },
    "wilcoxon": {"_target_": "optuna.pruners.WilcoxonPruner", "p_threshold": 0.1, "n_startup_steps": 2},
}
"""Options of the config group: the class and its arguments by name."""


def make_pruner(config: Mapping[str, Any]) -> "BasePruner":
    """Make the pruner of a configuration."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.pruners import BasePruner

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of no interest to who has chosen it from our list
        pruner = instantiate(dict(config), _execution_whitelist_=("optuna.pruners.*",))
    assert isinstance(pruner, BasePruner)
    return pruner


def check_pruner(config: Mapping[str, Any], repeats: int, objectives: int) -> None:
    """Find out early whether a pruner can be made and used.

    Args:
        config: Of the pruner.
        repeats: The number of times that a trial runs its task.
        objectives: Their number.

    Raises:
        InputError: if not.
    """
    try:
        pruner = make_pruner(config)
    except Exception as error:  # whatever it may raise
        raise InputError(f"hydra.sweeper.pruner cannot be used: {one_line(error)}") from error
    if prunes_between_repeats(pruner) and repeats == 1:
        raise InputError("hydra/sweeper/pruner=wilcoxon prunes between repeats: set hydra.sweeper.repeats above 1")
    if prunes(pruner) and objectives > 1:
        raise InputError("hydra/sweeper/pruner needs one objective: Optuna prunes no trial of several")


def prunes(pruner: "BasePruner") -> bool:
    """Return whether a pruner may prune a trial at all."""
    from optuna.pruners import NopPruner

    return not isinstance(pruner, NopPruner)


def prunes_between_repeats(pruner: "BasePruner") -> bool:
    """Return whether a pruner compares the values of repeats, instead of those that a task reports."""
    from optuna.pruners import WilcoxonPruner

    return isinstance(pruner, WilcoxonPruner)
