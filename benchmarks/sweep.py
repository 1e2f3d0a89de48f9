"""What the sweep engine itself costs, and how busy it keeps its workers.

    python benchmarks/sweep.py                 # all of it, in about ten minutes
    python benchmarks/sweep.py trial uneven    # some of it

trial   a trial that does nothing, against a job of Hydra's BasicSweeper; and one that records a run in MLflow
busy    80 trials that sleep 5 s, 8 workers, from the first claim to the last tell, against 80 x 5 s / 8
uneven  trials of 0.2 to 2 s, 4 workers, against the official sweeper on joblib with the same trials
many    the next claim, and opening the study, at 10,000 finished trials
"""

import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from table import Rows, parser, report, take_turns

from iolaus.classifier.run.config import project_root
from iolaus.study.attributes import FOLDER
from iolaus.study.queue import Goals, TrialQueue
from iolaus.study.storage import open_storage

# Each job notes when it starts: the time between two starts is what a job costs.
APP = """
import time
import hydra

@hydra.main()
def main(cfg):
    with open("starts", "a") as file:
        file.write(f"{time.time()}\\n")
    return cfg.x ** 2

if __name__ == "__main__":
    from hydra.core.config_store import ConfigStore
    ConfigStore.instance().store(name="config", node={"x": 0.0})
    main()
""".replace("@hydra.main()", '@hydra.main(config_path=None, config_name="config")')

TRACKED = APP.replace(
    "import hydra", "import hydra, os, iolaus\nfrom iolaus.tracking.mlflow_tracker import MLflowTracker"
).replace(
    "    return cfg.x",
    """    tracker = MLflowTracker("sweep", f"sqlite:///{os.getcwd()}/mlflow.db", os.path.abspath("mlruns"))
    params = {f"p{number}": number for number in range(20)}
    with tracker.run(params, {"overrides": str(cfg.x)}, trial=iolaus.current_trial()) as run:
        run.log_metrics({"val/accuracy": cfg.x, "val/loss": cfg.x})
    return cfg.x""",
)

SLEEP = APP.replace("    return", "    time.sleep(cfg.seconds)\n    return").replace(
    '"x": 0.0', '"x": 0.0, "seconds": 5.0'
)
# The same trials for both sweepers: how long one takes follows from its x alone.
UNEVEN = APP.replace("    return", "    time.sleep(0.2 + 1.8 * cfg.x)\n    return").replace(
    "    ConfigStore",
    """    # ours has taken its name
    from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf
    ConfigStore.instance().store(group="hydra/sweeper", name="official", node=OptunaSweeperConf)
    ConfigStore""",
)


