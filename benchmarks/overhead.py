"""What a run costs outside training and evaluation, with everything logged: the first in a process, and later ones.

    python benchmarks/overhead.py

Each cause is timed by wrapping the function that stands for it; the rest is what has no name. For scale, a job of a
Hydra app of two lines: what no task under Hydra can be faster than on the machine at hand.
"""

import contextlib
import io
import itertools
import json
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import hydra._internal.core_plugins.basic_launcher
import hydra.core.utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from table import arguments, report

from iolaus.classifier.run.config import project_root
from iolaus.sweep import worker

BARE = """
import time, hydra
@hydra.main()
def main(cfg): print(time.perf_counter())
main()
"""

spent: dict[str, float] = defaultdict(float)


def timed(cause: str, owner: Any, name: str) -> None:
    """Replace a function by one that adds its seconds to `spent`."""
    function = getattr(owner, name)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[cause] += time.perf_counter() - start

    setattr(owner, name, wrapper)


def imports() -> None:
    """Import what a run needs, one after the other, and instrument it."""
    # the first optimizer imports torch._dynamo, the first exported model the rest of torch's compiler
    for module in (
        "torch",
        "torch._dynamo",
        "mlflow",
        "mlflow.pytorch",
        "iolaus.classifier.run.pictures",
        "iolaus.tracking.mlflow_tracker",
    ):
        start = time.perf_counter()
        __import__(module)
        spent[f"import {module}"] = time.perf_counter() - start
    from iolaus.classifier.data import dataset
    from iolaus.classifier.run import pictures
    from iolaus.classifier.training import checkpoint, loop
    from iolaus.system import provenance
    from iolaus.tracking import mlflow_tracker

    run = mlflow_tracker._MLflowRun
    for cause, owner, name in [
        ("Hydra: compose", ConfigLoaderImpl, "load_sweep_config"),
        ("data from the cache", dataset, "load"),
        ("MLflow: open the store, start the run, params", mlflow_tracker.MLflowTracker, "_start"),
        ("MLflow: record the data set", run, "log_data"),
        ("MLflow: metrics of each epoch", run, "log_epochs"),
        ("MLflow: metrics at the end", run, "log_metrics"),
        ("MLflow: artifacts", run, "log_file"),
        ("MLflow: the model (torch.export)", run, "log_model"),
        ("checkpoint of each epoch", checkpoint, "save_state"),
        ("model.pt", checkpoint, "save_model"),
        ("pictures", pictures, "of_run"),
        ("git and versions", provenance, "tags"),
    ]:
        timed(cause, owner, name)
    # validation is in fit_s already: only what fit does not call is evaluation on test
    infer, fit = loop.infer, loop.fit
    timed("evaluation on test", loop, "infer")
    on_test = loop.infer

    def fit_untimed(*args: Any, **kwargs: Any) -> Any:
        loop.infer = infer
        try:
            return fit(*args, **kwargs)
        finally:
            loop.infer = on_test

    loop.fit = fit_untimed


def runs_in_turn(runner: Any, folder: Path, count: int, *overrides: str) -> list[dict[str, float]]:
    """Seconds by cause of each job of one multirun, all in this process; what goes before the first is its own.

    Args:
        runner: The module that runs the jobs.
        folder: Of the multirun.
        count: Of its jobs.
        overrides: Of its command line.
    """
    folder.mkdir()
    jobs: list[dict[str, float]] = []
    end = start = time.perf_counter()
    imported = sum(spent.values())  # 0 after the first call
    run_job = hydra.core.utils.run_job

    def recorded(*args: Any, **kwargs: Any) -> Any:
        nonlocal end
        returned = run_job(*args, **kwargs)
        now = time.perf_counter()
        output = folder / str(len(jobs))
        results = json.loads((output / "metrics.json").read_text())
        evaluated = spent.pop("evaluation on test", 0.0)  # a trial sees no test image
        total = now - end + (imported if not jobs else 0.0)
        outside = total - results["fit_s"] - evaluated
        rest = outside - sum(spent.values())
        jobs.append({"all outside training and evaluation": outside, **spent, "Hydra: folders, logs; the rest": rest})
        spent.clear()
        end = time.perf_counter()
        return returned

    vars(runner)["run_job"] = recorded
    sys.argv = [
        "src/train.py",
        "-m",
        *overrides,
        *("data=mnist", "model=mlp", "epochs=2"),
        *(
            f"tracking.uri=sqlite:///{folder}/mlflow.db",
            f"tracking.artifacts={folder}/mlruns",
            f"hydra.sweep.dir={folder}",
        ),
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(str(project_root() / "src" / "train.py"), run_name="__main__")
    vars(runner)["run_job"] = run_job
    assert len(jobs) == count, f"only {len(jobs)} of {count} runs ended, after {time.perf_counter() - start:.0f} s"
    return jobs


def bare_job_s(folder: Path, count: int) -> float:
    """Median seconds from one job to the next of a multirun that does nothing."""
    app = folder / "bare.py"
    app.write_text(BARE)
    command = [sys.executable, str(app), "-m", f"+seed=range({count + 1})", f"hydra.sweep.dir={folder}/bare"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    times = [float(line) for line in printed.splitlines() if line.replace(".", "").isdigit()]
    return statistics.median(after - before for before, after in itertools.pairwise(times))


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__, rounds=5)
    imports()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bare_s = bare_job_s(folder, options.rounds)
        count = options.rounds + 1
        launcher = hydra._internal.core_plugins.basic_launcher
        runs = runs_in_turn(launcher, folder / "runs", count, f"seed=range({count})")
        settings = {"n_trials": count, "n_jobs": 1, "direction": "maximize"}
        search = ["hydra/sweeper=iolaus", *(f"hydra.sweeper.{key}={value}" for key, value in settings.items())]
        trials = runs_in_turn(worker, folder / "trials", count, *search, "seed=range(0,1000)")
    rows: list[tuple[str, ...]] = [
        ("seconds", "first run", "later runs, median", "slowest", "trials of a search, median", "slowest")
    ]
    for cause, first in runs[0].items():
        columns = [f"{first:.2f}"]
        for jobs in (runs, trials):
            later = [job.get(cause, 0.0) for job in jobs[1:]]
            columns += [f"{statistics.median(later):.3f}", f"{max(later):.3f}"]
        rows.append((cause, *columns))
    rows.append(("for scale: a job of a bare Hydra app", "", f"{bare_s:.3f}", "", "", ""))
    title = f"Outside training and evaluation, data=mnist model=mlp epochs=2, {options.rounds} later runs"
    report(title, rows, {"runs": runs, "trials": trials, "bare_job_s": bare_s}, options.json)


if __name__ == "__main__":
    main()
