"""What the tests share: data sets in memory, and the programs run in this process as from a shell."""

import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from waiting import HANG_S, Started

from iolaus.classifier.data import dataset, sources

pytest_plugins = ["in_process"]
ROOT = Path(__file__).parents[1]
# A shell without job control lets what it starts in the background ignore Ctrl-C, and our processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="session")
def digits(digits_root: Path) -> dataset.Data:
    return dataset.load("digits", sources.Digits(), digits_root, batch_size=64, val_size=300, digit_box=8)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    root = Path(os.environ.get("IOLAUS_DATA", ROOT / "data"))
    if not any((root / "MNIST" / "raw").glob("train-images*")):
        pytest.skip("needs the official MNIST files: set IOLAUS_DATA to the folder that holds MNIST/raw")
    return root


@pytest.fixture(scope="session")
def mnist(mnist_root: Path) -> dataset.Data:
    return dataset.load("mnist", sources.Torchvision("MNIST"), mnist_root, batch_size=256, val_size=5000, digit_box=20)


@dataclass
class Outcome:
    """How a program ended."""

    code: int
    out: str
    err: str
    output: Path
    """The run's folder."""

    @property
    def message(self) -> str:
        """The one line of an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Program = Callable[..., Outcome]


def started(folder: Path, digits_root: Path, *overrides: str, tracking: str = "none") -> Started:
    """A run on digits in a process of its own, ended with its context."""
    data = ["data=digits", f"data.root={digits_root}", "model=mlp"]
    command = [sys.executable, "src/train.py", *data, f"tracking={tracking}", f"root={folder}", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return Started(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


HELD = "augment._target_=held.Held"
"""To be repeated when a run is resumed: what code it names is not taken from a file."""


def held_after_epoch(epoch: int, folder: Path) -> list[str]:
    """Overrides with which a run on digits stays in the middle of the epoch that follows, until a file is removed."""
    steps = 18  # of an epoch: 1137 images in batches of 64
    (folder / "hold").touch()
    return ["augment=affine", HELD, f"+augment.file={folder}/hold", f"+augment.batches={steps * epoch + steps // 2}"]


def wait_for(run: Started, beginning: str) -> None:
    """Read what a run prints up to the first line with this beginning."""
    assert run.stdout is not None
    guard = threading.Timer(HANG_S, run.kill)  # a run that hangs never ends what it prints
    guard.start()
    try:
        lines = []
        for line in run.stdout:
            lines.append(line)
            if line.startswith(beginning):
                return
    finally:
        guard.cancel()
    raise AssertionError("".join(lines))


@pytest.fixture
def program(
    tmp_path: Path, digits_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Program]:
    """Run an entry point's main() with arguments: by default on digits, for two epochs, untracked, in a new folder."""
    runs = 0
    previous = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str, entry: str = "train", defaults: bool = True) -> Outcome:
        nonlocal runs
        runs += 1
        output = tmp_path / f"run{runs}"
        small = ["data=digits", f"data.root={digits_root}", "model=mlp", "epochs=2", "tracking=none"]
        given = {argument.split("=")[0] for argument in arguments}
        if "resume" in given:  # brings its own
            small = []
        hydra = [f"hydra.run.dir={output}", f"hydra.sweep.dir={output}", f"root={tmp_path}"]
        arguments = (*(s for s in small if s.split("=")[0] not in given), *hydra, *arguments) if defaults else arguments
        monkeypatch.setattr(sys, "argv", [f"src/{entry}.py", *arguments])
        monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
        capsys.readouterr()
        code = 0
        try:
            runpy.run_path(str(ROOT / "src" / f"{entry}.py"), run_name="__main__")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except Exception as error:
            sys.excepthook(type(error), error, error.__traceback__)
            code = 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err, output)

    yield run
    signal.signal(signal.SIGTERM, previous)
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    for handler in logging.getLogger().handlers[:]:  # Hydra's log files
        if isinstance(handler, logging.FileHandler):
            logging.getLogger().removeHandler(handler)
            handler.close()
