"""An ablation: each component of a training run removed or swapped in turn, to be run over the same seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from iolaus.errors import InputError
from iolaus.search_space.compose import Composer
from iolaus.search_space.overrides import as_element

ACTIVATIONS = ("ReLU", "GELU", "Tanh")
"""Classes of torch.nn, each of which may stand for another."""
POOLINGS = {"MaxPool2d": "AvgPool2d", "AvgPool2d": "MaxPool2d"}


def variants(config: DictConfig, composer: Composer) -> dict[str, list[str]]:
    """Return each component of a training run removed or swapped, as overrides by name.

    Args:
        config: Of the run as it is.
        composer: Composes other overrides than the command's, such as a group's own defaults, and knows its options.

    Raises:
        InputError: if the model has no component that we know of.
    """
    found = removals(config, composer) | _swapped_layers(_layers(config))
    model = config.model
    if model.get("dropout") == 0.0:
        found["dropout 0.2"] = ["model.dropout=0.2"]
    if "kernel_size" in model:
        other = 5 if model.kernel_size == 3 else 3
        found[f"kernel_size {other}"] = [f"model.kernel_size={other}"]
    return found | _training(config, composer)


def removals(config: DictConfig, composer: Composer) -> dict[str, list[str]]:
    """Return each component of the model removed, as overrides by name; arguments and errors as in `variants`."""
    found: dict[str, list[str]] = {}
    model = OmegaConf.to_container(config.model, resolve=True)
    assert isinstance(model, dict)
    layers = _layers(config)
    if len(layers) > 1:
        found |= {f"without {name}": [f"model.layers.{name}=null"] for name in layers}
    dropouts = _of(layers, "Dropout", "Dropout2d")
    if len(dropouts) > 1:
        found["without dropout"] = [f"model.layers.{name}=null" for name in dropouts]
    for key in ("channels", "hidden_sizes"):
        sizes = model.get(key) or []
        for i in range(len(sizes)):
            if key == "hidden_sizes" or len(sizes) > 1:  # a CNN has at least one block
                lists = {key: sizes}
                if key == "channels" and isinstance(model.get("convs"), list):
                    lists["convs"] = model["convs"]  # it has one for each block
                found[f"without model.{key}[{i}]"] = [
                    f"model.{name}={as_element([*items[:i], *items[i + 1 :]])}" for name, items in lists.items()
                ]
    for key, off in (("dropout", "0.0"), ("input_dropout", "0.0"), ("batch_norm", "false")):
        if model.get(key):
            found[f"without {key}"] = [f"model.{key}={off}"]
    if not found:
        raise InputError(
            "this experiment's model has nothing to remove (no layers, channels, hidden_sizes, dropout, batch_norm): "
            "list what is to be compared yourself, as hydra.sweeper.variants (docs/sweeper.md)"
        )
    return found


def _layers(config: DictConfig) -> dict[str, Any]:
    """Return the named layers of ``model=layers`` that are not left out."""
    return {name: layer for name, layer in (config.model.get("layers") or {}).items() if layer is not None}


def _of(layers: Mapping[str, Any], *kinds: str) -> list[str]:
    """Return the names of the layers of these kinds."""
    return [name for name, layer in layers.items() if str(layer["_target_"]).rpartition(".")[2] in kinds]


def _swapped_layers(layers: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return all layers of a kind swapped at once: pooling and activations for others."""

    def swapped(names: Sequence[str], kind: str) -> list[str]:
        return [f"model.layers.{name}._target_=torch.nn.{kind}" for name in names]

    found = {}
    for kind, other in POOLINGS.items():
        if _of(layers, kind):
            found[f"{other} for {kind}"] = swapped(_of(layers, kind), other)
    for kind in ACTIVATIONS:
        if _of(layers, kind):
            others = (other for other in ACTIVATIONS if other != kind)
            found |= {f"{other} for {kind}": swapped(_of(layers, kind), other) for other in others}
    return found


def _training(config: DictConfig, composer: Composer) -> dict[str, list[str]]:
    """Return changes of the training: other options of groups, other rates, half and twice the epochs."""
    found: dict[str, list[str]] = {}
    augmented = config.augment._target_ != composer.compose(["augment=none"]).augment._target_
    for option in composer.options("augment"):
        if (option == "none") == augmented:
            found["without augmentation" if option == "none" else f"augment {option}"] = [f"augment={option}"]
    usual = composer.compose([f"optimizer={config.hydra.runtime.choices.optimizer}"]).optimizer.lr
    for option in composer.options("optimizer"):
        there = composer.compose([f"optimizer={option}"]).optimizer
        if there._target_ != config.optimizer._target_:
            # a rate says nothing about another optimizer, but that it is so many times the usual one may
            lr = float(f"{there.lr * config.optimizer.lr / usual:.2g}")
            found[f"optimizer {option}, lr {lr:g}"] = [f"optimizer={option}", f"optimizer.lr={lr}"]
    for option in composer.options("scheduler"):
        if composer.compose([f"scheduler={option}"]).scheduler._target_ != config.scheduler._target_:
            found[f"scheduler {option}"] = [f"scheduler={option}"]
    for factor in (3, 1 / 3):
        lr = float(f"{config.optimizer.lr * factor:.2g}")
        found[f"lr {lr:g}"] = [f"optimizer.lr={lr}"]
    for epochs in (max(1, config.epochs // 2), 2 * config.epochs):
        if epochs != config.epochs:
            found[f"{epochs} epochs"] = [f"epochs={epochs}"]
    if config.loss.label_smoothing > 0:
        found["without label smoothing"] = ["loss.label_smoothing=0.0"]
    if "normalize" in config.data:
        found[f"{'without' if config.data.normalize else 'with'} normalisation"] = [
            f"data.normalize={'false' if config.data.normalize else 'true'}"
        ]
    return found
