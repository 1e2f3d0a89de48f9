"""The search space: parameters with their ranges, of which some exist only where others have certain values."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Transformer
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from iolaus.errors import InputError, one_line
from iolaus.optuna_internals import contains
from iolaus.search_space.keys import BRANCH, key_element, key_of
from iolaus.search_space.overrides import any_value, as_element, element, equal, parse, readable

WHEN = "hydra.sweeper.when"


@dataclass(frozen=True)
class Condition:
    """A condition on a parameter: it has one of some values, as in ``optimizer=sgd`` or ``optimizer=adam,adamw``."""

    parent: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        """Return the condition as it is written in ``hydra.sweeper.when``."""
        return f"{self.parent}={','.join(map(element, self.values))}"

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Return whether it holds for chosen values by key; a parameter that does not exist has none."""
        return self.parent in chosen and any(equal(chosen[self.parent], value) for value in self.values)


@dataclass(frozen=True)
class Parameter:
    """A key that is searched, or that has a value of its own where its conditions hold."""

    name: str
    """Its name in Optuna: the key element of its override. It begins with ``+`` where the key is added, and with ``~``
    if the choice is whether to delete the key. If the key has another range in another branch, its own branch follows
    (`BRANCH`)."""
    domain: BaseDistribution | str
    """The range that its value is chosen from, or a text: the value of an override, which is not chosen."""
    when: tuple[Condition, ...] = ()

    @property
    def key(self) -> str:
        """Its name in conditions."""
        return key_of(self.name)

    def can_be(self, value: Any) -> bool:
        """Return whether it may have a value."""
        if isinstance(self.domain, str):
            return equal(value, self.domain)
        if isinstance(self.domain, CategoricalDistribution):
            return any(equal(value, choice) for choice in self.domain.choices)
        try:
            return contains(self.domain, self.domain.to_internal_repr(value))
        except (TypeError, ValueError):
            return False


