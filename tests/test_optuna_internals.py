"""What Optuna does not document is used in one module only, and does what that module says."""

import ast
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from conftest import ROOT
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler

from iolaus import optuna_internals

PACKAGES = ("optuna", "hydra_plugins.hydra_optuna_sweeper")
OTHERS = {"_return_value": "Hydra", "_exit": "os", "_artifact_repos_cache": "MLflow", "_forward_hooks": "PyTorch",
          "_forward_pre_hooks": "PyTorch", "_target_": "a key of configurations"}  # fmt: skip
"""Private attributes used in src/ that are not Optuna's, and whose they are."""


def uses(path: Path) -> Iterator[str]:
    """Give what a module uses of Optuna or of its plugin that is not public."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(module=str(module)) if module.startswith(PACKAGES):
                yield from (name for alias in node.names if "._" in (name := f"{module}.{alias.name}"))
            case ast.Import():
                yield from (
                    alias.name for alias in node.names if alias.name.startswith(PACKAGES) and "._" in alias.name
                )
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if name.startswith("_") and not name.startswith("__") and name not in OTHERS:
                yield ast.unparse(node)
            case ast.Constant(value=str(text)) if text.startswith(("fixed_params", "completed_rung")):
                yield repr(text)


def test_no_other_module_uses_what_optuna_does_not_document() -> None:
    paths = [path for path in (ROOT / "src").rglob("*.py") if path.name != "optuna_internals.py"]
    found = {f"{path.relative_to(ROOT)}: {use}" for path in paths for use in uses(path)}
    assert not found
    assert {"study._storage", "'fixed_params'"} <= set(uses(Path(optuna_internals.__file__)))  # it would be found


@pytest.mark.parametrize("make", [RandomSampler, TPESampler, NSGAIISampler, CmaEsSampler])
def test_a_reseeded_sampler_begins_its_stream_anew(make: type[BaseSampler]) -> None:
    study = optuna.create_study(sampler=make())

    def proposed(seed: int, rng_stream: int) -> list[float]:
        optuna_internals.reseed(study.sampler, seed, rng_stream)
        trial = study.ask()
        return [trial.suggest_float(name, 0, 1) for name in "xy"]

    first = proposed(0, 0)
    assert first != proposed(0, 1)
    assert first != proposed(1, 0)
    assert first == proposed(0, 0)


def test_a_number_is_in_a_range_if_it_lies_on_its_steps() -> None:
    assert optuna_internals.contains(FloatDistribution(0, 1, step=0.25), 0.75)
    assert not optuna_internals.contains(FloatDistribution(0, 1, step=0.25), 0.7)
    assert not optuna_internals.contains(IntDistribution(1, 3), 4)
