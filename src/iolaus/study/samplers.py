"""The samplers to choose from with ``hydra/sweeper/sampler``, and all that depends on which of them is chosen.

Hydra's official Optuna plugin registers its own: ``random``, ``cmaes``, ``nsgaii``, ``nsgaiii``, ``grid``, ``gp`` and
``qmc``. To offer another one, or other defaults for one of them, add a dataclass to `SAMPLERS`, and to `LATE_IMPORTS`
what it imports late. Other arguments need only a YAML file, such as ``conf/hydra/sweeper/sampler/early_tpe.yaml``.
Hydra's plugin reads the table whenever any Hydra app starts, so Optuna is imported inside the functions.
"""

import importlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from hydra_plugins.hydra_optuna_sweeper.config import SamplerConfig

from iolaus.errors import InputError, one_line
from iolaus.optuna_internals import grid_values

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from iolaus.search_space.space import Space


@dataclass
class TPESamplerConf(SamplerConfig):
    """Optuna's own defaults; the official plugin's switch two improvements of Optuna 5 off."""

    _target_: str = "optuna.samplers.TPESampler"
    seed: int | None = None
    consider_prior: bool | None = None
    prior_weight: float | None = None
    consider_magic_clip: bool | None = None
    consider_endpoints: bool | None = None
    n_startup_trials: int = 10
    n_ei_candidates: int = 24
    multivariate: bool | None = None
    group: bool | None = None
    """null: where the space is conditional."""
    warn_independent_sampling: bool | None = None
    constant_liar: bool = True
    constraints_func: Any | None = None


SAMPLERS: dict[str, type[SamplerConfig]] = {"tpe": TPESamplerConf}
"""Options of the config group by name; one that the official plugin has too takes its place."""

LATE_IMPORTS = {"CmaEsSampler": ["cmaes"], "GPSampler": ["scipy", "torch"], "QMCSampler": ["scipy"]}
"""The packages that a sampler imports only when it proposes, by its class."""


def make_sampler(config: Mapping[str, Any], space: "Space") -> "BaseSampler":
    """Make the sampler of a configuration.

    Args:
        config: The class and its arguments.
        space: The search space.

    Raises:
        ValueError: for a grid through a space that has none.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import BaseSampler

    config = dict(config)
    if config["_target_"] == "optuna.samplers.TPESampler" and config.get("group", False) is None:
        # Without groups a conditional parameter would be sampled independently of the others.
        config["group"] = space.is_conditional and config.get("multivariate") is not False
        config["multivariate"] = config["group"] or config.get("multivariate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of no interest to who has chosen it from our list
        whitelist = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
        sampler = instantiate(config, _execution_whitelist_=whitelist)
        if is_grid(config):  # the plugin leaves open what a grid goes through
            sampler = sampler(grid(space))
    assert isinstance(sampler, BaseSampler)
    return sampler


def check_sampler(config: Mapping[str, Any], space: "Space") -> None:
    """Find out early whether a sampler can be made, and has what it imports late.

    Raises:
        InputError: if not.
    """
    try:
        for package in LATE_IMPORTS.get(str(config["_target_"]).rpartition(".")[2], ()):
            importlib.import_module(package)
        make_sampler(config, space)
    except Exception as error:  # whatever it may raise
        raise InputError(f"hydra.sweeper.sampler cannot be used: {one_line(error)}") from error


def is_grid(config: Mapping[str, Any]) -> bool:
    """Return whether a sampler goes through a grid instead of drawing."""
    return bool(config["_target_"] == "optuna.samplers.GridSampler")


def grid(space: "Space") -> dict[str, Any]:
    """Return the values of each parameter that a grid goes through.

    Raises:
        ValueError: for a continuous parameter, or one that exists only sometimes.
    """
    if space.is_conditional:
        raise ValueError("a grid goes through all combinations, which do not exist under hydra.sweeper.when")
    return {name: grid_values(domain) for name, domain in space.distributions.items()}


def count_points(config: Mapping[str, Any], space: "Space", enqueues: bool) -> int | None:
    """Return the number of points of a grid, beyond which there can be no trial; None for other samplers.

    Args:
        config: Of the sampler.
        space: The search space.
        enqueues: Settings are to be tried before those that the sampler proposes.

    Raises:
        InputError: for a grid through a space that has none, or beside enqueued settings.
    """
    if not is_grid(config):
        return None
    if enqueues:
        raise InputError(
            "hydra.sweeper.enqueue and hydra/sweeper/sampler=grid are mutually exclusive: a grid tries all points"
        )
    try:
        return math.prod(len(values) for values in grid(space).values())
    except ValueError as error:
        raise InputError(f"hydra/sweeper/sampler=grid: {error}") from error