class Space:
    """The parameters of a search, parents first.

    A key that has a range of its own in each of several branches is a parameter of its own in each of them, since
    Optuna keeps one range for a name.

    Args:
        parameters: In any order.

    Raises:
        InputError: if conditions form a cycle, name what their parent cannot be, or give a key two ranges at once, or
            if a parameter can never exist.
    """

    def __init__(self, parameters: Iterable[Parameter] = ()) -> None:
        """Check and sort the parameters, and name those of one key differently."""
        self.parameters = _parents_first(list(parameters))
        for parameter in self.parameters:
            for condition in parameter.when:
                self._check(condition)
        for number, one in enumerate(self.parameters):
            for other in self.parameters[:number]:
                if one.key == other.key and not _exclude_each_other(one.when, other.when):
                    raise InputError(f"{one.key} has two ranges at once: under {_under(other)} and under {_under(one)}")
            if next(self._assignments(one.when, {}), None) is None:
                raise InputError(f"{one.key} can never exist: {_under(one)} its conditions exclude each other")
        ranges: dict[str, list[BaseDistribution | str]] = {}
        for parameter in self.searched:
            ranges.setdefault(parameter.key, []).append(parameter.domain)
        several = {key for key, domains in ranges.items() if any(domain != domains[0] for domain in domains)}
        self.parameters = [
            dataclasses.replace(p, name=f"{p.name}{BRANCH}{' and '.join(map(str, p.when))}") if p.key in several else p
            for p in self.parameters
        ]

    def __bool__(self) -> bool:
        """Return whether anything is searched."""
        return any(not isinstance(parameter.domain, str) for parameter in self.parameters)

    @property
    def is_conditional(self) -> bool:
        """True if trials may differ in which parameters they have."""
        return any(parameter.when for parameter in self.searched)

    @property
    def searched(self) -> list[Parameter]:
        """The parameters that have a range."""
        return [parameter for parameter in self.parameters if not isinstance(parameter.domain, str)]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The ranges by the names of the parameters."""
        return {p.name: p.domain for p in self.parameters if not isinstance(p.domain, str)}

    def choose(self, choose: Callable[[str, BaseDistribution], Any]) -> dict[str, Any]:
        """Choose a value for each parameter that exists.

        Args:
            choose: Returns a value for the name of a parameter and its range.

        Returns:
            The values by name; for parameters without a range they are texts.
        """
        chosen: dict[str, Any] = {}
        by_key: dict[str, Any] = {}
        for parameter in self.parameters:
            if all(condition.holds(by_key) for condition in parameter.when):
                domain = parameter.domain
                chosen[parameter.name] = domain if isinstance(domain, str) else choose(parameter.name, domain)
                by_key[parameter.key] = chosen[parameter.name]
        return chosen

    def branches(self, is_group: Callable[[str], bool]) -> list[dict[str, Any]]:
        """Return assignments that together cover all that may decide which keys a configuration has.

        Each parameter exists under each of the values that its conditions name. Each option of a parent and of a group
        is chosen once, and each option of a group for every parameter that lies in the group.

        Args:
            is_group: Returns whether a key is a config group, whose options differ in their keys.
        """
        parents = {condition.parent for parameter in self.parameters for condition in parameter.when}
        branches: list[dict[str, Any]] = []
        for parameter in self.parameters:
            wishes: list[tuple[tuple[Condition, ...], dict[str, Any]]] = [(parameter.when, {})]
            for condition in parameter.when:
                wishes += [(parameter.when, {condition.parent: value}) for value in condition.values[1:]]
            for other in self.parameters:
                if not isinstance(other.domain, CategoricalDistribution):
                    continue
                lies_in = is_group(other.key) and parameter.key.startswith(f"{other.key.replace('/', '.')}.")
                decides = other.key in parents or is_group(other.key) or other.key.startswith("~")
                if lies_in or (other is parameter and decides):
                    both = tuple(dict.fromkeys((*parameter.when, *other.when)))
                    wishes += [(both, {other.key: choice}) for choice in other.domain.choices]
            for when, wish in wishes:
                required = next(self._assignments(when, wish), None)
                if required is None:  # the parameter does not exist with this option
                    continue
                branch = self.choose(
                    lambda name, domain, wanted=required: wanted.get(key_of(name), any_value(domain))  # type: ignore[misc]
                )
                # A parameter that does not differ from group to group is the same everywhere.
                if branch not in branches:
                    branches.append(branch)
        return branches or [{}]

    def _assignments(self, when: Sequence[Condition], given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield values of parents, the given ones among them, for which conditions hold and the parents exist."""
        if not when:
            yield dict(given)
            return
        condition, *others = when
        known = condition.parent in given
        for value in [given[condition.parent]] if known else condition.values:
            if not condition.holds({condition.parent: value}):
                continue
            for parent in self.parameters:
                if parent.key == condition.parent and parent.can_be(value):
                    for values in self._assignments(parent.when, {**given, condition.parent: value}):
                        yield from self._assignments(others, values)

    def _check(self, condition: Condition) -> None:
        parents = [parameter for parameter in self.parameters if parameter.key == condition.parent]
        for value in condition.values:
            if not any(parent.can_be(value) for parent in parents):
                ranges = "; ".join(readable(parent.domain) for parent in parents)
                raise InputError(
                    f"{WHEN} names {condition.parent}={element(value)}, which it cannot be: it is searched in {ranges}"
                )
        if any(isinstance(p.domain, FloatDistribution) and p.domain.step is None for p in parents):
            raise InputError(f"{WHEN} names values of {condition.parent}, which is searched in a continuous range")

    def facts(self) -> dict[str, str]:
        """Return the ranges in words, by names that include their branches."""
        facts = {}
        for parameter in self.parameters:
            where = f"{BRANCH}{' and '.join(map(str, parameter.when))}" if parameter.when else ""
            domain = parameter.domain
            facts[f"{key_element(parameter.name)}{where}"] = domain if isinstance(domain, str) else readable(domain)
        return facts

    def tree(self) -> Iterator[str]:
        """Yield the space in lines, each branch under its condition."""
        width = max(
            (len(key_element(parameter.name)) + 2 * len(parameter.when) for parameter in self.parameters), default=0
        )
        yield from self._tree((), width)

    def _tree(self, above: tuple[Condition, ...], width: int) -> Iterator[str]:
        indent, depth = "  " * len(above), len(above)
        for parameter in self.parameters:
            if parameter.when == above:
                yield f"{indent}{key_element(parameter.name).ljust(width - 2 * depth)}  {readable(parameter.domain)}"
        below = [p.when[: depth + 1] for p in self.parameters if len(p.when) > depth and p.when[:depth] == above]
        for branch in dict.fromkeys(below):
            yield f"{indent}when {branch[-1]}"
            yield from self._tree(branch, width)


