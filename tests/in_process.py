"""Sweeps of a small Hydra app in this process, one worker, as from a shell."""

import logging
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Outcome
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from optuna.study import Study
from optuna.trial import FrozenTrial

from iolaus.study.storage import open_storage


class Sweep:
    """Commands of a small app, run in this process."""

    def __init__(self, folder: Path, run: Callable[..., Outcome], app: str, conf: Mapping[str, str]) -> None:
        self.folder, self._run = folder, run
        (folder / "app.py").write_text(app)
        for name, text in conf.items():
            (folder / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "conf" / name).write_text(text)

    def __call__(self, *arguments: str, n_trials: int | None = 2) -> Outcome:
        given = {argument.split("=")[0] for argument in arguments}
        defaults = {"hydra/launcher": "basic", "hydra.sweep.dir": "study", "hydra.sweeper.study_name": "study"}
        defaults |= {"hydra.sweeper.report": "false"}
        defaults |= {"hydra.sweeper.n_trials": str(n_trials)} if n_trials is not None else {}
        return self._run(*(f"{key}={value}" for key, value in defaults.items() if key not in given), *arguments)

    def launched_by_default(self, *arguments: str, n_trials: int) -> Outcome:
        return self._run(
            "hydra.sweep.dir=study", "hydra.sweeper.study_name=study", f"hydra.sweeper.n_trials={n_trials}", *arguments
        )

    def refused(self, *arguments: str, n_trials: int | None = 2) -> str:
        outcome = self(*arguments, n_trials=n_trials)
        assert outcome.code == 1, outcome.out
        assert "Traceback" not in outcome.err
        return outcome.err.strip()

    def study(self, name: str = "study", storage: str = "study/journal.log") -> Study:
        return optuna.load_study(study_name=name, storage=open_storage(storage))

    def trials(self) -> list[FrozenTrial]:
        return self.study().get_trials()

    def config(self, trial: int | str = 0, study: str = "study") -> Any:
        return OmegaConf.load(self.folder / study / str(trial) / ".hydra" / "config.yaml")

    def overrides(self, trial: int = 0) -> list[str]:
        return list(OmegaConf.load(self.folder / "study" / str(trial) / ".hydra" / "overrides.yaml"))

    def results(self, study: str = "study") -> Any:
        return OmegaConf.to_container(OmegaConf.load(self.folder / study / "optimization_results.yaml"))


NewSweep = Callable[[str, Mapping[str, str]], Sweep]


@pytest.fixture
def new_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[NewSweep]:
    """Make an app of this source and these configurations, and sweep it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["app.py", "-m", *arguments])
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path("app.py", run_name="__main__")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err, tmp_path / "study")

    yield lambda app, conf: Sweep(tmp_path, run, app, conf)
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    sys.modules.pop("app", None)
    for handler in set(root.handlers) - set(before):
        root.removeHandler(handler)
        handler.close()
    for handler in set(before) - set(root.handlers):
        root.addHandler(handler)
    root.setLevel(level)
