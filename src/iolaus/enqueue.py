"""What a search tries first: known settings, put before what the sampler proposes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import Study

from iolaus.errors import InputError, is_number
from iolaus.overrides import as_element, did_you_mean, element, key_of, readable
from iolaus.space import Space

log = logging.getLogger(__name__)

ENQUEUE = "hydra.sweeper.enqueue"
ENQUEUED = "iolaus:enqueued"
"""A user attribute of the study: what has been put before all other trials."""


def enqueue(study: Study, wanted: Sequence[Mapping[str, Any]]) -> None:
    """Put trials with these parameters before all others, each once in the study's life."""
    done = study.user_attrs.get(ENQUEUED, [])
    for params in wanted:
        if params not in done:
            study.enqueue_trial(dict(params))
            done = [*done, params]
            study.set_user_attr(ENQUEUED, done)


def known_settings(given: Sequence[Any], space: Space, default_of: Callable[[str], Any]) -> list[dict[str, Any]]:
    """What ``hydra.sweeper.enqueue`` names, as parameters.

    Args:
        given: Mappings of keys to values, and ``defaults``, which is what the configuration holds.
        space: What is searched.
        default_of: Tells what a key is in the configuration.

    Raises:
        InputError: for a key that is not searched, or a value that is not in its range.
    """
    return [_defaults(space, default_of) if one == "defaults" else _given(space, one) for one in given]


def _defaults(space: Space, default_of: Callable[[str], Any]) -> dict[str, Any]:
    """What the configuration holds; a value that is not in its range is left to the sampler."""
    outside = object()

    def default(name: str, domain: BaseDistribution) -> Any:
        value = False if name.startswith("~") else default_of(key_of(name))
        try:
            return _in_range(name, domain, value)
        except InputError as error:
            log.warning("%s; among the defaults it is chosen by the sampler", error)
            return outside

    chosen = space.choose(default)
    return {name: chosen[name] for name in space.distributions if chosen.get(name, outside) is not outside}


def _given(space: Space, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{ENQUEUE} must list defaults and mappings of keys to values, but got {given}")
    known = {parameter.key: parameter for parameter in space.searched}
    for key in given:
        if key_of(key) not in known:
            raise InputError(f"{ENQUEUE}: {key} is not searched{did_you_mean(key_of(key), known)}")
    values = {key_of(key): value for key, value in given.items()}
    for parameter in space.searched:
        for condition in parameter.when:
            other = values.get(condition.parent)
            exists = other is None or condition.holds({condition.parent: as_element(other)})
            alone = sum(p.key == parameter.key for p in space.searched) == 1
            if parameter.key in values and alone and not exists:
                raise InputError(f"{ENQUEUE}: {parameter.key} exists only when {condition}, not with {other}")
    return {known[key].name: _in_range(key, _domain(space, key, values), value) for key, value in values.items()}


def _domain(space: Space, key: str, values: Mapping[str, Any]) -> BaseDistribution:
    """The range of a key that may have several: of the branch that the other values lead to."""
    texts = {name: as_element(value) for name, value in values.items()}
    fitting = [
        p for p in space.searched if p.key == key and all(c.parent not in texts or c.holds(texts) for c in p.when)
    ]
    assert not isinstance(fitting[0].domain, str)
    return fitting[0].domain


def _in_range(what: str, domain: BaseDistribution, value: Any) -> Any:
    """A value as its range has it.

    Raises:
        InputError: if it is not in it.
    """
    if isinstance(domain, CategoricalDistribution):
        for choice in domain.choices:
            if element(choice) == as_element(value):
                return choice
    elif (
        is_number(value)
        and domain._contains(float(value))
        and (isinstance(domain, FloatDistribution) or value == int(value))
    ):
        return float(value) if isinstance(domain, FloatDistribution) else int(value)
    raise InputError(f"{ENQUEUE}: {what}={as_element(value)} is not in its range: {readable(domain)}")
