"""The identity of a study: it is opened or made, and checked to be the one that is meant."""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection

from iolaus.errors import InputError, require
from iolaus.search_space.overrides import readable
from iolaus.search_space.space import Space
from iolaus.study.attributes import CHANGES, FORMAT, FORMAT_VERSION, IDENTITY, MADE, OF, PREFIX, SAME, SAMPLER_SEED

Direction = Literal["minimize", "maximize"]


def identity(space: Space, directions: Sequence[str], others: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts that make a study this one and no other: trials that differ in any of them cannot be compared.

    Args:
        space: The search space.
        directions: Of the objectives.
        others: Further facts by name, such as the settings that all trials share.
    """
    facts = {f"space.{name}": domain for name, domain in space.facts().items()}
    return {**facts, "direction": ", ".join(directions), **{name: str(value) for name, value in others.items()}}


def digest(facts: Mapping[str, str]) -> str:
    """Return eight hex digits that stand for an identity."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def open_study(
    storage: BaseStorage,
    name: str,
    directions: Sequence[Direction],
    facts: Mapping[str, str],
    on_mismatch: str,
    space: Space | None = None,
) -> Study:
    """Open a study, or make it where it does not exist.

    Args:
        storage: The storage of the study.
        name: Of the study.
        directions: ``minimize`` or ``maximize`` for each objective.
        facts: Its identity.
        on_mismatch: ``refuse`` a study that was made with another identity, or ``continue`` and record the change.
        space: The space that is to be searched from now on.

    Raises:
        InputError: naming each fact that differs.
    """
    require(on_mismatch in ("refuse", "continue"), "hydra.sweeper.on_mismatch", "refuse or continue", on_mismatch)
    study = optuna.create_study(study_name=name, storage=storage, directions=list(directions), load_if_exists=True)
    attrs = study.user_attrs
    require_format(study)
    known = [direction.name.lower() for direction in study.directions]
    if known != list(directions):
        raise InputError(
            f"study {name} has the direction {', '.join(known)}, not {', '.join(directions)}: use another study_name"
        )
    made_with = attrs.get(IDENTITY)
    _check_compatible(study, space or Space())
    if on_mismatch == "continue":
        for same in [key for key in attrs if key.startswith(SAME)]:
            study.set_user_attr(same, None)
    if made_with is None:
        study.set_user_attr(IDENTITY, dict(facts))
        study.set_user_attr(FORMAT, FORMAT_VERSION)
        study.set_user_attr(MADE, secrets.token_hex(8))
    elif made_with != facts:
        changes = difference(made_with, facts)
        if on_mismatch == "refuse":
            raise InputError(
                f"study {name} was made with other settings: {'; '.join(changes)}. Leave them as they were, use "
                "another study_name, or go on all the same with hydra.sweeper.on_mismatch=continue"
            )
        change = {
            "time": datetime.now().isoformat(timespec="seconds"),
            "from_trial": len(study.trials),
            "what": changes,
        }
        study.set_user_attr(CHANGES, [*attrs.get(CHANGES, []), change])
        study.set_user_attr(IDENTITY, dict(facts))
    return study


def require_format(study: Study) -> None:
    """Refuse a study of another version of Iolaus, whose attributes this one would misunderstand.

    Raises:
        InputError: naming both formats.
    """
    if (made_by := other_version(study)) is not None:
        raise InputError(f"study {study.study_name} was {made_by}: use that version, or another study_name")


def other_version(study: Study) -> str | None:
    """Return in words that another version of Iolaus made a study; None if this version can read it."""
    made_with = study.user_attrs.get(FORMAT, FORMAT_VERSION)
    if made_with == FORMAT_VERSION:
        return None
    age = "a newer" if made_with > FORMAT_VERSION else "an older"
    return f"made by {age} version of Iolaus (its format is {made_with}, this version's {FORMAT_VERSION})"


def _check_compatible(study: Study, space: Space) -> None:
    """Refuse what Optuna would refuse in each trial: within a study, a parameter keeps its choices and its scale."""
    known = {name: domain for trial in study.get_trials(deepcopy=False) for name, domain in trial.distributions.items()}
    for parameter in space.searched:
        name, distribution = parameter.name, parameter.domain
        assert not isinstance(distribution, str)
        if name in known:
            try:
                check_distribution_compatibility(known[name], distribution)
            except ValueError as error:
                raise InputError(
                    f"study {study.study_name} has searched {name} in {readable(known[name])}, which cannot become "
                    f"{readable(distribution)} in the same study: use another study_name"
                ) from error


def directions_of(study: Study) -> list[Direction]:
    """Return the directions of a study's objectives in words."""
    return ["maximize" if direction == StudyDirection.MAXIMIZE else "minimize" for direction in study.directions]


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return each fact that differs, in words."""
    missing = "(absent)"
    return [
        f"{name} was {before.get(name, missing)}, now {now.get(name, missing)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def facts_of_part(study: Study) -> dict[str, str]:
    """Return the identity of a part study: that of the study it belongs to, with the data which that one began with."""
    attrs = study.user_attrs
    same = {name.removeprefix(SAME): str(value) for name, value in attrs.items() if name.startswith(SAME) and value}
    return {"part of": study.study_name, "made": attrs.get(MADE, ""), "identity": digest(attrs[IDENTITY]), **same}


def inherit(part: Study, whole: Study) -> None:
    """Copy what a part study needs to know of the whole: `iolaus.require_same` compares with the data of the whole.

    Attributes that an app has set in the whole get names that begin with `OF`.
    """
    for name, value in whole.user_attrs.items():
        known = name if name.startswith(SAME) else f"{OF}{name}"
        if (name.startswith(SAME) or not name.startswith(PREFIX)) and part.user_attrs.get(known) != value:
            part.set_user_attr(known, value)


def seed_of(study: Study) -> int:
    """Return the sampler's seed of a study that was given none: drawn once, and the same for all of its workers."""
    if SAMPLER_SEED not in study.user_attrs:
        study.set_user_attr(SAMPLER_SEED, secrets.randbelow(2**31))
    return int(study.user_attrs[SAMPLER_SEED])
