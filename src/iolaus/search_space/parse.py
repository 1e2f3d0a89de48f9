"""The parser of search spaces: it reads a command's overrides, and the keys ``params`` and ``when`` of its sweeper."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution

from iolaus.errors import InputError, did_you_mean, one_line
from iolaus.search_space.compose import Composer, settings_of
from iolaus.search_space.keys import key_of
from iolaus.search_space.overrides import any_value, overrides, parse
from iolaus.search_space.space import Condition, Parameter, Space, read_when


class SpaceParser:
    """The search space of a command, and what it fixes: of two overrides for the same key the later one holds.

    Args:
        settings: The keys of ``hydra.sweeper``, of which ``params`` and ``when`` are read.
        arguments: The overrides of the command line that are not Hydra's own.
        composer: Composes the sweep's trials, and knows the options of groups.

    Raises:
        InputError: for what could not be searched.
    """

    space: Space

    def __init__(self, settings: Mapping[str, Any], arguments: Sequence[str], composer: Composer) -> None:
        """Read the space."""
        self.composer = composer
        self.fixed: dict[str, str] = {}
        """Values by key element."""
        self.deletions: list[str] = []
        """Overrides that begin with a ~."""
        self.named = {key_of(argument) for argument in arguments}
        """Keys that the command line names."""
        self._read(settings, arguments)

    def default_of(self, key: str) -> Any:
        """Return the value of a key in the configuration with no parameters.

        Raises:
            InputError: if it has no such key, or cannot be composed.
        """
        if isinstance(self._defaults, InputError):
            raise self._defaults
        return self._value(key, self._defaults)

    @functools.cached_property
    def _defaults(self) -> DictConfig | InputError:
        try:
            return self._composed()
        except ConfigCompositionException as error:
            return InputError(f"the defaults cannot be combined with what is fixed: {one_line(error)}")

    def _read(self, settings: Mapping[str, Any], arguments: Sequence[str]) -> None:
        unconditional: dict[str, Parameter] = {}
        conditional = list(read_when(settings["when"] or {}, self.composer.loader))

        def hold(name: str, domain: BaseDistribution | str) -> None:
            key = key_of(name)
            unconditional.pop(key, None)
            for known in [known for known in self.fixed if key_of(known) == key]:
                del self.fixed[known]
            if isinstance(domain, str):
                self.fixed[name] = domain
            else:
                unconditional[key] = Parameter(name, domain)

        replaced: dict[str, tuple[str, BaseDistribution | str]] = {}
        of_params = [f"{key}={value}" for key, value in (settings["params"] or {}).items()]
        for override in [*of_params, *arguments]:
            read = parse(override, self.composer.loader)
            self.deletions += [] if read else [override]
            for name, domain in read.items():
                key = key_of(name)
                if override in arguments and any(p.key == key for p in conditional) and key not in unconditional:
                    conditional = [dataclasses.replace(p, domain=domain) if p.key == key else p for p in conditional]
                    replaced[key] = name, domain
                else:
                    hold(name, domain)
        declared = {parameter.key for parameter in conditional}
        narrowed = set(self.named)
        while True:  # what one round drops, the conditions of others may be on
            left = self._resolved(conditional, unconditional, declared, narrowed)
            gone = Counter(p.key for p in conditional) - Counter(p.key for p in left)
            narrowed |= set(gone)  # with some of its branches, a key may have lost some of its values
            settled, conditional = not gone, left
            # An override of a key none of whose branches is left is one like any other.
            for key in [key for key in replaced if all(p.key != key for p in conditional)]:
                hold(*replaced.pop(key))
                settled = False
            if settled:
                break
        parameters = [*unconditional.values(), *conditional]
        self._check_options(parameters)
        self.space = Space(parameters)

    def _resolved(
        self,
        conditional: Sequence[Parameter],
        unconditional: Mapping[str, Parameter],
        declared: set[str],
        narrowed: set[str],
    ) -> list[Parameter]:
        """Return the conditional parameters that can exist, without their conditions on what is not searched.

        Args:
            conditional: The conditional parameters.
            unconditional: The others, by key.
            declared: Keys under ``when``: without their branches, the configuration may lack them.
            narrowed: Keys of which the command line has left fewer values, perhaps not all that a condition names.
        """
        searched = {*unconditional, *(parameter.key for parameter in conditional)}
        some = {p.name: any_value(p.domain) for p in unconditional.values() if not isinstance(p.domain, str)}

        @functools.cache
        def composed() -> DictConfig:
            try:
                return self._composed()
            except ConfigCompositionException:  # what is fixed may exist only with what is searched
                return self._composed(some)

        def holds(condition: Condition) -> bool:
            try:
                value = self._value(condition.parent, composed())
            except InputError:
                if condition.parent in declared:
                    return False
                raise
            self._require_options(condition.parent, condition.values)
            return condition.holds({condition.parent: value})

        def possible(condition: Condition) -> Condition | None:
            """Return a condition on a searched key with those of its values that are left; None if there are none."""
            if condition.parent not in narrowed:
                return condition
            self._require_options(condition.parent, condition.values)
            parents = [p for p in (*unconditional.values(), *conditional) if p.key == condition.parent]
            values = tuple(value for value in condition.values if any(p.can_be(value) for p in parents))
            return Condition(condition.parent, values) if values else None

        resolved = []
        for parameter in conditional:
            left = [possible(condition) for condition in parameter.when if condition.parent in searched]
            conditions = tuple(condition for condition in left if condition is not None)
            if len(conditions) == len(left) and all(holds(c) for c in parameter.when if c.parent not in searched):
                resolved.append(dataclasses.replace(parameter, when=conditions))
        return resolved

    def _composed(self, params: Mapping[str, Any] | None = None) -> DictConfig:
        return self.composer.compose(overrides(params or {}, self.fixed, self.deletions))

    def _value(self, key: str, composed: DictConfig) -> Any:
        """Return the value of a key, or the option of a group, in a composed configuration."""
        if self.composer.is_group(key):
            return OmegaConf.select(composed.hydra.runtime.choices, key)
        settings = settings_of(composed)
        if key not in settings:
            known = {*settings, *map(str, composed.hydra.runtime.choices)}
            raise InputError(f"the configuration has no {key}{did_you_mean(key, known)}")
        value = OmegaConf.select(composed, key)
        return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value

    def _check_options(self, parameters: Sequence[Parameter]) -> None:
        """Refuse options that their groups do not have."""
        for parameter in parameters:
            if isinstance(parameter.domain, CategoricalDistribution):
                self._require_options(parameter.key, parameter.domain.choices)

    def _require_options(self, group: str, choices: Sequence[Any]) -> None:
        options = self.composer.options(group)
        for choice in choices:
            if options and isinstance(choice, str) and "," not in choice and choice not in (*options, "null"):
                raise InputError(f"{group} has no option {choice}; available: {', '.join(options)}")
