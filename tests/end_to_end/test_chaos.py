"""Kill -9 at random moments: whatever is killed, the same command comes to exactly the total."""

import os
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState
from sweeps import App, check, children, gone, kill
from waiting import HANG_S, Started, wait_until

from iolaus.study.attributes import LEASE
from iolaus.study.trials import is_alive


def campaign(
    app: App, kills: int, seed: int, n_trials: int, *overrides: str, commands: int = 1, joblib: bool = False
) -> list[str]:
    """Kill a worker, a parent or all of them, again and again, and check the study after each resume.

    The total grows as the kills go on, so that there is always something to be killed.

    Args:
        app: What is swept.
        kills: In all.
        seed: Of what is killed, and when.
        n_trials: The first total.
        overrides: Of the sweep.
        commands: How many are at work at once.
        joblib: Whether it is joblib that starts the workers. They may outlive the command.

    Returns:
        What the commands printed that were not killed themselves.
    """
    rng = random.Random(seed)
    started: list[Started] = []
    killed, before, printed = 0, [], []
    while killed < kills:
        # Files, because a pipe would be kept open by orphans of joblib.
        outs = [app.folder / f"{killed}-{number}.out" for number in range(commands)]
        processes = [app.start(f"hydra.sweeper.n_trials={n_trials}", *overrides, out=out) for out in outs]
        while any(process.poll() is None for process in processes) and killed < kills:
            victim = rng.choice([process for process in processes if process.poll() is None])
            wait_for_a_moment(app, victim, rng)
            if victim.poll() is None:
                workers = at_work(app) if joblib else children(victim.pid)
                killed += strike(victim, workers, rng.choice(["worker", "parent", "all"]), rng, orphans=joblib)
        for process, out in zip(processes, outs, strict=True):
            if process.wait(HANG_S) >= 0:
                printed.append(out.read_text())
        started += processes
        if all(process.returncode == 0 for process in processes):
            before = check(app, n_trials, before)
            n_trials += 20
    printed.append(app.run(f"hydra.sweeper.n_trials={n_trials}", *overrides))
    check(app, n_trials, before)
    for process in started if joblib else ():  # what a killed command has left idle
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return printed


def wait_for_a_moment(app: App, process: Started, rng: random.Random) -> None:
    """Wait for some more trials to begin, or now and then for a time within which all may still be starting."""
    if rng.random() < 0.3:
        with suppress(subprocess.TimeoutExpired):  # random moments are what is tested, whatever happens in them
            process.wait(rng.uniform(0.0, 2.5))
        return
    count = app.begun() + rng.randint(1, 8)
    wait_until(lambda: process.poll() is not None or app.begun() >= count)


def strike(process: Started, workers: list[int], target: str, rng: random.Random, orphans: bool) -> bool:
    """Kill a worker of a sweep, the sweep itself or both; False if there was nothing to kill."""
    if target == "worker":
        kill([rng.choice(workers)] if workers else [])
        return bool(workers)
    kill([process.pid, *(workers if target == "all" else [])])
    process.wait()
    if not orphans or target == "all":
        wait_until(lambda: all(gone(worker) for worker in workers))
    return True


def at_work(app: App) -> list[int]:
    """The processes that run the trials of a study, whoever has started them."""
    if not Path(app.storage).exists():
        return []
    try:
        running = app.search(1).tally().running
    except KeyError:  # the study is about to be made
        return []
    return sorted({trial.system_attrs[LEASE]["pid"] for trial in running if is_alive(trial)})


def clear(printed: list[str]) -> bool:
    return not any("Traceback" in out for out in printed)


def test_ten_kills_of_two_workers_lose_and_repeat_nothing(tmp_path: Path) -> None:
    assert clear(campaign(App(tmp_path), 10, 0, 30, "hydra.sweeper.n_jobs=2"))


def test_kills_of_the_only_worker_lose_and_repeat_nothing(tmp_path: Path) -> None:
    assert clear(campaign(App(tmp_path), 2, 0, 20, "hydra.sweeper.n_jobs=1"))


def test_kills_of_eight_workers_lose_and_repeat_nothing(tmp_path: Path) -> None:
    assert clear(campaign(App(tmp_path), 2, 0, 40, "hydra.sweeper.n_jobs=8"))


def test_kills_lose_and_repeat_nothing_in_a_database(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_jobs=2", f"hydra.sweeper.storage=sqlite:///{tmp_path}/study.db")
    app.storage = f"sqlite:///{tmp_path}/study.db"
    assert clear(campaign(app, 2, 0, 20))


def test_kills_of_two_commands_at_work_on_one_study_lose_and_repeat_nothing(tmp_path: Path) -> None:
    assert clear(campaign(App(tmp_path), 3, 0, 40, "hydra.sweeper.n_jobs=2", commands=2))


def kill_one_of_joblib(app: App) -> str:
    """Start a sweep whose workers joblib runs, kill one of them, and give what the sweep says at its end."""
    app.hold()
    with app.start("hydra.sweeper.n_trials=20", "hydra.sweeper.n_jobs=2", "hydra/launcher=joblib") as process:
        wait_until(lambda: process.poll() is not None or app.begun() == 2)
        workers = at_work(app)
        kill(workers[:1])
        out = process.communicate(timeout=HANG_S)[0]
    assert process.returncode == 1
    wait_until(lambda: all(gone(worker) for worker in workers))
    app.go()
    return out


def test_a_kill_of_one_of_joblib_s_workers_ends_them_all_with_one_line_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    app = App(tmp_path)
    out = kill_one_of_joblib(app)
    assert "error: the workers ended early (" in out
    assert "; the same command goes on" in out
    assert "Traceback" not in out
    before = app.trials()
    n_trials = len(before) + 4
    app.run(f"hydra.sweeper.n_trials={n_trials}", "hydra.sweeper.n_jobs=2", "hydra/launcher=joblib")
    check(app, n_trials, before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one", "two", "eight", "database", "commands", "joblib"])
def test_a_hundred_kills_lose_and_repeat_nothing(tmp_path: Path, kind: str) -> None:
    app, jobs = App(tmp_path), {"one": 1, "eight": 8}.get(kind, 2)
    if kind == "database":
        app.storage = f"sqlite:///{tmp_path}/study.db"
    storage = f"hydra.sweeper.storage={app.storage}"
    commands = 2 if kind == "commands" else 1
    joblib = kind == "joblib"
    overrides = [f"hydra.sweeper.n_jobs={jobs}", storage, *(["hydra/launcher=joblib"] if joblib else [])]
    printed = campaign(app, 21, 1, 30, *overrides, commands=commands, joblib=joblib)
    assert clear(printed)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_sweep_of_one_worker_is_the_same_as_an_uninterrupted_one(
    tmp_path: Path, sampler: str, sent: signal.Signals
) -> None:
    sequences = []
    for name, interruptions in [("whole", 0), ("parts", 3)]:
        (tmp_path / name).mkdir()
        app = App(tmp_path / name, f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.n_trials=15")
        for number in range(interruptions):
            app.hold(str(4 * number + 2))
            with app.start("hydra.sweeper.n_jobs=1") as process:
                wait_until(lambda: process.poll() is not None or app.begun() > 4 * number + 2)  # noqa: B023
                process.send_signal(sent)
                process.communicate(timeout=HANG_S)
            app.go()
        app.run("hydra.sweeper.n_jobs=1")
        trials = check(app, 15)
        assert len(trials) > 15 or not interruptions
        sequences.append([(trial.params, trial.values) for trial in trials if trial.state == TrialState.COMPLETE])
    assert sequences[0] == sequences[1]
