"""From a command to the plan of its search: composed branch by branch, and checked before any trial."""

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from iolaus.errors import InputError, did_you_mean, is_number, require
from iolaus.search_space.compose import Composer, settings_of
from iolaus.search_space.keys import bare_key, key_element, key_of
from iolaus.search_space.overrides import overrides
from iolaus.search_space.parse import SpaceParser
from iolaus.search_space.space import WHEN
from iolaus.study.identity import Direction, digest, identity
from iolaus.study.plan import Plan
from iolaus.study.pruners import PRUNERS
from iolaus.study.queue import Goals
from iolaus.study.samplers import count_points
from iolaus.study.storage import absolute


class Planner:
    """Make the plan of a command.

    Args:
        parser: Of the command's space.
        settings: The keys of ``hydra.sweeper``.
        composer: Composes the sweep's trials; its folder becomes the study's.
        whitelist: The targets that the app allows Hydra to call; None if it does not say.
    """

    def __init__(self, parser: SpaceParser, settings: Mapping[str, Any], composer: Composer, whitelist: Any) -> None:
        """Keep what a plan is made from."""
        self.parser, self.settings, self.composer, self.whitelist = parser, settings, composer, whitelist
        self.directions = self._directions()

    def plan(self) -> tuple[Plan, dict[str, str]]:
        """Return the plan of a search and the identity of its study; everything is checked that can be.

        Raises:
            InputError: for whatever could not be searched.
        """
        given, space, fixed = self.settings, self.parser.space, self.parser.fixed
        self._check_numbers()
        sampler, pruner = dict(given["sampler"]), dict(given["pruner"])
        points = count_points(sampler, space, enqueues=bool(given["enqueue"]))
        branches = space.branches(self.composer.is_group)
        self.branches = [overrides(branch, fixed, self.parser.deletions) for branch in branches]
        composed = self._compose_branches()
        has_seed = type(composed.get("seed")) is int and all(parameter.key != "seed" for parameter in space.parameters)
        if given["repeats"] > 1 and not has_seed:
            raise InputError("hydra.sweeper.repeats gives each repeat a seed of its own: seed must be a whole number")
        facts = identity(space, self.directions, self._shared(composed))
        name = given["study_name"]
        if name is None:
            hydra = self.composer.sweep_config.hydra
            chosen = OmegaConf.select(hydra.runtime.choices, "hparams_search") or hydra.job.name
            parts = {"sampler": sampler, **({"pruner": pruner} if pruner != PRUNERS["none"] else {})}
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
            deletions=self.parser.deletions,
            custom_search_space=given["custom_search_space"],
            sampler=sampler,
            pruner=pruner,
            repeats=given["repeats"],
            seed=sampler.get("seed"),
        )
        plan.check(self.whitelist, len(self.directions))
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
        """Compose a trial of each branch, so that a key that does not exist there is found now; return the first."""
        first = None
        for branch in self.branches:
            try:
                composed = self.composer.compose(branch)
            except ConfigCompositionException as error:
                self._explain(error, branch)
                raise
            first = composed if first is None else first
        assert first is not None
        return first

    def _explain(self, error: Exception, branch: Sequence[str]) -> None:
        """Raise an error that names a key that a branch lacks, if there is one."""
        groups = [override for override in branch if self.composer.is_group(key_of(override))]
        try:
            known = settings_of(self.composer.compose(groups))
        except ConfigCompositionException:
            return
        tables = {key.rpartition(".")[0] for key in known}
        for parameter in self.parser.space.parameters:
            key = bare_key(parameter.name)
            exists = key in known or key in tables or self.composer.is_group(key)
            named = any(override.partition("=")[0] == key_element(parameter.name) for override in branch)
            if named and not exists and not parameter.name.startswith("+"):
                where = f" with {' '.join(groups)}" if groups else ""
                hint = "" if parameter.when else f" (a key that exists only sometimes is searched under {WHEN})"
                meant = did_you_mean(key, {*known, *tables})
                raise InputError(f"the configuration{where} has no {key}{meant}{hint}") from error

    def _shared(self, composed: DictConfig) -> dict[str, Any]:
        """Return the settings that all trials share: the configuration of any of them without what is searched."""
        searched = tuple(bare_key(p.name).replace("/", ".") for p in self.parser.space.parameters)
        shared = {
            name: value
            for name, value in settings_of(composed).items()
            if not any(name == key or name.startswith(f"{key}.") for key in searched)
        }
        if self.settings["custom_search_space"] is not None:
            shared["custom_search_space"] = self.settings["custom_search_space"]
        if self.settings["repeats"] > 1:
            shared["repeats"] = self.settings["repeats"]
        return {**shared, **{name.lstrip("+"): value for name, value in self.parser.fixed.items()}}

    def _set_folder(self, study_name: str) -> Path:
        """Make ``hydra.sweep.dir`` the study's, where it would be a new one for each command, and return it."""
        hydra = self.composer.sweep_config.hydra
        raw = OmegaConf.to_container(hydra.sweep, resolve=False)
        assert isinstance(raw, dict)
        if "${now:" in raw["dir"]:
            name = re.sub(r"[^\w.+-]", "_", study_name)
            with read_write(hydra), open_dict(hydra):
                hydra.sweep.dir = raw["dir"][: raw["dir"].index("${now:")] + name
        folder = self.composer.folder.absolute()
        self.composer.set_folder(folder)
        return folder
