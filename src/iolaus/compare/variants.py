"""Variants: listed settings that are run with the same seeds and compared with the first of them."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.study import Study

from iolaus import metric_table
from iolaus.compare.multi_seed import COSTS, SEED, MultiSeedPlan, add_difference, require_seed, row_of
from iolaus.compare.statistics import format_difference, format_mean
from iolaus.errors import InputError, one_line, require
from iolaus.search_space.compose import Composer, settings_of
from iolaus.search_space.keys import key_of
from iolaus.search_space.overrides import replace_overrides
from iolaus.study.plan import Plan
from iolaus.study.trials import objectives, sign_of

log = logging.getLogger(__name__)
AS_IT_IS = "as it is"
FORM = "a function's name, or lists of overrides by name such as {long: ['epochs=10'], wide: ['model.width=64']}"
"""The form of ``hydra.sweeper.variants``."""
SEARCH_ONLY: Mapping[str, Any] = {
    "custom_search_space": None,
    "repeats": 1,
    "timeout_s": None,
    "target": None,
    "patience": None,
    "enqueue": [],
}
"""Keys of ``hydra.sweeper`` that only a search has, with their defaults."""
NO_SEARCH = "variants are compared, not searched"


def read(asked: Any, plan: Plan, composer: Composer, whitelist: Any) -> dict[str, list[str]]:
    """Return the overrides of each setting by name; the first is the command as it is.

    Args:
        asked: The value of ``hydra.sweeper.variants``: lists of overrides by name, or a function that returns them,
            with the arguments of `iolaus.classifier.run.ablation.variants`.
        plan: Of the command.
        composer: Composes the settings.
        whitelist: The targets that the app allows Hydra to call; None if it does not say.

    Raises:
        InputError: if there is nothing to compare, or the value cannot be used.
    """
    sweeper = composer.sweep_config.hydra.sweeper
    for key, default in SEARCH_ONLY.items():
        if sweeper[key] != default:
            raise InputError(f"hydra.sweeper.{key} and hydra.sweeper.variants are mutually exclusive: {NO_SEARCH}")
    if sweeper.finals.k > 0:
        raise InputError(f"hydra.sweeper.finals and hydra.sweeper.variants are mutually exclusive: {NO_SEARCH}")
    if plan.space:
        searched = ", ".join(parameter.key for parameter in plan.space.parameters)
        raise InputError(f"hydra.sweeper.variants compares settings as they are: {searched} cannot be a range")
    given = plan.overrides({})
    # the search belongs to the command, not to a setting
    composer = composer.on_top_of([override for override in given if key_of(override) == "hparams_search"])
    config = composer.compose(given)
    listed = _call(asked, config, composer, whitelist) if isinstance(asked, str) else asked
    _check(listed)
    variants, composed = {AS_IT_IS: given}, {AS_IT_IS: _without_seed(config)}
    for name, overrides in listed.items():
        try:
            fitted = _fitted(given, overrides, config, composer)
            trial = _without_seed(composer.compose(fitted))
            same = next((other for other, known in composed.items() if known == trial), None)
            if same is not None:
                raise InputError(f"it duplicates «{same}» apart from its seed")
        except Exception as error:  # Hydra's, of any kind
            if not isinstance(asked, str):  # who has typed it wants it
                raise InputError(f"hydra.sweeper.variants: «{name}» cannot be compared: {one_line(error)}") from error
            log.warning("«%s» is left out, it cannot be compared: %s", name, one_line(error))
        else:
            variants[name], composed[name] = fitted, trial
    if len(variants) == 1:
        raise InputError("hydra.sweeper.variants has listed nothing that can be compared: name another function there")
    return variants


def _call(target: str, config: DictConfig, composer: Composer, whitelist: Any) -> Any:
    """Return the variants that a function of the user's lists."""
    allowed = (target,) if whitelist is None else whitelist
    try:
        function = instantiate({"_target_": target, "_partial_": True}, _execution_whitelist_=allowed)
        return function(config, composer)
    except InputError:
        raise
    except Exception as error:  # whatever a function of the user's may raise
        raise InputError(f"hydra.sweeper.variants cannot be used: {one_line(error)}") from error


