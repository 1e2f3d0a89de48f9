"""Settings that are listed, run over the same seeds and compared with the first of them."""

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
"""What may be asked for."""
NO_PLACE: Mapping[str, Any] = {
    "custom_search_space": None,
    "repeats": 1,
    "timeout_s": None,
    "target": None,
    "patience": None,
    "enqueue": [],
}
"""Keys of ``hydra.sweeper`` that only a search has, with their defaults."""


def read(asked: Any, plan: Plan, composer: Composer, whitelist: Any) -> dict[str, list[str]]:
    """Return the overrides of each setting by name; the first is the command as it is.

    Args:
        asked: What ``hydra.sweeper.variants`` says: lists of overrides by name, or a function that gives them, with the
            arguments of `iolaus.classifier.run.ablation.variants`.
        plan: Of the command.
        composer: Composes the settings.
        whitelist: The targets that the app allows Hydra to call; None if it does not say.

    Raises:
        InputError: if there is nothing to compare, or what is asked for cannot be used.
    """
    sweeper = composer.sweep_config.hydra.sweeper
    for key, default in NO_PLACE.items():
        if sweeper[key] != default:
            raise InputError(
                f"hydra.sweeper.{key} has no place beside hydra.sweeper.variants, which searches for nothing"
            )
    if sweeper.finals.k > 0:
        raise InputError("hydra.sweeper.finals has no place beside hydra.sweeper.variants, which searches for nothing")
    if plan.space:
        searched = ", ".join(parameter.key for parameter in plan.space.parameters)
        raise InputError(f"hydra.sweeper.variants compares settings as they are: {searched} cannot be a range")
    given = plan.overrides({})
    # the search belongs to the command, not to a setting
    composer = composer.on_top_of([override for override in given if key_of(override) == "hparams_search"])
    config = composer.compose(given)
    found = _call(asked, config, composer, whitelist) if isinstance(asked, str) else asked
    _check(found)
    everything, composed = {AS_IT_IS: given}, {AS_IT_IS: _trial_of(config)}
    for name, overrides in found.items():
        try:
            fitted = _fitted(given, overrides, config, composer)
            trial = _trial_of(composer.compose(fitted))
            same = next((other for other, known in composed.items() if known == trial), None)
            if same is not None:
                raise InputError(f"it is the same as «{same}», with whatever seed")
        except Exception as error:  # Hydra's, of any kind
            if not isinstance(asked, str):  # who has typed it wants it
                raise InputError(f"hydra.sweeper.variants: «{name}» cannot be compared: {one_line(error)}") from error
            log.warning("«%s» is left out, it cannot be compared: %s", name, one_line(error))
        else:
            everything[name], composed[name] = fitted, trial
    if len(everything) == 1:
        raise InputError("hydra.sweeper.variants has listed nothing that can be compared: name another function there")
    return everything


def _call(target: str, config: DictConfig, composer: Composer, whitelist: Any) -> Any:
    """Return what a function of the user's lists."""
    allowed = (target,) if whitelist is None else whitelist
    try:
        function = instantiate({"_target_": target, "_partial_": True}, _execution_whitelist_=allowed)
        return function(config, composer)
    except InputError:
        raise
    except Exception as error:  # whatever a function of the user's may raise
        raise InputError(f"hydra.sweeper.variants cannot be used: {one_line(error)}") from error


def _check(found: Any) -> None:
    """Refuse what are no lists of overrides by name."""
    key = "hydra.sweeper.variants"
    require(isinstance(found, Mapping) and len(found) > 0, key, FORM, found)
    for name, overrides in found.items():
        require(isinstance(name, str), f"a name in {key}", "a text that is no number", name)
        require(name != AS_IT_IS, f"a name in {key}", "another than that of the command itself", name)
        listed = isinstance(overrides, Sequence) and not isinstance(overrides, str) and len(overrides) > 0
        require(listed, f"{key}: «{name}»", "a list of overrides such as ['epochs=10']", overrides)
        for override in overrides:
            good = isinstance(override, str) and ("=" in override or override.startswith("~"))
            require(good, f"{key}: «{name}»", "overrides such as epochs=10 or ~key", override)


def _trial_of(config: DictConfig) -> dict[str, Any]:
    """All that a setting is, but for its seed."""
    return {key: value for key, value in settings_of(config).items() if key != SEED}


def _fitted(given: Sequence[str], changed: Sequence[str], config: DictConfig, composer: Composer) -> list[str]:
    """Overrides with some of them changed: another option of a group comes without the keys that only the first had."""
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
    """What an override names inside of a group; empty if it names something else."""
    key = key_of(override)
    return key.removeprefix(f"{group}.") if key.startswith(f"{group}.") else ""


def seeds(r: int, config: DictConfig) -> list[int]:
    """So many seeds, from that of the configuration on.

    Raises:
        InputError: if these are too few, or it has none.
    """
    require(type(r) is int and r >= 2, "hydra.sweeper.seeds", "at least 2, or nothing says how sure a mean is", r)
    first = require_seed(config)
    return list(range(first, first + r))


def compare_settings(
    plan: MultiSeedPlan, study: Study, settings: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> dict[str, Any]:
    """What each setting came to, and by how much it differs from the first, paired by seed; the worst comes first.

    Args:
        plan: Of the runs.
        study: Theirs.
        settings: Overrides by name.
        seeds: With which each was run.

    Raises:
        InputError: if the first came to no value.
    """
    rows = [{"name": name, **row_of(plan, study, setting, seeds)} for name, setting in settings.items()]
    base, others = rows[0], rows[1:]
    if not base["values"]:
        raise InputError(
            f"the command as it is came to no value, so nothing can be compared with it: its tracebacks are in "
            f"{plan.folder}"
        )
    for row in others:
        add_difference(row, base)
        for cost in COSTS:
            known = row[cost] is not None and base[cost] is not None and base[cost] > 0
            row[f"{cost}_ratio"] = row[cost] / base[cost] if known else None
    sign = sign_of(study, 0)
    others.sort(key=lambda row: -sign * row["difference"] if "difference" in row else -math.inf)
    return {"objective": objectives(study)[0], "seeds": list(seeds), "base": base, "rows": others}


def table(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """The rows of a table in words, its head first."""
    objective, base = found["objective"], found["base"]
    yield ["", objective, "difference", "", "parameters", "training time"]
    costs = ["" if base[cost] is None else metric_table.of(cost).shown(base[cost]) for cost in COSTS]
    yield [_name(base), format_mean(base, objective), "", "", *costs]
    for row in found["rows"]:
        if "difference" not in row:
            yield [_name(row), format_mean(row, objective) if row["values"] else "failed", "", "", "", ""]
            continue
        ratios = [row[f"{cost}_ratio"] for cost in COSTS]
        yield [
            _name(row),
            format_mean(row, objective),
            format_difference(row, objective),
            "" if row["significant"] else "not told from zero",
            *("" if ratio is None else f"{ratio:.2f} times" for ratio in ratios),
        ]


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The comparison in words."""
    rows = list(table(found))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    yield f"each with {len(found['seeds'])} seeds, paired by seed; mean ± half the 95 % interval"
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield f"of {len(found['rows'])} comparisons one in twenty is told from zero by chance"


def _name(row: Mapping[str, Any]) -> str:
    """The name of a setting, and how many of its runs failed where others did not."""
    return f"{row['name']} ({row['failed']} failed)" if row["failed"] and row["values"] else str(row["name"])
