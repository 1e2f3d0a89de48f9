"""Known settings that a search tries first, before those that the sampler proposes."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from iolaus.errors import InputError, did_you_mean, is_number
from iolaus.optuna_internals import contains
from iolaus.search_space.keys import key_of
from iolaus.search_space.overrides import as_element, equal, readable
from iolaus.search_space.space import Parameter, Space

log = logging.getLogger(__name__)

ENQUEUE = "hydra.sweeper.enqueue"


def known_settings(
    given: Sequence[Any],
    space: Space,
    default_of: Callable[[str], Any],
    fixed: Mapping[str, str],
    named: Collection[str],
) -> list[dict[str, Any]]:
    """Return the settings of ``hydra.sweeper.enqueue`` as parameters.

    Args:
        given: Mappings of keys to values, and ``defaults``, which stands for the values of the configuration.
        space: The search space.
        default_of: Returns the value of a key in the configuration.
        fixed: Overrides that all trials share, by key element.
        named: Keys that the command line names: a mapping that contradicts one of them is left out with a warning.

    Raises:
        InputError: for a key that is not searched, or a value that is not in its range.
    """
    settings = []
    for one in given:
        try:
            settings.append(_defaults(space, default_of) if one == "defaults" else _given(space, one, fixed))
        except InputError as error:
            if not isinstance(one, dict) or not any(key_of(key) in named for key in one):
                raise
            log.warning("%s; these settings are left out", error)
    return [params for params in settings if params]


def _defaults(space: Space, default_of: Callable[[str], Any]) -> dict[str, Any]:
    """Return the values of the configuration; one that is not in its range is left to the sampler."""
    outside, said = object(), set[str]()

    def default(name: str, domain: BaseDistribution) -> Any:
        try:
            return _in_range(key_of(name), domain, False if name.startswith("~") else default_of(key_of(name)))
        except InputError as error:
            if str(error) not in said:
                said.add(str(error))
                log.warning("%s; among the defaults it is chosen by the sampler", error)
            return outside

    chosen = space.choose(default)
    return {name: chosen[name] for name in space.distributions if chosen.get(name, outside) is not outside}


def _given(space: Space, given: Any, fixed: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of one mapping, with the parents that its conditional keys need."""
    if not isinstance(given, dict):
        raise InputError(f"{ENQUEUE} must list defaults and mappings of keys to values, but got {given}")
    keys = {parameter.key for parameter in space.searched}
    constants = {p.key: p.domain for p in space.parameters if isinstance(p.domain, str) and p.key not in keys}
    settled = {**constants, **{key_of(name): text for name, text in fixed.items()}}
    for key, value in given.items():
        if key_of(key) in settled and not equal(value, settled[key_of(key)]):
            raise InputError(f"{ENQUEUE}: {key} is {settled[key_of(key)]}, not {as_element(value)}")
        if key_of(key) not in keys and key_of(key) not in settled:
            raise InputError(f"{ENQUEUE}: {key} is not searched{did_you_mean(key_of(key), keys)}")
    values = {key_of(key): value for key, value in given.items() if key_of(key) not in settled}
    params: dict[str, Any] = {}
    left = list(values)
    while left:
        parameter = _only_one(space, left.pop(0), values)
        assert not isinstance(parameter.domain, str)
        params[parameter.name] = _in_range(parameter.key, parameter.domain, values[parameter.key])
        for condition in parameter.when:
            if condition.parent in values:
                continue
            # An inner condition, or that of a key that comes later, may leave one value only.
            also = [*parameter.when, *(c for key in left for c in _only_one(space, key, values).when)]
            also = [other for other in also if other.parent == condition.parent]
            possible = [value for value in condition.values if all(c.holds({c.parent: value}) for c in also)]
            if len(possible) != 1:
                raise InputError(f"{ENQUEUE}: {parameter.key} exists only when {condition}: say which")
            values[condition.parent] = possible[0]
            if condition.parent in keys:
                left.append(condition.parent)
    return params


def _only_one(space: Space, key: str, values: Mapping[str, Any]) -> Parameter:
    """Return the parameter of a key, which may have several ranges, in the branch that the other values choose."""
    every = [parameter for parameter in space.searched if parameter.key == key]
    fitting = [p for p in every if all(c.parent not in values or c.holds(values) for c in p.when)]
    if not fitting:
        broken = [c for c in every[0].when if c.parent in values and not c.holds(values)]
        where = " or when ".join(" and ".join(map(str, p.when)) for p in every)
        others = ", ".join(as_element(values[condition.parent]) for condition in broken)
        raise InputError(f"{ENQUEUE}: {key} exists only when {where}, not with {others}")
    if len({parameter.name for parameter in fitting}) == 1 < len(fitting):  # the same range in each of them
        return dataclasses.replace(fitting[0], when=())
    if len(fitting) > 1:
        where = " or when ".join(" and ".join(map(str, p.when)) for p in fitting)
        raise InputError(f"{ENQUEUE}: {key} has a range of its own when {where}: say which")
    return fitting[0]


def _in_range(key: str, domain: BaseDistribution, value: Any) -> Any:
    """Return a value in the type of its range.

    Raises:
        InputError: if it is not in the range.
    """
    if isinstance(domain, CategoricalDistribution):
        alike = [choice for choice in domain.choices if equal(choice, value)]
        if alike:
            return next((choice for choice in alike if as_element(choice) == as_element(value)), alike[0])
    elif (
        is_number(value)
        and contains(domain, float(value))
        and (isinstance(domain, FloatDistribution) or value == int(value))
    ):
        return float(value) if isinstance(domain, FloatDistribution) else int(value)
    raise InputError(f"{ENQUEUE}: {key}={as_element(value)} is not in its range: {readable(domain)}")
