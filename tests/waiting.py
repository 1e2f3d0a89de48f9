"""Waiting for events: the only place where tests, and the trials that they start, look again and again.

It imports nothing but the standard library, because small apps import it as well.
"""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

HANG_S = 300.0
"""Seconds after which a program is taken for hung, so that a broken one cannot hold up the tests for ever.

No test measures by it: on a busy machine everything may take as long as it likes below that.
"""
MEET, HOLD = "meet", "hold"
"""The files, beside the folder of a study, that hold its trials back: see `App.meet` and `App.hold`."""


def wait_until(holds: Callable[[], object]) -> None:
    """Wait until a function gives something true."""
    end = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)  # files and processes of others tell nobody that they have changed


class Started(subprocess.Popen[str]):
    """A program that does not outlive its context, which would otherwise wait for one that hangs."""

    def __exit__(self, *error: Any) -> None:
        self.kill()
        super().__exit__(*error)


def pass_gate(output_dir: str) -> None:
    """Keep a trial waiting until it has met those that its test wants at work at once, and while the test holds it.

    Args:
        output_dir: Its folder: ``study/3``, or ``study/finals/3`` in a part of a study.
    """
    trial = Path(output_dir)
    study = next(folder for folder in trial.parents if folder.name == "study")
    wait_until(lambda: _has_met(trial, study.parent) and not _is_held(trial.relative_to(study), study.parent))


def _has_met(trial: Path, gate: Path) -> bool:
    begun = list(trial.parent.glob("[0-9]*/.hydra"))  # which Hydra makes before it calls the task
    return not (gate / MEET).exists() or len(begun) >= int((gate / MEET).read_text())


def _is_held(trial: Path, gate: Path) -> bool:
    with suppress(FileNotFoundError):  # the test has just let it go
        first = Path((gate / HOLD).read_text())
        return trial.parent == first.parent and int(trial.name) >= int(first.name)
    return False
