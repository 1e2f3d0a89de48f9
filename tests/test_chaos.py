"""Kill -9 at random moments: whatever is killed, the same command comes to exactly the total."""

import random
from pathlib import Path

import pytest
from sweeps import App, check, children, gone, kill, wait_until


def campaign(app: App, kills: int, seed: int, n_trials: int, *overrides: str) -> None:
    """Kill a worker, the parent or all of them, again and again, and check the study after each resume.

    The total grows as the kills go on, so that there is always something to be killed.
    """
    rng = random.Random(seed)
    killed, before = 0, []
    while killed < kills:
        with app.start(f"hydra.sweeper.n_trials={n_trials}", *overrides) as process:
            wait_until(lambda: process.poll() is not None or children(process.pid))
            while process.poll() is None and killed < kills:
                # now and then while all are still starting
                try:
                    process.wait(rng.uniform(0.0, 2.5))
                except Exception:
                    workers = children(process.pid)
                    target = rng.choice(["worker", "parent", "all"])
                    if target == "worker" and workers:
                        kill([rng.choice(workers)])
                        killed += 1
                    elif target != "worker":
                        kill([process.pid, *(workers if target == "all" else [])])
                        killed += 1
                        process.wait()
                        wait_until(lambda: all(gone(worker) for worker in workers), 40)  # noqa: B023
            process.wait()
        if process.returncode == 0:
            before = check(app, n_trials, before)
            n_trials += 20
    app.run(f"hydra.sweeper.n_trials={n_trials}", *overrides)
    check(app, n_trials, before)


def test_ten_kills_of_two_workers_lose_and_repeat_nothing(tmp_path: Path) -> None:
    campaign(App(tmp_path), 10, 0, 30, "hydra.sweeper.n_jobs=2")
