"""What is searched: parameters with their ranges, of which some exist only where others have certain values."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Transformer
from hydra.errors import HydraException
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from optuna.distributions import BaseDistribution, CategoricalDistribution

from iolaus.errors import InputError
from iolaus.overrides import any_value, as_element, element, key_of, one_line, parse, readable

WHEN = "hydra.sweeper.when"


@dataclass(frozen=True)
class Condition:
    """That a parameter has one of some values: ``optimizer=sgd`` or ``optimizer=adam,adamw``."""

    parent: str
    values: tuple[Any, ...]

    def __str__(self) -> str:
        """The condition as it is written."""
        return f"{self.parent}={','.join(map(element, self.values))}"

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it is fulfilled; what does not exist has no value."""
        return self.parent in chosen and as_element(chosen[self.parent]) in map(element, self.values)


@dataclass(frozen=True)
class Parameter:
    """A key that is searched, or that has a value of its own where its conditions hold."""

    name: str
    """As an override begins, which may be with ``+``; with ``~`` the choice is whether to delete the key."""
    domain: BaseDistribution | str
    """What its value is chosen from; a text is an override's value that is not chosen."""
    when: tuple[Condition, ...] = ()

    @property
    def key(self) -> str:
        """What conditions call it."""
        return key_of(self.name)

    def can_be(self, value: Any) -> bool:
        """Whether it may have a value."""
        if isinstance(self.domain, str):
            return element(value) == self.domain
        if isinstance(self.domain, CategoricalDistribution):
            return element(value) in map(element, self.domain.choices)
        try:
            return bool(self.domain._contains(self.domain.to_internal_repr(value)))
        except (TypeError, ValueError):
            return False


class Space:
    """All parameters, parents first.

    Args:
        parameters: In any order.

    Raises:
        InputError: if conditions form a cycle, name what their parent cannot be, or give a key two ranges at once.
    """

    def __init__(self, parameters: Iterable[Parameter] = ()) -> None:
        """Check and sort the parameters."""
        self.parameters = _parents_first(list(parameters))
        for parameter in self.parameters:
            for condition in parameter.when:
                self._check(condition)
        for number, one in enumerate(self.parameters):
            for other in self.parameters[:number]:
                if one.key == other.key and not _exclude_each_other(one.when, other.when):
                    raise InputError(f"{one.key} has two ranges at once: under {_under(other)} and under {_under(one)}")

    def __bool__(self) -> bool:
        """Whether anything is searched."""
        return any(not isinstance(parameter.domain, str) for parameter in self.parameters)

    @property
    def is_conditional(self) -> bool:
        """Whether trials may differ in what they have parameters for."""
        return any(parameter.when for parameter in self.searched)

    @property
    def searched(self) -> list[Parameter]:
        """Those that have a range."""
        return [parameter for parameter in self.parameters if not isinstance(parameter.domain, str)]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The range of each parameter by name, of those that have several the last."""
        return {p.name: p.domain for p in self.parameters if not isinstance(p.domain, str)}

    def choose(self, choose: Callable[[str, BaseDistribution], Any]) -> dict[str, Any]:
        """Give each parameter that exists its value.

        Args:
            choose: Is asked for a value of a parameter in its range.

        Returns:
            The values by name; those of parameters that are not chosen are texts.
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
        """Assignments in which each parameter exists once, and each option of a group and of a parent is chosen once.

        Args:
            is_group: Whether a key is a config group, whose options differ in what keys there are.
        """
        parents = {condition.parent for parameter in self.parameters for condition in parameter.when}
        found: list[dict[str, Any]] = []
        for parameter in self.parameters:
            wanted = [self._required(parameter.when)]
            if isinstance(parameter.domain, CategoricalDistribution) and (
                parameter.key in parents or is_group(parameter.key)
            ):
                wanted = [{**wanted[0], parameter.key: choice} for choice in parameter.domain.choices]
            for wish in wanted:
                branch = self.choose(lambda name, domain, wish=wish: wish.get(key_of(name), any_value(domain)))  # type: ignore[misc]
                # A parameter that does not differ from group to group is the same everywhere.
                if branch not in found:
                    found.append(branch)
        return found or [{}]

    def _required(self, when: Sequence[Condition]) -> dict[str, Any]:
        """Values of parents under which conditions hold, and those under which the parents exist."""
        values: dict[str, Any] = {}
        for condition in when:
            for parent in self.parameters:
                fitting = [value for value in condition.values if parent.can_be(value)]
                if parent.key == condition.parent and fitting:
                    values |= {**self._required(parent.when), condition.parent: fitting[0]}
                    break
        return values

    def _check(self, condition: Condition) -> None:
        parents = [parameter for parameter in self.parameters if parameter.key == condition.parent]
        for value in condition.values:
            if not any(parent.can_be(value) for parent in parents):
                ranges = "; ".join(readable(parent.domain) for parent in parents)
                raise InputError(
                    f"{WHEN} names {condition.parent}={element(value)}, which it cannot be: it is searched in {ranges}"
                )

    def facts(self) -> dict[str, str]:
        """What the space is, by names that tell branches apart."""
        return {
            " when ".join([parameter.name, *(" and ".join(map(str, parameter.when)),) * bool(parameter.when)]): (
                parameter.domain if isinstance(parameter.domain, str) else readable(parameter.domain)
            )
            for parameter in self.parameters
        }

    def tree(self) -> Iterator[str]:
        """The space in lines, each branch under its condition."""
        width = max((len(parameter.name) + 2 * len(parameter.when) for parameter in self.parameters), default=0)
        yield from self._tree((), width)

    def _tree(self, above: tuple[Condition, ...], width: int) -> Iterator[str]:
        indent, depth = "  " * len(above), len(above)
        for parameter in self.parameters:
            if parameter.when == above:
                yield f"{indent}{parameter.name.ljust(width - 2 * depth)}  {readable(parameter.domain)}"
        below = [p.when[: depth + 1] for p in self.parameters if len(p.when) > depth and p.when[:depth] == above]
        for branch in dict.fromkeys(below):
            yield f"{indent}when {branch[-1]}"
            yield from self._tree(branch, width)


