"""What each component of a training run is worth: taken out or swapped in turn, over the same seeds."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.study import Study

from iolaus.compare import mean_of, paired
from iolaus.current import RESULTS
from iolaus.errors import InputError, require
from iolaus.finals import in_words, mean_in_words
from iolaus.listed import Listed, ran, require_seed
from iolaus.outcome import objectives, sign_of
from iolaus.overrides import as_element, one_line, replaced
from iolaus.plan import Plan

FOUND = "iolaus:comparison"
"""A user attribute of a study: what its settings came to, as `compared` gives it."""
AS_IT_IS = "as it is"
ACTIVATIONS = ("ReLU", "GELU", "Tanh")
"""Classes of torch.nn, each of which may stand for another."""
POOLINGS = {"MaxPool2d": "AvgPool2d", "AvgPool2d": "MaxPool2d"}

Compose = Callable[[Sequence[str]], DictConfig]
"""Gives the configuration with these overrides in place of those of the command."""


def variants(config: DictConfig, compose: Compose, loader: ConfigLoader) -> dict[str, list[str]]:
    """Each component of a training run removed or swapped, as overrides by name.

    Args:
        config: Of the run as it is.
        compose: Gives the configuration with other overrides than the command's, such as a group's own defaults.
        loader: Knows the options of a group.

    Raises:
        InputError: if the model has no component that we know of.
    """
    found: dict[str, list[str]] = {}
    model = OmegaConf.to_container(config.model, resolve=True)
    assert isinstance(model, dict)
    layers = {name: layer for name, layer in (model.get("layers") or {}).items() if layer is not None}
    if len(layers) > 1:
        found |= {f"without {name}": [f"model.layers.{name}=null"] for name in layers}
    found |= _swapped_layers(layers)
    for key in ("channels", "hidden_sizes"):
        sizes = model.get(key) or []
        for i in range(len(sizes)):
            if key == "hidden_sizes" or len(sizes) > 1:  # a CNN has at least one block
                left = [*sizes[:i], *sizes[i + 1 :]]
                found[f"without model.{key}[{i}]"] = [f"model.{key}={as_element(left)}"]
    for key, off in (("dropout", "0.0"), ("batch_norm", "false")):
        if model.get(key):
            found[f"without {key}"] = [f"model.{key}={off}"]
    if not found:
        raise InputError(
            "this experiment's model has nothing to remove (no layers, channels, hidden_sizes, dropout): list what "
            "is to be compared in a function of your own, and name it as hydra.sweeper.variants"
        )
    if model.get("dropout") == 0.0:
        found["dropout 0.2"] = ["model.dropout=0.2"]
    if "kernel_size" in model:
        other = 5 if model["kernel_size"] == 3 else 3
        found[f"kernel_size {other}"] = [f"model.kernel_size={other}"]
    return found | _training(config, compose, loader)


def _swapped_layers(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """All layers of a kind at once: dropout taken out, pooling and activations swapped for others."""

    def of(*kinds: str) -> list[str]:
        return [name for name, layer in layers.items() if str(layer["_target_"]).rpartition(".")[2] in kinds]

    def swapped(names: Sequence[str], kind: str) -> list[str]:
        return [f"model.layers.{name}._target_=torch.nn.{kind}" for name in names]

    found = {}
    dropouts = of("Dropout", "Dropout2d")
    if len(dropouts) > 1:
        found["without dropout"] = [f"model.layers.{name}=null" for name in dropouts]
    for kind, other in POOLINGS.items():
        if of(kind):
            found[f"{other} for {kind}"] = swapped(of(kind), other)
    for kind in ACTIVATIONS:
        if of(kind):
            others = (other for other in ACTIVATIONS if other != kind)
            found |= {f"{other} for {kind}": swapped(of(kind), other) for other in others}
    return found


def _training(config: DictConfig, compose: Compose, loader: ConfigLoader) -> dict[str, list[str]]:
    """What is not the model's: each other option of a group, and twice and half of a number."""
    found: dict[str, list[str]] = {}
    augmented = config.augment._target_ != compose(["augment=none"]).augment._target_
    for option in loader.get_group_options("augment"):
        if (option == "none") == augmented:
            found["without augmentation" if option == "none" else f"augment {option}"] = [f"augment={option}"]
    usual = compose([f"optimizer={config.hydra.runtime.choices.optimizer}"]).optimizer.lr
    for option in loader.get_group_options("optimizer"):
        there = compose([f"optimizer={option}"]).optimizer
        if there._target_ != config.optimizer._target_:
            # a rate says nothing about another optimizer, but that it is so many times the usual one may
            lr = float(f"{there.lr * config.optimizer.lr / usual:.2g}")
            found[f"optimizer {option}, lr {lr:g}"] = [f"optimizer={option}", f"optimizer.lr={lr}"]
    for option in loader.get_group_options("scheduler"):
        if compose([f"scheduler={option}"]).scheduler._target_ != config.scheduler._target_:
            found[f"scheduler {option}"] = [f"scheduler={option}"]
    for factor in (3, 1 / 3):
        lr = float(f"{config.optimizer.lr * factor:.2g}")
        found[f"lr {lr:g}"] = [f"optimizer.lr={lr}"]
    for epochs in (max(1, config.epochs // 2), 2 * config.epochs):
        if epochs != config.epochs:
            found[f"{epochs} epochs"] = [f"epochs={epochs}"]
    if config.loss.label_smoothing > 0:
        found["without label smoothing"] = ["loss.label_smoothing=0.0"]
    if config.data.get("normalize") is not None:
        found[f"{'without' if config.data.normalize else 'with'} normalisation"] = [
            f"data.normalize={'false' if config.data.normalize else 'true'}"
        ]
    return found


def listed_by(target: str, plan: Plan, context: HydraContext, master: DictConfig) -> dict[str, list[str]]:
    """The overrides of each setting that a function lists, the first of which is the command's own.

    Args:
        target: The function, with the arguments of `variants`.
        plan: Of the command.
        context: Hydra's.
        master: The configuration of the sweep.

    Raises:
        InputError: if there is nothing to compare, or a setting cannot be composed.
    """
    if plan.space:
        searched = ", ".join(parameter.key for parameter in plan.space.parameters)
        raise InputError(f"hydra.sweeper.variants compares settings as they are: {searched} cannot be a range")
    loader, given = context.config_loader, plan.overrides({})

    search = [override for override in given if override.startswith("hparams_search=")]  # of the sweep, not of a run

    def compose(overrides: Sequence[str]) -> DictConfig:
        return loader.load_sweep_config(master, replaced(search, overrides))

    whitelist = (target,) if context.execution_whitelist is None else context.execution_whitelist
    try:
        function = instantiate({"_target_": target, "_partial_": True}, _execution_whitelist_=whitelist)
        found = function(compose(given), compose, loader)
    except InputError:
        raise
    except Exception as error:  # whatever a function of the user's may raise
        raise InputError(f"hydra.sweeper.variants cannot be used: {one_line(error)}") from error
    if not found:
        raise InputError("hydra.sweeper.variants has listed nothing: this experiment has nothing to remove or swap")
    everything = {AS_IT_IS: given, **{name: replaced(given, overrides) for name, overrides in found.items()}}
    for name, overrides in everything.items():
        try:
            compose(overrides)
        except Exception as error:  # Hydra's, of any kind
            raise InputError(f"{name} ({' '.join(overrides)}) cannot be composed: {one_line(error)}") from error
    return everything


def seeds(r: int, config: DictConfig) -> list[int]:
    """So many seeds, from that of the configuration on.

    Raises:
        InputError: if these are too few, or it has none.
    """
    require(type(r) is int and r >= 2, "hydra.sweeper.seeds", "at least 2, or nothing says how sure a mean is", r)
    first = require_seed(config)
    return list(range(first, first + r))


def compared(plan: Listed, study: Study, settings: Mapping[str, Sequence[str]], seeds: Sequence[int]) -> dict[str, Any]:
    """What each setting came to, and by how much it differs from the first, paired by seed; the worst comes first.

    Args:
        plan: Of the runs.
        study: Theirs.
        settings: Overrides by name.
        seeds: With which each was run.

    Raises:
        InputError: if the first came to no value.
    """
    rows = [_row(name, plan, study, overrides, seeds) for name, overrides in settings.items()]
    base, others = rows[0], rows[1:]
    if not base["values"]:
        raise InputError("the setting as it is came to no value, so nothing can be compared with it")
    for row in others:
        if not row["values"]:
            continue
        found = paired(_by_seed(row), _by_seed(base))
        row |= {"difference": found.mean, "difference_interval": found.interval, "p": found.p}
        row["told_apart"] = found.told_apart
        for cost in ("params", "fit_s"):
            row[f"{cost}_ratio"] = row[cost] / base[cost] if row[cost] and base[cost] else None
    sign = sign_of(study, 0)
    others.sort(key=lambda row: -sign * row["difference"] if row["values"] else -math.inf)
    return {"objective": objectives(study)[0], "seeds": list(seeds), "base": base, "rows": others}


def _row(name: str, plan: Listed, study: Study, overrides: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    done = ran(plan, study, overrides, seeds)
    values = {seed: trial.values[0] for seed, trial in done.items()}
    row: dict[str, Any] = {"name": name, "failed": len(seeds) - len(done)}
    row |= {"values": list(values.values()), "seeds": list(values)}
    row |= asdict(mean_of(list(values.values()))) if values else {}
    for cost in ("params", "fit_s"):
        known = [
            trial.user_attrs[RESULTS][cost] for trial in done.values() if cost in trial.user_attrs.get(RESULTS, {})
        ]
        row[cost] = statistics.fmean(known) if known else None
    return row


def table(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """The rows of a table in words, its head first."""
    objective, base = found["objective"], found["base"]
    yield ["", objective, "difference", "", "parameters", "training time"]
    known = base["params"] is not None
    yield [
        base["name"], mean_in_words(base, objective), "", "",
        f"{base['params']:,.0f}" if known else "", f"{base['fit_s']:.1f} s" if known else "",
    ]  # fmt: skip
    for row in found["rows"]:
        if not row["values"]:
            yield [row["name"], "failed", "", "", "", ""]
            continue
        half = "" if row["difference_interval"] is None else f" ± {in_words(row['difference_interval'], objective)}"
        share = [f"{row[key]:.2f} times" if row.get(key) is not None else "" for key in ("params_ratio", "fit_s_ratio")]
        yield [
            f"{row['name']} ({row['failed']} failed)" if row["failed"] else row["name"],
            mean_in_words(row, objective),
            f"{in_words(row['difference'], objective, '+').removesuffix(' %')}{half}",
            "" if row["told_apart"] else "not told from zero",
            *share,
        ]


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The comparison in words."""
    rows = list(table(found))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    yield f"each with {len(found['seeds'])} seeds, paired by seed; mean ± half the 95 % interval"
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield f"of {len(found['rows'])} comparisons one in twenty is told from zero by chance"


def _by_seed(row: Mapping[str, Any]) -> dict[int, float]:
    return dict(zip(row["seeds"], row["values"], strict=True))
