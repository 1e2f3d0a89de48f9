"""What the tests of searches share: a small Hydra app, commands that sweep it, and what must hold of a study."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from waiting import HANG_S, HOLD, MEET, Started

from iolaus.study.attributes import END, FOLDER, INTERRUPTED, LOST, RETRY_OF, RNG_STREAM, SURPLUS
from iolaus.study.queue import Goals, TrialQueue
from iolaus.study.storage import open_storage
from iolaus.study.trials import losses

ROOT = Path(__file__).parents[1]

APP = """
import os, time
import hydra
from hydra.core.hydra_config import HydraConfig
from waiting import pass_gate

@hydra.main(config_path=None, config_name="config")
def main(cfg):
    folder = HydraConfig.get().runtime.output_dir
    with open(f"{folder}/ran", "a") as file:  # a folder that is written twice has two lines
        file.write(f"{os.getpid()}\\n")
    pass_gate(folder)
    time.sleep(0.05)  # the work of a trial, so that a kill at a random moment may strike it; nothing waits for its end
    return (cfg.x - 2) ** 2

if __name__ == "__main__":
    from hydra.core.config_store import ConfigStore
    ConfigStore.instance().store(name="config", node={"x": 0.0})
    main()
"""


class App:
    """A small Hydra app in a folder, and its sweeps.

    Its task calls `waiting.pass_gate`, so that trials can be made to meet, and can be held.
    """

    def __init__(self, folder: Path, *overrides: str, source: str = APP) -> None:
        self.folder, self.overrides = folder, overrides
        self.study_folder = folder / "study"
        self.storage = str(self.study_folder / "journal.log")
        (folder / "app.py").write_text(source)
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.environment = {**inherited, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}

    def meet(self, count: int) -> None:
        """Have each trial wait until so many have begun: these are then run by as many workers."""
        (self.folder / MEET).write_text(str(count))

    def hold(self, first: str = "0") -> None:
        """Hold trials back, from the one in this folder of the study on, until they may `go`."""
        (self.folder / HOLD).write_text(first)

    def go(self) -> None:
        """Hold trials back no longer."""
        (self.folder / HOLD).unlink()

    def command(self, *overrides: str) -> list[str]:
        fixed = ["hydra/sweeper=iolaus", "x=interval(0.0, 5.0)", f"hydra.sweep.dir={self.study_folder}"]
        seed = ["hydra.sweeper.study_name=study", "hydra.sweeper.sampler.seed=0", "hydra.sweeper.max_failure_rate=1"]
        seed += ["hydra.sweeper.report=false"]
        return [sys.executable, "app.py", "-m", *fixed, *seed, *self.overrides, *overrides]

    def start(self, *overrides: str, out: Path | None = None) -> Started:
        """Start a sweep whose output is read from its pipe, or goes to a file."""
        with nullcontext(subprocess.PIPE) if out is None else out.open("w") as stdout:
            return Started(
                self.command(*overrides),
                cwd=self.folder,
                env=self.environment,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def run(self, *overrides: str, code: int = 0) -> str:
        with self.start(*overrides) as process:
            out = process.communicate(timeout=HANG_S)[0]
        assert process.returncode == code, out
        return out

    def search(self, n_trials: int, storage: str | None = None) -> TrialQueue:
        study = optuna.load_study(study_name="study", storage=open_storage(storage or self.storage))
        return TrialQueue(study, Goals(n_trials, 1.0), 0, self.study_folder)

    def trials(self) -> list[FrozenTrial]:
        return self.search(1).study.get_trials()

    def begun(self) -> int:
        """How many trials have come to their task."""
        return len(list(self.study_folder.glob("[0-9]*/ran")))


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def check(app: App, n_trials: int, before: Sequence[FrozenTrial] = ()) -> list[FrozenTrial]:
    """Everything that must hold of a study that has come to its total, whatever happened on the way.

    Args:
        app: With its study.
        n_trials: The total.
        before: The trials as they were at some earlier moment.
    """
    search = app.search(n_trials)
    tally, trials = search.tally(), search.study.get_trials()
    assert tally.counted == n_trials
    assert not tally.pending
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert all(trial.state.is_finished() for trial in trials)

    # Each setting has come to its end once, and no two workers have proposed the same point.
    assert tally.settings == n_trials
    completed = [trial.params["x"] for trial in trials if trial.state == TrialState.COMPLETE]
    assert max(Counter(completed).values()) == 1
    drawn = [
        trial.params["x"] for trial in trials if RNG_STREAM not in trial.system_attrs and FOLDER in trial.user_attrs
    ]
    assert max(Counter(drawn).values()) == 1

    # A folder is its trial's alone, and was written by one process at one time.
    begun = [trial for trial in trials if FOLDER in trial.user_attrs]
    assert [trial.user_attrs[FOLDER] for trial in begun] == [str(trial.number) for trial in begun]
    written = {ran.parent.name: ran.read_text().splitlines() for ran in app.study_folder.glob("*/ran")}
    assert all(len(lines) <= 1 for lines in written.values())
    assert written.keys() <= {trial.user_attrs[FOLDER] for trial in begun}

    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            assert written[trial.user_attrs[FOLDER]]
            assert trial.value == pytest.approx((trial.params["x"] - 2) ** 2)
        else:
            assert trial.state == TrialState.FAIL
            assert trial.system_attrs[END] in (LOST, INTERRUPTED, SURPLUS)
            assert trial.system_attrs[END] != SURPLUS or FOLDER not in trial.user_attrs
    for number in tally.lost:
        takers = [t for t in trials if t.system_attrs.get(RETRY_OF) == number and t.system_attrs.get(END) != SURPLUS]
        assert len(takers) == 1
        if FOLDER in trials[number].user_attrs and FOLDER in takers[0].user_attrs:
            assert takers[0].params == trials[number].params
        assert losses(takers[0]) >= losses(trials[number])

    if "://" not in app.storage:  # the official backend reads the same
        official = JournalStorage(JournalFileBackend(app.storage))
        assert optuna.load_study(study_name="study", storage=official).get_trials() == trials

    for old in before:
        if old.state.is_finished():
            new = trials[old.number]
            assert (new.state, new.values, new.params) == (old.state, old.values, old.params)
            assert new.datetime_complete == old.datetime_complete
    return trials