def _check(listed: Any) -> None:
    """Refuse anything but lists of overrides by name."""
    key = "hydra.sweeper.variants"
    require(isinstance(listed, Mapping) and len(listed) > 0, key, FORM, listed)
    for name, overrides in listed.items():
        require(isinstance(name, str), f"a name in {key}", "a text that is no number", name)
        require(name != AS_IT_IS, f"a name in {key}", "another than that of the command itself", name)
        is_list = isinstance(overrides, Sequence) and not isinstance(overrides, str) and len(overrides) > 0
        require(is_list, f"{key}: «{name}»", "a list of overrides such as ['epochs=10']", overrides)
        for override in overrides:
            good = isinstance(override, str) and ("=" in override or override.startswith("~"))
            require(good, f"{key}: «{name}»", "overrides such as epochs=10 or ~key", override)


def _without_seed(config: DictConfig) -> dict[str, Any]:
    """Return the settings of a configuration without its seed."""
    return {key: value for key, value in settings_of(config).items() if key != SEED}


def _fitted(given: Sequence[str], changed: Sequence[str], config: DictConfig, composer: Composer) -> list[str]:
    """Return overrides with some of them changed; another option of a group loses the keys that only the first had."""
    fitting, gone = list(given), []
    for group, _, option in (override.partition("=") for override in changed):
        if not composer.is_group(group) or OmegaConf.select(config, group) is None:
            continue  # a key, or a group such as experiment that changes others
        own = composer.compose([f"{group}={option}"])[group]
        fitting = [o for o in fitting if not _within(o, group) or _within(o, group).split(".")[0] in own]
        composed = composer.compose(replace_overrides(fitting, changed))[group]
        gone += [f"~{group}.{key}" for key in composed if key not in own]
    return [*replace_overrides(fitting, changed), *gone]


def _within(override: str, group: str) -> str:
    """Return the key of an override within a group; empty if it lies elsewhere."""
    key = key_of(override)
    return key.removeprefix(f"{group}.") if key.startswith(f"{group}.") else ""


def seeds(r: int, config: DictConfig) -> list[int]:
    """Return r seeds, from that of the configuration on.

    Raises:
        InputError: if these are too few, or the configuration has no seed.
    """
    require(type(r) is int and r >= 2, "hydra.sweeper.seeds", "at least 2, or means have no intervals", r)
    first = require_seed(config)
    return list(range(first, first + r))


def compare_settings(
    plan: MultiSeedPlan, study: Study, settings: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the results of each setting, and its difference from the first, paired by seed; the worst comes first.

    Args:
        plan: The plan of the runs.
        study: Their study.
        settings: Overrides by name.
        seeds: The seeds that each was run with.

    Raises:
        InputError: if the first has no value.
    """
    rows = [{"name": name, **row_of(plan, study, setting, seeds)} for name, setting in settings.items()]
    base, others = rows[0], rows[1:]
    if not base["values"]:
        raise InputError(
            f"the command as it is has no value that others could be compared with: its tracebacks are in {plan.folder}"
        )
    for row in others:
        add_difference(row, base)
        for cost in COSTS:
            known = row[cost] is not None and base[cost] is not None and base[cost] > 0
            row[f"{cost}_ratio"] = row[cost] / base[cost] if known else None
    sign = sign_of(study, 0)
    others.sort(key=lambda row: -sign * row["difference"] if "difference" in row else -math.inf)
    return {"objective": objectives(study)[0], "seeds": list(seeds), "base": base, "rows": others}


def table(result: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of a table as texts, its head first."""
    objective, base = result["objective"], result["base"]
    yield ["", objective, "difference", "", "parameters", "training time"]
    costs = ["" if base[cost] is None else metric_table.of(cost).shown(base[cost]) for cost in COSTS]
    yield [_name(base), format_mean(base, objective), "", "", *costs]
    for row in result["rows"]:
        if "difference" not in row:
            yield [_name(row), format_mean(row, objective) if row["values"] else "failed", "", "", "", ""]
            continue
        ratios = [row[f"{cost}_ratio"] for cost in COSTS]
        yield [
            _name(row),
            format_mean(row, objective),
            format_difference(row, objective),
            "" if row["significant"] else "not significant",
            *("" if ratio is None else f"{ratio:.2f} times" for ratio in ratios),
        ]


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the comparison in lines."""
    rows = list(table(result))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    yield f"each with {len(result['seeds'])} seeds, paired by seed; mean ± half the 95 % interval"
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield f"of {len(result['rows'])} comparisons one in twenty is significant by chance"


def _name(row: Mapping[str, Any]) -> str:
    """Return the name of a setting, with the number of its failed runs where others did not fail."""
    return f"{row['name']} ({row['failed']} failed)" if row["failed"] and row["values"] else str(row["name"])
