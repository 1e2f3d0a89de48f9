"""The examples that the official sweeper documents, as commands: the same configurations, on functions of our own.

https://hydra.cc/docs/plugins/optuna_sweeper/ has three: one objective, two of them, and a space that Python extends.
Here each function lies in ``example/``, beside its configuration, and is called by the documented commands.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from sweeps import ROOT
from waiting import HANG_S

from iolaus.study.storage import open_storage

FUNCTION = """
import hydra

@hydra.main(config_path="{folder}", config_name="config")
def objective(cfg):
    {body}

{more}

if __name__ == "__main__":
    objective()
"""

SPHERE = FUNCTION.format(
    folder="sphere-conf",
    body='if cfg.error:\n        raise RuntimeError("asked for")\n    return cfg.x**2 + cfg.y**2',
    more="",
)
SPHERE_CONF = """
defaults: [{override hydra/sweeper: optuna}, {override hydra/sweeper/sampler: tpe}]
hydra:
  sweeper:
    sampler: {seed: 123}
    direction: minimize
    study_name: sphere
    storage: null
    n_trials: 20
    n_jobs: 1
    max_failure_rate: 0.0
    params: {x: 'range(-5.5, 5.5, step=0.5)', y: 'choice(-5 ,0 ,5)'}
x: 1
y: 1
z: 1
error: false
"""

TWO = FUNCTION.format(folder="two-conf", body="return cfg.x**2 + cfg.y**2, (cfg.x - 4)**2 + (cfg.y - 4)**2", more="")
TWO_CONF = """
defaults: [{override hydra/sweeper: optuna}, {override hydra/sweeper/sampler: nsgaii}]
hydra:
  sweeper:
    sampler: {seed: 123}
    direction: [minimize, minimize]
    study_name: multi-objective
    storage: null
    n_trials: 20
    n_jobs: 1
    params: {x: 'range(0, 5, step=0.5)', y: 'range(0, 3, step=0.5)'}
x: 1
y: 1
"""

CUSTOM = FUNCTION.format(
    folder="custom-conf",
    body="return sum(value**2 for value in (cfg.w, cfg.x, cfg.y, cfg.z))",
    more="""
def extend(cfg, trial):
    x, most = trial.params["x"], cfg.max_z_difference_from_x
    trial.suggest_float("z", x - most, x + most)
    trial.suggest_float("+w", 0.0, 1.0)
""",
)
CUSTOM_CONF = """
defaults: [{override hydra/sweeper: optuna}]
hydra:
  sweeper:
    sampler: {seed: 123}
    direction: minimize
    study_name: custom
    storage: null
    n_trials: 20
    n_jobs: 1
    params: {x: 'range(-5.5, 5.5, 0.5)', y: 'choice(-5, 0, 5)'}
    custom_search_space: custom-space.extend