def sweep(folder: Path, source: str, *overrides: str) -> float:
    """Sweep an app in a new folder and give the seconds that the command took."""
    folder.mkdir(parents=True)
    (folder / "app.py").write_text(source)
    path = os.pathsep.join([str(project_root() / "src"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "app.py", "-m", f"hydra.sweep.dir={folder}/study", *overrides]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.perf_counter() - start


def between_starts(folder: Path) -> float:
    """Seconds from one job to the next: the median, without those in which something was done for the first time."""
    starts = [float(line) for line in (folder / "starts").read_text().splitlines()][3:]
    return statistics.median(after - before for before, after in itertools.pairwise(starts))


def ours(n_trials: int, n_jobs: int) -> list[str]:
    """The overrides of our sweeper."""
    names = {"n_trials": n_trials, "study_name": "study", "n_jobs": n_jobs, "sampler.seed": 0, "report": "false"}
    return [
        "hydra/sweeper=iolaus",
        "hydra/sweeper/sampler=random",
        *(f"hydra.sweeper.{k}={v}" for k, v in names.items()),
    ]


def trial(home: Path, rounds: int) -> tuple[Rows, dict[str, object]]:
    """A trial that does nothing.

    What it costs is what a longer command takes more: BasicSweeper composes all jobs before the first starts, and
    once more for each. From one start to the next it is spared that.
    """
    numbers = iter(range(1000))
    starts: dict[str, list[float]] = {}

    def measure(name: str, source: str, *overrides: str) -> Callable[[], float]:
        def once() -> float:
            short, long = home / f"trial{next(numbers)}", home / f"trial{next(numbers)}"
            difference = -sweep(short, source, *(override.format(20) for override in overrides))
            difference += sweep(long, source, *(override.format(80) for override in overrides))
            starts.setdefault(name, []).append(between_starts(long))
            return difference / 60

        return once

    search = [*ours(20, 1), "hydra.sweeper.n_trials={}", "x=interval(0.0,1.0)"]
    seconds = take_turns(
        {
            "Hydra's BasicSweeper": measure("basic", APP, "x=range({})"),
            "ours": measure("ours", APP, *search),
            "ours, a run in MLflow": measure("tracked", TRACKED, *search),
        },
        rounds,
    )
    rows: Rows = []
    for (name, whole), between in zip(seconds.items(), starts.values(), strict=True):
        medians = [1000 * statistics.median(values) for values in (whole, between)]
        rows.append((f"a job, {name}", f"{medians[0]:.0f} ms ({medians[1]:.0f} ms from start to start)"))
    basic, own, tracked = (1000 * statistics.median(values) for values in seconds.values())
    rows.append(("own cost of a trial (goal: at most 20 ms)", f"{own - basic:+.0f} ms"))
    rows.append(("MLflow on top of it (goal: at most 40 ms)", f"{tracked - own:+.0f} ms"))
    return rows, {"trial_s": seconds, "trial_start_to_start_s": starts}


def busy(home: Path, rounds: int) -> tuple[Rows, dict[str, object]]:
    """From the first claim to the last tell."""
    total = sweep(home / "busy", SLEEP, *ours(80, 8), "x=interval(0.0,1.0)")
    trials = optuna.load_study(
        study_name="study", storage=open_storage(str(home / "busy" / "study" / "journal.log"))
    ).trials
    span = max(t.datetime_complete for t in trials) - min(t.datetime_start for t in trials)  # type: ignore[type-var, operator]
    took, ideal = span.total_seconds(), 80 * 5 / 8
    rows: Rows = [
        ("80 x 5 s, 8 workers, first claim to last tell", f"{took:.1f} s"),
        ("times the ideal (goal: at most 1.05)", f"{took / ideal:.3f}"),
        ("start-up and end of the command, apart", f"{total - took:.1f} s"),
    ]
    return rows, {"busy_s": took, "ideal_s": ideal, "command_s": total}


def uneven(home: Path, rounds: int) -> tuple[Rows, dict[str, object]]:
    """The same uneven trials by both sweepers; random search with a seed, so that neither learns."""
    rng = random.Random(0)
    choices = "x=" + ",".join(f"{rng.random():.3f}" for _ in range(40))
    numbers = iter(range(1000))

    # Both go through the same 40 points, one after the other.
    common = ["hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=40", "hydra.sweeper.n_jobs=4", choices]
    official = ["hydra/sweeper=official", "hydra/launcher=joblib", "hydra.launcher.n_jobs=4"]
    own = ["hydra/sweeper=iolaus", "hydra.sweeper.report=false"]  # about 3 s, for which the official one has nothing
    seconds = take_turns(
        {
            "the official sweeper on joblib": lambda: sweep(
                home / f"uneven{next(numbers)}", UNEVEN, *official, *common
            ),
            "ours": lambda: sweep(home / f"uneven{next(numbers)}", UNEVEN, *own, *common),
        },
        rounds,
    )
    medians = [statistics.median(values) for values in seconds.values()]
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    rows: Rows = [
        (f"40 trials of 0.2 to 2 s, 4 workers, {name}", f"{m:.1f} s") for name, m in zip(seconds, medians, strict=True)
    ]
    rows.append(("times as fast, start-up included", f"{statistics.median(ratios):.2f}"))
    return rows, {"uneven_s": seconds}


def many(home: Path, rounds: int) -> tuple[Rows, dict[str, object]]:
    """A study of 10,000 trials, made in this process as a worker makes them."""
    folder = home / "many"
    storage = open_storage(str(folder / "journal.log"))
    study = optuna.create_study(study_name="study", storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    search = TrialQueue(study, Goals(20_000, 1.0), 0, folder)
    space = {name: FloatDistribution(0, 1) for name in ("x", "y")}

    def claim() -> float:
        start = time.perf_counter()
        claimed = search.claim()
        assert claimed is not None
        for name, distribution in space.items():
            claimed._suggest(name, distribution)
        took = time.perf_counter() - start
        claimed.set_user_attr(FOLDER, str(claimed.number))
        search.tell(claimed, [claimed.params["x"]])
        return took

    claims = [claim() for _ in range(10_100)]
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    assert len(finished) == 10_100
    opened = []
    for _ in range(5):
        start = time.perf_counter()
        again = optuna.load_study(study_name="study", storage=open_storage(str(folder / "journal.log")))
        assert len(again.get_trials(deepcopy=False)) == 10_100
        opened.append(time.perf_counter() - start)
    last = statistics.median(claims[-100:])
    rows: Rows = [
        ("claim at 10,000 finished trials (goal: at most 15 ms)", f"{1000 * last:.1f} ms"),
        ("claim at 100 finished trials", f"{1000 * statistics.median(claims[100:200]):.1f} ms"),
        ("opening the study (goal: at most 1 s)", f"{statistics.median(opened):.2f} s"),
    ]
    return rows, {"claim_s": last, "open_s": opened}


def main() -> None:
    """Measure what was asked for, and report."""
    parts = {"trial": trial, "busy": busy, "uneven": uneven, "many": many}
    options_of = parser(__doc__, rounds=3)
    options_of.add_argument("parts", nargs="*", choices=[*parts, []], help="which (default: all)")
    options = options_of.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: Rows = [("sweep engine", "median")]
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as home:
        for name in options.parts or parts:
            new_rows, new_figures = parts[name](Path(home), options.rounds)
            rows += new_rows
            figures |= new_figures
    report(f"The sweep engine, {options.rounds} rounds in turn", rows, figures, options.json)


if __name__ == "__main__":
    main()
