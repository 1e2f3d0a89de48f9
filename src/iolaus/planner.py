"""From a command line to the plan of its search: read, composed branch by branch, and checked before any trial."""

import dataclasses
import functools
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import NopPruner

from iolaus.config import flatten
from iolaus.errors import InputError, is_number, require
from iolaus.journal import absolute
from iolaus.overrides import any_value, did_you_mean, key_of, one_line, overrides, parse, start_of
from iolaus.plan import Plan
from iolaus.search import Goals
from iolaus.space import WHEN, Condition, Parameter, Space, grid, read_when
from iolaus.study import Direction, digest, identity

NO_PRUNER = "optuna.pruners.NopPruner"


class Planner:
    """Makes the plan of a command.

    Args:
        settings: The keys of ``hydra.sweeper``.
        hydra_context: Hydra's.
        config: Of the sweep; its ``hydra.sweep.dir`` becomes the study's folder.
    """

    def __init__(self, settings: Mapping[str, Any], hydra_context: HydraContext, config: DictConfig) -> None:
        """Keep what a plan is made from."""
        self.settings, self.loader, self.config = settings, hydra_context.config_loader, config
        self.whitelist = hydra_context.execution_whitelist
        self.directions = self._directions()
        self.named: set[str] = set()
        """Keys that the command line names."""

    def plan(self, arguments: Sequence[str]) -> tuple[Plan, dict[str, str]]:
        """What is to be searched, and the identity of its study; everything is checked that can be.

        Args:
            arguments: The overrides of the command line that are not Hydra's own.

        Raises:
            InputError: for whatever could not be searched.
        """
        given = self.settings
        self._check_numbers()
        self.named = {key_of(argument.partition("=")[0]) for argument in arguments}
        space, fixed, deletions = self._space(arguments)
        sampler, pruner = dict(given["sampler"]), dict(given["pruner"])
        points = None
        if sampler["_target_"] == "optuna.samplers.GridSampler":
            if given["enqueue"]:
                raise InputError("hydra.sweeper.enqueue has no place in a grid, which goes through all of its points")
            try:
                points = math.prod(len(values) for values in grid(space).values())
            except ValueError as error:
                raise InputError(f"hydra/sweeper/sampler=grid: {error}") from error

        self.branches = [overrides(branch, fixed, deletions) for branch in space.branches(self._is_group)]
        composed = self._compose_branches(space, fixed, deletions)
        has_seed = type(composed.get("seed")) is int and all(parameter.key != "seed" for parameter in space.parameters)
        if given["repeats"] > 1 and not has_seed:
            raise InputError("hydra.sweeper.repeats gives each repeat a seed of its own: seed must be a whole number")
        facts = identity(space, self.directions, self._shared(composed, space, fixed))
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
            deletions=deletions,
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

    def _space(self, arguments: Sequence[str]) -> tuple[Space, dict[str, str], list[str]]:
        """The parameters, the overrides and the deletions of a command: of two for the same key the later one holds."""
        everywhere: dict[str, Parameter] = {}
        fixed: dict[str, str] = {}
        deletions: list[str] = []
        sometimes = list(read_when(self.settings["when"] or {}, self.loader))

        def hold(name: str, domain: BaseDistribution | str) -> None:
            key = key_of(name)
            everywhere.pop(key, None)
            for known in [known for known in fixed if key_of(known) == key]:
                del fixed[known]
            if isinstance(domain, str):
                fixed[name] = domain
            else:
                everywhere[key] = Parameter(name, domain)

        replaced: dict[str, tuple[str, BaseDistribution | str]] = {}
        of_params = [f"{key}={value}" for key, value in (self.settings["params"] or {}).items()]
        for override in [*of_params, *arguments]:
            read = parse(override, self.loader)
            deletions += [] if read else [override]
            for name, domain in read.items():
                key = key_of(name)
                if override in arguments and any(p.key == key for p in sometimes) and key not in everywhere:
                    sometimes = [dataclasses.replace(p, domain=domain) if p.key == key else p for p in sometimes]
                    replaced[key] = name, domain
                else:
                    hold(name, domain)
        declared = {parameter.key for parameter in sometimes}
        narrowed = set(self.named)
        while True:  # what one round drops, the conditions of others may be on
            left = self._resolved(sometimes, everywhere, fixed, deletions, declared, narrowed)
            gone = Counter(p.key for p in sometimes) - Counter(p.key for p in left)
            narrowed |= set(gone)  # with some of its branches, a key may have lost some of its values
            settled, sometimes = not gone, left
            # An override of a key none of whose branches is left is one like any other.
            for key in [key for key in replaced if all(p.key != key for p in sometimes)]:
                hold(*replaced.pop(key))
                settled = False
            if settled:
                break
        parameters = [*everywhere.values(), *sometimes]
        self._check_options(parameters)
        return Space(parameters), fixed, deletions

    def _resolved(
        self,
        sometimes: Sequence[Parameter],
        everywhere: Mapping[str, Parameter],
        fixed: Mapping[str, str],
        deletions: Sequence[str],
        declared: set[str],
        narrowed: set[str],
    ) -> list[Parameter]:
        """Conditional parameters without the conditions on what is not searched, and without those that cannot be.

        Args:
            sometimes: The conditional parameters.
            everywhere: The others by key.
            fixed: What is not searched.
            deletions: Keys that are deleted.
            declared: Keys that ``when`` has named: where their branches are gone, the configuration may lack them.
            narrowed: Keys of which the command line has left fewer values, perhaps not all of a condition.
        """
        searched = {*everywhere, *(parameter.key for parameter in sometimes)}
        some = {p.name: any_value(p.domain) for p in everywhere.values() if not isinstance(p.domain, str)}

        @functools.cache
        def composed() -> DictConfig:
            try:
                return self._composed(fixed, deletions)
            except ConfigCompositionException:  # what is fixed may exist only with what is searched
                return self._composed(fixed, deletions, some)

        def holds(condition: Condition) -> bool:
            try:
                value = self._default(condition.parent, composed())
            except InputError:
                if condition.parent in declared:
                    return False
                raise
            self._require_options(condition.parent, condition.values)
            return condition.holds({condition.parent: value})

        def possible(condition: Condition) -> Condition | None:
            """A condition on what is searched with the values that it may have on this command line."""
            if condition.parent not in narrowed:
                return condition
            self._require_options(condition.parent, condition.values)
            parents = [p for p in (*everywhere.values(), *sometimes) if p.key == condition.parent]
            values = tuple(value for value in condition.values if any(p.can_be(value) for p in parents))
            return Condition(condition.parent, values) if values else None

        resolved = []
        for parameter in sometimes:
            left = [possible(condition) for condition in parameter.when if condition.parent in searched]
            kept = tuple(condition for condition in left if condition is not None)
            if len(kept) == len(left) and all(holds(c) for c in parameter.when if c.parent not in searched):
                resolved.append(dataclasses.replace(parameter, when=kept))
        return resolved

    def _composed(
        self, fixed: Mapping[str, str], deletions: Sequence[str], params: Mapping[str, Any] | None = None
    ) -> DictConfig:
        return self.loader.load_sweep_config(self.config, overrides(params or {}, fixed, deletions))

    def _default(self, key: str, composed: DictConfig) -> Any:
        """What a key or the choice of a group is where it is not searched."""
        if self._is_group(key):
            return OmegaConf.select(composed.hydra.runtime.choices, key)
        settings = settings_of(composed)
        if key not in settings:
            raise InputError(f"the configuration has no {key}{did_you_mean(key, settings)}")
        value = OmegaConf.select(composed, key)
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    def _is_group(self, key: str) -> bool:
        return bool(self.loader.get_group_options(key))

    def _check_options(self, parameters: Sequence[Parameter]) -> None:
        """Look whether what a group is chosen from is there."""
        for parameter in parameters:
            if isinstance(parameter.domain, CategoricalDistribution):
                self._require_options(parameter.key, parameter.domain.choices)

    def _require_options(self, group: str, choices: Sequence[Any]) -> None:
        options = self.loader.get_group_options(group)
        for choice in choices:
            if options and isinstance(choice, str) and "," not in choice and choice not in (*options, "null"):
                raise InputError(f"{group}={choice} is none of its options: {', '.join(options)}")

    def _compose_branches(self, space: Space, fixed: Mapping[str, str], deletions: Sequence[str]) -> DictConfig:
        """Compose a trial of each branch, so that a key that does not exist there is found now; gives the first."""
        first = None
        for branch in self.branches:
            try:
                composed = self.loader.load_sweep_config(self.config, branch)
            except ConfigCompositionException as error:
                self._explain(error, branch, space)
                raise
            first = composed if first is None else first
        assert first is not None
        return first

    def _explain(self, error: Exception, branch: Sequence[str], space: Space) -> None:
        """Raise an error that names the key that a branch does not have, if there is one."""
        groups = [override for override in branch if self._is_group(key_of(override.split("=")[0]))]
        try:
            known = settings_of(self.loader.load_sweep_config(self.config, groups))
        except ConfigCompositionException:
            return
        tables = {key.rpartition(".")[0] for key in known}
        for parameter in space.parameters:
            key = parameter.key.lstrip("~")
            exists = key in known or key in tables or self._is_group(key)
            named = any(override.partition("=")[0] == start_of(parameter.name) for override in branch)
            if named and not exists and not parameter.name.startswith("+"):
                where = f" with {' '.join(groups)}" if groups else ""
                hint = "" if parameter.when else f" (a key that exists only sometimes is searched under {WHEN})"
                meant = did_you_mean(key, {*known, *tables})
                raise InputError(f"the configuration{where} has no {key}{meant}{hint}") from error

    def default_of(self, plan: Plan) -> Callable[[str], Any]:
        """Tells what a key is in the configuration as it is, without anything that is searched."""

        @functools.cache
        def composed() -> DictConfig | InputError:
            try:
                return self._composed(plan.fixed, plan.deletions)
            except ConfigCompositionException as error:
                return InputError(f"the defaults do not go with what is fixed: {one_line(error)}")

        def default_of(key: str) -> Any:
            defaults = composed()
            if isinstance(defaults, InputError):
                raise defaults
            return self._default(key, defaults)

        return default_of

    def _shared(self, composed: DictConfig, space: Space, fixed: Mapping[str, str]) -> dict[str, Any]:
        """What all trials have in common: the configuration of any of them, but for what is searched."""
        searched = tuple(p.key.lstrip("~").replace("/", ".") for p in space.parameters)
        shared = {
            name: value
            for name, value in settings_of(composed).items()
            if not any(name == key or name.startswith(f"{key}.") for key in searched)
        }
        if self.settings["custom_search_space"] is not None:
            shared["custom_search_space"] = self.settings["custom_search_space"]
        if self.settings["repeats"] > 1:
            shared["repeats"] = self.settings["repeats"]
        return {**shared, **{name.lstrip("+"): value for name, value in fixed.items()}}

    def _set_folder(self, study_name: str) -> Path:
        """Make ``hydra.sweep.dir`` the study's, where it would be a new one for each command, and give it."""
        raw = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        assert isinstance(raw, dict)
        if "${now:" in raw["dir"]:
            name = re.sub(r"[^\w.+-]", "_", study_name)
            with read_write(self.config.hydra), open_dict(self.config.hydra):
                self.config.hydra.sweep.dir = raw["dir"][: raw["dir"].index("${now:")] + name
        folder = Path(self.config.hydra.sweep.dir).absolute()
        with read_write(self.config.hydra), open_dict(self.config.hydra):
            self.config.hydra.sweep.dir = str(folder)
            # Each trial is composed from these.
            quoted = QuotedString(str(folder), Quote.single).with_quotes()
            self.config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted}")
        return folder


def settings_of(config: DictConfig) -> dict[str, Any]:
    """A task's settings by dotted key, unresolved."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return flatten({key: value for key, value in plain.items() if key != "hydra"})
