"""Samplers and pruners: each can be chosen, and what depends on the choice is found out before any trial."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from conftest import ROOT
from hydra import compose, initialize
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from iolaus.errors import InputError
from iolaus.search_space.space import Condition, Parameter, Space
from iolaus.study.pruners import PRUNERS, check_pruner, make_pruner, prunes, prunes_between_repeats
from iolaus.study.samplers import SAMPLERS, check_sampler, count_points, grid, make_sampler

MODEL = Parameter("model", CategoricalDistribution(["mlp", "cnn"]))
WIDTH = Parameter("width", IntDistribution(1, 3))
ONLY_MLP = Parameter("depth", IntDistribution(1, 2), (Condition("model", ("mlp",)),))
RATE = Parameter("lr", FloatDistribution(0.0, 1.0))


@pytest.fixture
def configured() -> Iterator[Any]:
    """Compose what ``hydra.sweeper`` says of a group's option."""
    with initialize(None):
        yield lambda group, option: OmegaConf.to_container(
            compose(
                overrides=["hydra/sweeper=iolaus", f"hydra/sweeper/{group}={option}"], return_hydra_config=True
            ).hydra.sweeper[group]
        )


def test_hydra_offers_what_stands_in_the_tables(configured: Any) -> None:
    assert {name: configured("pruner", name) for name in PRUNERS} == PRUNERS
    for name, conf in SAMPLERS.items():
        assert configured("sampler", name) == OmegaConf.to_container(OmegaConf.structured(conf))


def test_a_program_that_starts_imports_no_optuna_for_it() -> None:
    code = "import sys, hydra_plugins.iolaus_sweeper; print({'optuna', 'torch', 'mlflow', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("conditional", [True, False])
def test_tpe_samples_in_groups_where_the_space_is_conditional(configured: Any, conditional: bool) -> None:
    sampler: Any = make_sampler(configured("sampler", "tpe"), Space([MODEL, ONLY_MLP if conditional else WIDTH]))
    assert isinstance(sampler, optuna.samplers.TPESampler)
    assert sampler._group is conditional


def test_a_grid_goes_through_all_values(configured: Any) -> None:
    config = configured("sampler", "grid")
    assert grid(Space([MODEL, WIDTH])) == {"model": ("mlp", "cnn"), "width": [1, 2, 3]}
    assert count_points(config, Space([MODEL, WIDTH]), enqueues=False) == 6
    assert isinstance(make_sampler(config, Space([MODEL, WIDTH])), optuna.samplers.GridSampler)
    assert count_points(configured("sampler", "tpe"), Space([MODEL, WIDTH]), enqueues=True) is None


def test_a_grid_needs_a_space_that_has_one(configured: Any) -> None:
    config = configured("sampler", "grid")
    with pytest.raises(InputError, match=r"^hydra/sweeper/sampler=grid: a grid .* do not exist under hydra\.sweeper\."):
        count_points(config, Space([MODEL, ONLY_MLP]), enqueues=False)
    with pytest.raises(InputError, match=r"^hydra/sweeper/sampler=grid: GridSampler only supports"):
        count_points(config, Space([RATE]), enqueues=False)
    with pytest.raises(InputError, match=r"^hydra\.sweeper\.enqueue and .*grid are mutually exclusive: "):
        count_points(config, Space([MODEL]), enqueues=True)


def test_what_a_sampler_imports_late_is_missed_at_once(monkeypatch: pytest.MonkeyPatch, configured: Any) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(InputError, match=r"^hydra\.sweeper\.sampler cannot be used: .*cmaes"):
        check_sampler(configured("sampler", "cmaes"), Space([RATE]))


def test_a_sampler_of_no_known_kind_is_not_made(configured: Any) -> None:
    with pytest.raises(InputError, match=r"^hydra\.sweeper\.sampler cannot be used: .*os\.getcwd"):
        check_sampler({"_target_": "os.getcwd"}, Space([RATE]))


@pytest.mark.parametrize("name", PRUNERS)
def test_each_pruner_of_the_table_can_be_made(name: str) -> None:
    pruner = make_pruner({**PRUNERS[name], **({"upper": 1.0} if name == "threshold" else {})})
    assert prunes(pruner) is (name != "none")
    assert prunes_between_repeats(pruner) is (name == "wilcoxon")


@pytest.mark.parametrize(
    ("name", "repeats", "objectives", "said"),
    [
        ("threshold", 1, 1, r"hydra\.sweeper\.pruner cannot be used: Either lower or upper must be"),
        ("wilcoxon", 1, 1, "hydra/sweeper/pruner=wilcoxon prunes between repeats: set hydra.sweeper.repeats above 1"),
        ("median", 1, 2, "hydra/sweeper/pruner needs one objective"),
    ],
)
def test_a_pruner_that_could_not_work_is_refused(name: str, repeats: int, objectives: int, said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        check_pruner(PRUNERS[name], repeats, objectives)
    check_pruner(PRUNERS["none"], repeats, objectives)
