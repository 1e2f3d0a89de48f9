"""From a command to the plan of its search: composed branch by branch, and checked before any trial."""

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from optuna.pruners import NopPruner

from iolaus.errors import InputError, did_you_mean, is_number, require
from iolaus.search_space.keys import key_in, start_of
from iolaus.search_space.overrides import overrides
from iolaus.search_space.parse import SpaceParser, settings_of
from iolaus.search_space.space import WHEN, grid
from iolaus.study.identity import Direction, digest, identity
from iolaus.study.plan import Plan
from iolaus.study.queue import Goals
from iolaus.study.storage import absolute

NO_PRUNER = "optuna.pruners.NopPruner"


class Planner:
    """Makes the plan of a command.

    Args:
        command: What is searched.
        settings: The keys of ``hydra.sweeper``.
        hydra_context: Hydra's.
        config: Of the sweep; its ``hydra.sweep.dir`` becomes the study's folder.
    """

    def __init__(
        self, command: SpaceParser, settings: Mapping[str, Any], hydra_context: HydraContext, config: DictConfig
    ) -> None:
        """Keep what a plan is made from."""
        self.command, self.settings = command, settings
        self.loader, self.config = hydra_context.config_loader, config
        self.whitelist = hydra_context.execution_whitelist
        self.directions = self._directions()

    def plan(self) -> tuple[Plan, dict[str, str]]:
        """The plan of a search, and the identity of its study; everything is checked that can be.

        Raises:
            InputError: for whatever could not be searched.
        """
        given, space, fixed = self.settings, self.command.space, self.command.fixed
        self._check_numbers()
        sampler, pruner = dict(given["sampler"]), dict(given["pruner"])
        points = None
        if sampler["_target_"] == "optuna.samplers.GridSampler":
            if given["enqueue"]:
                raise InputError("hydra.sweeper.enqueue has no place in a grid, which goes through all of its points")
            try:
                points = math.prod(len(values) for values in grid(space).values())
            except ValueError as error:
                raise InputError(f"hydra/sweeper/sampler=grid: {error}") from error

        branches = space.branches(self.command.is_group)
        self.branches = [overrides(branch, fixed, self.command.deletions) for branch in branches]
        composed = self._compose_branches()
        has_seed = type(composed.get("seed")) is int and all(parameter.key != "seed" for parameter in space.parameters)
        if given["repeats"] > 1 and not has_seed:
            raise InputError("hydra.sweeper.repeats gives each repeat a seed of its own: seed must be a whole number")
        facts = identity(space, self.directions, self._shared(composed))
        name = given["study_name"]
        if name is None:
            chosen = OmegaConf.select(self.config.hydra.runtime.choices, "hparams_search") or self.config.hydra.job.name
            parts = {"sampler": sampler, **({"pruner": pruner} if pruner != {"_target_": NO_PRUNER} else {})}
            texts = {key: json.dumps(part, sort_keys=True, default=str) for key, part in parts.items()}
            name = f"{chosen}-{digest({**facts, **texts})}"
        require(name.strip(". ") != "", "hydra.sweeper.study_name", "a name that a folder may have", repr(name))
        folder = self._set_folder(name)
        plan = Plan(
            storage=absolute(given["storage"] or str(folder / "journal.log")),
            study_name=name,
            folder=str(folder),
            goals=Goals(
                n_trials=given["n_trials"] if points is None else min(given["n_trials"], points),
                limit=points,
                max_failure_rate=given["max_failure_rate"],
                target=given["target"] if given["at_target"] == "stop" else None,
                patience=given["patience"],
                deadline=None if given["timeout_s"] is None else time.time() + given["timeout_s"],
            ),
            space=space,
            fixed=fixed,
            deletions=self.command.deletions,
            custom_search_space=given["custom_search_space"],
            sampler=sampler,
            pruner=pruner,
            repeats=given["repeats"],
            seed=sampler.get("seed"),
        )
        plan.check(self.whitelist)
        if len(self.directions) > 1 and not isinstance(plan.make_pruner(), NopPruner):
            raise InputError("hydra/sweeper/pruner needs one objective: Optuna prunes no trial of several")
        return plan, facts

    def _directions(self) -> list[Direction]:
        given = self.settings["direction"]
        directions: list[Direction] = []
        require(given != [], "hydra.sweeper.direction", "minimize or maximize, for each objective", given)
        for direction in given if isinstance(given, list) else [given]:
            name: Any = direction.name if isinstance(direction, Enum) else direction
            require(name in ("minimize", "maximize"), "hydra.sweeper.direction", "minimize or maximize", name)
            directions.append(name)
        return directions

    def _check_numbers(self) -> None:
        given = self.settings
        for key in ("n_trials", "n_jobs", "repeats", "patience"):
            if given[key] is not None:
                require(given[key] >= 1, f"hydra.sweeper.{key}", "at least 1", given[key])
        rate, timeout_s, target = given["max_failure_rate"], given["timeout_s"], given["target"]
        require(is_number(rate) and 0 <= rate <= 1, "hydra.sweeper.max_failure_rate", "in [0, 1]", rate)
        require(timeout_s is None or timeout_s > 0, "hydra.sweeper.timeout_s", "null or above 0", timeout_s)
        require(
            given["at_target"] in ("stop", "report"), "hydra.sweeper.at_target", "stop or report", given["at_target"]
        )
        require(
            target is None or (is_number(target) and math.isfinite(target)),
            "hydra.sweeper.target", "null or a number that a value can pass", target,
        )  # fmt: skip
        for key in ("target", "patience"):
            if given[key] is not None and len(self.directions) > 1:
                raise InputError(f"hydra.sweeper.{key} needs one objective, but there are {len(self.directions)}")

    def _compose_branches(self) -> DictConfig:
        """Compose a trial of each branch, so that a key that does not exist there is found now; gives the first."""
        first = None
        for branch in self.branches:
            try:
                composed = self.loader.load_sweep_config(self.config, branch)
            except ConfigCompositionException as error:
                self._explain(error, branch)
                raise
            first = composed if first is None else first
        assert first is not None
        return first

    def _explain(self, error: Exception, branch: Sequence[str]) -> None:
        """Raise an error that names the key that a branch does not have, if there is one."""
        groups = [override for override in branch if self.command.is_group(key_in(override))]
        try:
            known = settings_of(self.loader.load_sweep_config(self.config, groups))
        except ConfigCompositionException:
            return
        tables = {key.rpartition(".")[0] for key in known}
        for parameter in self.command.space.parameters:
            key = parameter.key.lstrip("~")
            exists = key in known or key in tables or self.command.is_group(key)
            named = any(override.partition("=")[0] == start_of(parameter.name) for override in branch)
            if named and not exists and not parameter.name.startswith("+"):
                where = f" with {' '.join(groups)}" if groups else ""
                hint = "" if parameter.when else f" (a key that exists only sometimes is searched under {WHEN})"
                meant = did_you_mean(key, {*known, *tables})
                raise InputError(f"the configuration{where} has no {key}{meant}{hint}") from error

    def _shared(self, composed: DictConfig) -> dict[str, Any]:
        """What all trials have in common: the configuration of any of them, but for what is searched."""
        searched = tuple(p.key.lstrip("~").replace("/", ".") for p in self.command.space.parameters)
        shared = {
            name: value
            for name, value in settings_of(composed).items()
            if not any(name == key or name.startswith(f"{key}.") for key in searched)
        }
        if self.settings["custom_search_space"] is not None:
            shared["custom_search_space"] = self.settings["custom_search_space"]
        if self.settings["repeats"] > 1:
            shared["repeats"] = self.settings["repeats"]
        return {**shared, **{name.lstrip("+"): value for name, value in self.command.fixed.items()}}

    def _set_folder(self, study_name: str) -> Path:
        """Make ``hydra.sweep.dir`` the study's, where it would be a new one for each command, and give it."""
        raw = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        assert isinstance(raw, dict)
        if "${now:" in raw["dir"]:
            name = re.sub(r"[^\w.+-]", "_", study_name)
            with read_write(self.config.hydra), open_dict(self.config.hydra):
                self.config.hydra.sweep.dir = raw["dir"][: raw["dir"].index("${now:")] + name
        folder = Path(self.config.hydra.sweep.dir).absolute()
        set_folder(self.config, folder)
        return folder


def set_folder(config: DictConfig, folder: Path) -> None:
    """Make a folder that of a sweep, whose trials are composed from this configuration."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir = str(folder)
        quoted = QuotedString(str(folder), Quote.single).with_quotes()
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted}")
