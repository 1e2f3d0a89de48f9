import inspect
from pathlib import Path

import optuna
import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import UNSAFE_DISABLE_EXECUTION_CHECKS, instantiate
from omegaconf import OmegaConf

from iolaus.classifier.models import build, cnn, mlp
from iolaus.classifier.run import config
from iolaus.classifier.training import loop, step

FOUND = sorted(path for path in (ROOT / "conf").rglob("*.yaml") if path.parent != ROOT / "conf")
FILES = [path for path in FOUND if ROOT / "conf" / "hydra" not in path.parents]


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}/{path.stem}" for path in FILES])
def test_every_file_composes_and_its_parts_can_be_made(path: Path, tmp_path: Path) -> None:
    config.register()
    group, name = path.parent.name, path.stem
    with initialize_config_dir(str(ROOT / "conf")):
        extra = [f"data.root={tmp_path}"] if name == "folder" else []
        cfg = compose("config", [f"{group}={name}", f"root={tmp_path}", *extra])
    config.check(cfg)
    made = {
        key: instantiate(
            cfg[key],
            _convert_="all",
            _execution_whitelist_=UNSAFE_DISABLE_EXECUTION_CHECKS,
            **({"_partial_": True} if key in ("data", "model") else {}),
        )
        for key in ("data", "augment", "model", "optimizer", "scheduler", "tracking")
    }
    model = build.build(made["model"], (1, 28, 28), 10)
    assert step.uncapturable(model) == []
    optimizer = loop.make_optimizer(made["optimizer"], model.parameters())
    schedule, _ = loop.make_scheduler(made["scheduler"], optimizer, 10)
    optimizer.step()
    schedule.step()
    assert made["augment"](torch.zeros(2, 1, 28, 28)).shape == (2, 1, 28, 28)
    assert callable(made["data"])
    assert hasattr(made["tracking"], "run")


@pytest.mark.parametrize("path", [path for path in FOUND if path not in FILES], ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_sampler_and_pruner_of_ours_can_be_made(path: Path) -> None:
    config.register()
    kind = path.parent.name
    with initialize_config_dir(str(ROOT / "conf")):
        overrides = ["hydra/sweeper=iolaus", f"hydra/sweeper/{kind}={path.stem}"]
        cfg = compose("config", overrides, return_hydra_config=True)
    made = instantiate(cfg.hydra.sweeper[kind], _execution_whitelist_=(f"optuna.{kind}s.*",))
    assert isinstance(made, {"sampler": optuna.samplers.BaseSampler, "pruner": optuna.pruners.BasePruner}[kind])


@pytest.mark.parametrize("path", FOUND, ids=[f"{path.parent.name}/{path.stem}" for path in FOUND])
def test_every_file_begins_with_the_command_that_uses_it(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# python src/train.py ")
    assert f"{path.parent.name}={path.stem}" in lines[0]


def test_udacity_is_the_network_of_the_62_percent() -> None:
    config.register()
    with initialize_config_dir(str(ROOT / "conf")):
        cfg = compose("config", ["experiment=udacity"])
    make = instantiate(cfg.model, _partial_=True, _execution_whitelist_=UNSAFE_DISABLE_EXECUTION_CHECKS)
    model = build.build(make, (1, 28, 28), 10)
    shapes = [tuple(weight.shape) for weight in model.parameters() if weight.dim() > 1]
    assert shapes == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 3136), (32, 128), (16, 32), (10, 16)]
    assert [layer.p for layer in model if isinstance(layer, torch.nn.Dropout)] == [0.5, 0.5]
    assert (cfg.optimizer._target_, cfg.optimizer.lr) == ("torch.optim.Adam", 0.001)
    assert (cfg.epochs, cfg.data.batch_size, cfg.data.normalize) == (10, 64, False)
    assert OmegaConf.to_container(cfg.scheduler)["_target_"] == "torch.optim.lr_scheduler.ConstantLR"


@pytest.mark.parametrize(("name", "made"), [("mlp", mlp.MLP), ("cnn", cnn.CNN)])
def test_a_models_defaults_in_yaml_are_those_in_python(name: str, made: type) -> None:
    more, settings = (
        OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "model" / f"{option}.yaml"))
        for option in (f"{name}_dropout", name)
    )
    assert isinstance(settings, dict)
    assert isinstance(more, dict)
    more.pop("defaults")
    settings = more | settings  # mlp_dropout has two more
    defaults = {
        key: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for key, parameter in inspect.signature(made).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert {key: value for key, value in settings.items() if key != "_target_"} == defaults