def _parents_first(parameters: list[Parameter]) -> list[Parameter]:
    """Sort parameters so that parents come first; otherwise they keep their order."""
    keys = {parameter.key for parameter in parameters}
    ordered: list[Parameter] = []
    left = parameters
    while left:
        waiting = {parameter.key for parameter in left}
        ready = [p for p in left if not any(condition.parent in waiting for condition in p.when)]
        if not ready:
            circle = "; ".join(f"{p.key} exists only {_under(p)}" for p in left)
            raise InputError(f"{WHEN} has a cycle: {circle}")
        ordered += ready
        left = [p for p in left if p not in ready]
    missing = {c.parent for p in parameters for c in p.when} - keys
    assert not missing, missing
    return ordered


def _exclude_each_other(one: Sequence[Condition], other: Sequence[Condition]) -> bool:
    return any(
        a.parent == b.parent and not any(equal(x, y) for x in a.values for y in b.values) for a in one for b in other
    )


def _under(parameter: Parameter) -> str:
    return f"when {' and '.join(map(str, parameter.when))}" if parameter.when else "all conditions"


def read_when(tree: Any, config_loader: ConfigLoader, above: tuple[Condition, ...] = ()) -> Iterator[Parameter]:
    """Yield the parameters of ``hydra.sweeper.when``.

    Args:
        tree: Conditions, each with what exists under it: keys with their ranges or values, and further conditions.
        config_loader: Knows the options of a group.
        above: The conditions around it.

    Raises:
        InputError: if it cannot be parsed.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{WHEN} must map conditions such as optimizer=sgd to keys with ranges, but got {tree}")
    for name, value in tree.items():
        parent, equals, values = str(name).partition("=")
        if not equals:
            if not above:
                raise InputError(f"{WHEN} must begin with a condition such as optimizer=sgd, but got {name}")
            if isinstance(value, dict):
                raise InputError(f"{WHEN}.{name} must be a range or a value, or be a condition such as {name}=VALUE")
            text = value if isinstance(value, str) else as_element(value)
            for key, domain in parse(f"{name}={text}", config_loader).items():
                yield Parameter(key, domain, above)
            continue
        if not isinstance(value, dict):
            raise InputError(f"{WHEN}.{name} must map keys to their ranges, but got {value}")
        condition = Condition(key_of(parent.strip()), _values(parent, values))
        yield from read_when(value, config_loader, (*above, condition))


def _values(parent: str, values: str) -> tuple[Any, ...]:
    """Return the values that a condition names: one, or several with commas."""
    try:
        (parsed,) = OverridesParser.create().parse_overrides([f"{parent}={values}"])
        if parsed.is_sweep_override():
            if not parsed.is_choice_sweep():
                raise InputError(f"{WHEN}: {parent}={values} must name values, not a range")
            return tuple(parsed.sweep_iterator(transformer=Transformer.encode))
        value = parsed.value()
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (value if is_number else parsed.get_value_element_as_str(),)
    except (ValueError, HydraException) as error:
        raise InputError(f"{WHEN}: {parent}={values} cannot be parsed as a condition: {one_line(error)}") from error