def _parents_first(parameters: list[Parameter]) -> list[Parameter]:
    """Sort parameters, as they stand where nothing forbids it."""
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
        a.parent == b.parent and not set(map(element, a.values)) & set(map(element, b.values))
        for a in one
        for b in other
    )


def _under(parameter: Parameter) -> str:
    return f"when {' and '.join(map(str, parameter.when))}" if parameter.when else "all conditions"


def read_when(tree: Any, config_loader: ConfigLoader, above: tuple[Condition, ...] = ()) -> Iterator[Parameter]:
    """Read ``hydra.sweeper.when``.

    Args:
        tree: Conditions with what exists under them: keys with their ranges or values, and further conditions.
        config_loader: Knows the options of a group.
        above: The conditions around it.

    Raises:
        InputError: if it cannot be read.
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
            for key, domain in parse(f"{name}={value}", config_loader).items():
                yield Parameter(key, domain, above)
            continue
        if not isinstance(value, dict):
            raise InputError(f"{WHEN}.{name} must map keys to their ranges, but got {value}")
        condition = Condition(key_of(parent.strip()), _values(parent, values))
        yield from read_when(value, config_loader, (*above, condition))


def _values(parent: str, values: str) -> tuple[Any, ...]:
    """The values that a condition names: one, or several with commas."""
    try:
        (parsed,) = OverridesParser.create().parse_overrides([f"{parent}={values}"])
        if parsed.is_sweep_override():
            if not parsed.is_choice_sweep():
                raise InputError(f"{WHEN}: {parent}={values} must name values, not a range")
            return tuple(parsed.sweep_iterator(transformer=Transformer.encode))
        return (parsed.get_value_element_as_str(),)
    except (ValueError, HydraException) as error:
        raise InputError(f"{WHEN}: {parent}={values} is no condition: {one_line(error)}") from error


def grid(space: Space) -> dict[str, Any]:
    """The values of each parameter that a grid goes through.

    Raises:
        ValueError: for a continuous parameter, or one that exists only sometimes.
    """
    if space.is_conditional:
        raise ValueError(f"a grid goes through all combinations, which do not exist under {WHEN}")
    return {name: OptunaSweeperImpl._to_grid_sampler_choices(domain) for name, domain in space.distributions.items()}
