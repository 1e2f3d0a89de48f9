"""Overrides as texts: ranges are read from them, and values are written so that Hydra reads the same values again."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, Transformer, ValueType
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from iolaus.errors import InputError, one_line
from iolaus.optuna_internals import parse_override
from iolaus.search_space.keys import key_element, key_of

NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?")


def parse(override: str, config_loader: ConfigLoader | None = None) -> dict[str, BaseDistribution | str]:
    """Return the range that an override searches, or the text that it sets, by its key element.

    It is read as the official sweeper reads it, with three exceptions: shuffled choices are sorted, since they would be
    another space in each command; ``glob(...)`` is allowed; and ``~key=choice(true,false)`` searches for whether to
    delete a key.

    Args:
        override: Of a key in ``hydra.sweeper.params``, or of the command line.
        config_loader: Knows the options of a group, for ``glob(...)``.

    Returns:
        One entry; none for a deletion.

    Raises:
        InputError: if it cannot be parsed.
    """
    try:
        (parsed,) = OverridesParser.create(config_loader).parse_overrides([override])
        choices: list[Any] = []
        if parsed.is_delete() and parsed.is_choice_sweep():
            choices = list(parsed.sweep_iterator(transformer=Transformer.encode))
            if sorted(map(str, choices)) != ["False", "True"]:
                raise InputError(f"{override} must be true,false: whether to delete the key")
            return {f"~{parsed.get_key_element().lstrip('~')}": CategoricalDistribution(choices)}
        if parsed.value_type == ValueType.GLOB_CHOICE_SWEEP:
            choices = list(parsed.sweep_iterator())
            if not choices:
                raise InputError(f"{override} matches no option of this group")
        elif parsed.is_discrete_sweep() and getattr(parsed.value(), "shuffle", False):
            choices = list(parsed.sweep_iterator(transformer=Transformer.encode))
            choices.sort(key=lambda choice: (isinstance(choice, str), choice))
        if choices:
            return {parsed.get_key_element(): CategoricalDistribution(choices)}
        searched, fixed = parse_override(override)
        for distribution in searched.values():
            kinds = {isinstance(choice, bool) for choice in getattr(distribution, "choices", ()) if choice in (0, 1)}
            if len(kinds) > 1:
                raise ValueError("Optuna takes true for 1 and false for 0: search either numbers or truth values")
        return {**searched, **fixed}
    except InputError:
        raise
    except (ValueError, NotImplementedError, AssertionError, HydraException) as error:
        raise InputError(f"{override} cannot be parsed as a search space: {one_line(error)}") from error


def any_value(distribution: BaseDistribution) -> Any:
    """Return a value that is sure to be in a distribution: the first choice, or one in the middle."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None and not distribution.log:
        return low + step * (round((high - low) / step) // 2)
    middle = math.sqrt(low * high) if distribution.log else low + (high - low) / 2
    return min(max(round(middle), low), high) if isinstance(distribution, IntDistribution) else middle


def overrides(params: Mapping[str, Any], fixed: Mapping[str, str], deletions: Sequence[str]) -> list[str]:
    """Return the overrides of a trial: those of its parameters, and those that all trials share."""
    deleted = [key_element(name) for name, value in params.items() if name.startswith("~") and value]
    values = {key_element(name): element(value) for name, value in params.items() if not name.startswith("~")}
    return [*(f"{name}={value}" for name, value in {**values, **fixed}.items()), *deleted, *deletions]


def replace_overrides(overrides: Sequence[str], by: Sequence[str]) -> list[str]:
    """Return overrides with others in place of those for the same keys; a ``+`` of the replaced one stays."""
    named = {key_of(override) for override in by}
    others = [override for override in overrides if key_of(override) not in named]
    added = {key_of(override) for override in overrides if override.startswith("+")}
    signs = ["+" if key_of(override) in added else "" for override in by]
    return [
        *others,
        *(f"{sign}{override.lstrip('+')}" if sign else override for sign, override in zip(signs, by, strict=True)),
    ]


def element(value: Any) -> str:
    """Return a parameter's value as it is written in an override.

    A choice that Hydra would read as something other than one value, such as ``"a,b"``, is quoted; others stay as
    they are, since a parsed sweep no longer tells whether ``[1,2]`` was a list or had quotes.
    """
    return _element(value) if isinstance(value, str) else str(value)


def as_element(value: Any) -> str:
    """Return a value from YAML as it is written in an override."""
    if isinstance(value, list):
        return f"[{','.join(map(as_element, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{as_element(item)}' for key, item in value.items())}}}"
    return "null" if value is None else element(value)


@functools.cache
def _element(text: str) -> str:
    with suppress(HydraException):  # what Hydra cannot read is quoted too
        if not OverridesParser.create().parse_override(f"key={text}").is_sweep_override():
            return text
    return QuotedString(text, Quote.single).with_quotes()


def equal(one: Any, other: Any) -> bool:
    """Return whether Hydra reads two values alike: as the same text, number or truth value."""
    texts = as_element(one), as_element(other)
    if texts[0] == texts[1]:
        return True
    if all(text.isdigit() for text in texts):
        return False
    if all(NUMBER.fullmatch(text) for text in texts):  # the steps of a range leave sums such as 0.30000000000000004
        return math.isclose(*map(float, texts), rel_tol=1e-9, abs_tol=1e-15)
    return texts[0].lower() == texts[1].lower() in ("true", "false")


def readable(domain: BaseDistribution | str) -> str:
    """Return a range in words."""
    if isinstance(domain, str):
        return domain
    if isinstance(domain, CategoricalDistribution):
        return " | ".join(map(element, domain.choices))
    assert isinstance(domain, IntDistribution | FloatDistribution)
    step = f" in steps of {domain.step}" if domain.step not in (None, 1) else ""
    kind = ", whole numbers" if isinstance(domain, IntDistribution) and not step else ""
    return f"{domain.low} to {domain.high}{step}{kind}{', logarithmic' if domain.log else ''}"