x: 1
y: 1
z: 100
max_z_difference_from_x: 0.5
"""

FILES = {
    "sphere.py": SPHERE,
    "sphere-conf/config.yaml": SPHERE_CONF,
    "two.py": TWO,
    "two-conf/config.yaml": TWO_CONF,
    "custom-space.py": CUSTOM,
    "custom-conf/config.yaml": CUSTOM_CONF,
}


class Examples:
    """A folder with the examples, and the commands that are given in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            path = folder / "example" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def __call__(self, script: str, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, f"example/{script}", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr or code != 0
        return done.stdout + done.stderr

    def trials(self, name: str) -> list[FrozenTrial]:
        storage = open_storage(str(self.folder / "multirun" / name / "journal.log"))
        return optuna.load_study(study_name=name, storage=storage).get_trials()

    def results(self, name: str) -> Any:
        return OmegaConf.to_container(OmegaConf.load(self.folder / "multirun" / name / "optimization_results.yaml"))


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    return Examples(tmp_path)


def test_one_objective_is_searched_in_the_space_of_its_configuration(examples: Examples) -> None:
    out = examples("sphere.py", "--multirun", "hydra.sweeper.report=false")
    trials, results = examples.trials("sphere"), examples.results("sphere")
    assert len(trials) == 20
    assert trials[0].distributions["x"] == FloatDistribution(-5.5, 5.0, step=0.5)
    assert trials[0].distributions["y"] == CategoricalDistribution([-5, 0, 5])
    best = min(trials, key=lambda trial: trial.value or 0.0)
    assert results == {"name": "optuna", "best_params": best.params, "best_value": best.value}
    assert f"best trial {best.number}: {best.value:g}" in out


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ("interval(-5.0, 5.0)", "interval(0, 10)", [FloatDistribution(-5, 5), FloatDistribution(0, 10)]),
        (
            "int(interval(-5.0, 5.0))",
            "tag(log, interval(1, 10))",
            [IntDistribution(-5, 5), FloatDistribution(1, 10, log=True)],
        ),
        (
            "range(-5.0, 5.0)",
            "shuffle(range(-5, 5))",
            [FloatDistribution(-5, 4, step=1), CategoricalDistribution(range(-5, 5))],
        ),
        (
            "choice(-5.0, 0.0, 5.0)",
            "choice(0, 1, 2, 3, 4, 5)",
            [CategoricalDistribution([-5.0, 0.0, 5.0]), CategoricalDistribution(range(6))],
        ),
    ],
)
def test_the_command_line_replaces_the_space(examples: Examples, x: str, y: str, expected: list[object]) -> None:
    examples("sphere.py", "--multirun", f"x={x}", f"y={y}", "hydra.sweeper.n_trials=3", "hydra.sweeper.report=false")
    trials = examples.trials("sphere")
    assert len(trials) == 3
    assert [trials[0].distributions[name] for name in "xy"] == expected


def test_the_settings_of_the_sweeper_can_be_shown(examples: Examples) -> None:
    out = examples("sphere.py", "hydra/sweeper=optuna", "--cfg", "hydra", "-p", "hydra.sweeper")
    shown = OmegaConf.create(out)
    assert shown.sampler == {**shown.sampler, "_target_": "optuna.samplers.TPESampler", "seed": 123}
    assert shown.params == {"x": "range(-5.5, 5.5, step=0.5)", "y": "choice(-5 ,0 ,5)"}
    assert (shown.direction, shown.study_name, shown.n_trials, shown.n_jobs) == ("minimize", "sphere", 20, 1)


def test_a_failure_that_is_not_allowed_for_ends_the_search(examples: Examples) -> None:
    out = examples("sphere.py", "--multirun", "error=true", "hydra.sweeper.report=false", code=1)
    assert "RuntimeError: asked for" in out
    assert "max_failure_rate=0.0" in out


def test_two_objectives_give_their_front(examples: Examples) -> None:
    examples("two.py", "--multirun", "hydra.sweeper.report=false")
    trials, results = examples.trials("multi-objective"), examples.results("multi-objective")
    assert len(trials) == 20
    solutions = [(solution["params"], solution["values"]) for solution in results["solutions"]]
    assert solutions
    for trial in trials:
        beaten = any(
            all(a <= b for a, b in zip(values, trial.values, strict=True)) and values != trial.values
            for _, values in solutions
        )
        assert beaten or (trial.params, trial.values) in solutions


def test_a_space_that_python_extends_depends_on_what_was_chosen(examples: Examples) -> None:
    examples("custom-space.py", "--multirun", "hydra.sweeper.report=false")
    trials = examples.trials("custom")
    assert len(trials) == 20
    for trial in trials:
        assert trial.params.keys() == {"x", "y", "z", "+w"}
        assert abs(trial.params["z"] - trial.params["x"]) <= 0.5
        assert trial.value == pytest.approx(sum(value**2 for value in trial.params.values()))


def test_a_value_that_python_would_search_may_not_be_fixed(examples: Examples) -> None:
    out = examples("custom-space.py", "--multirun", "z=3", "hydra.sweeper.report=false", code=1)
    assert "both fixed and searched for: z" in out
