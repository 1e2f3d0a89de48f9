"""Memory of a worker: its peak on MNIST, and whether it grows over hundreds of trials.

    python benchmarks/memory.py                            # about ten minutes; Linux
    python benchmarks/memory.py --figure docs/memory.png   # also draw the curve

A worker is the process of a search with hydra.sweeper.n_jobs=1, tracked in MLflow as by default. Its resident memory is
looked at twice a second, from outside; its peak is the kernel's own record. What grows is looked for between the end of
trial 50 and that of the last, in trials of an epoch on the digits whose networks and batches differ in size.
"""

import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import optuna
import table

from iolaus.classifier.run.config import project_root
from iolaus.study.storage import open_storage

Curve = list[tuple[float, float]]
"""Moments, in seconds since the epoch, and MB resident then."""
SETTLED = 50
"""Trials after which everything has been used once that is used at all."""


def watched(folder: Path, *overrides: str) -> tuple[Curve, float, list[datetime]]:
    """Search in a folder, and give the memory of its only worker, the peak in MB, and when each of its trials ended."""
    command = [
        sys.executable, "src/train.py", "-m", "hydra/sweeper=iolaus", "hydra.sweeper.direction=maximize",
        "hydra.sweeper.study_name=study", "hydra.sweeper.n_jobs=1", "hydra.sweeper.report=false",
        f"hydra.sweep.dir={folder}/study", f"root={folder}", f"tracking.uri=sqlite:///{folder}/mlflow.db", *overrides,
    ]  # fmt: skip
    curve: Curve = []
    peak = 0.0
    with subprocess.Popen(command, cwd=project_root(), stdout=subprocess.DEVNULL) as worker:
        while worker.poll() is None:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines())
            if "VmRSS" in status:  # not of a process that has just ended
                curve.append((time.time(), int(status["VmRSS"].split()[0]) * 1024 / 1e6))
                peak = int(status["VmHWM"].split()[0]) * 1024 / 1e6
            time.sleep(0.5)
    assert worker.returncode == 0, command
    study = optuna.load_study(study_name="study", storage=open_storage(f"{folder}/study/journal.log"))
    return curve, peak, [trial.datetime_complete for trial in study.trials if trial.datetime_complete]


def by_trial(curve: Curve, ends: list[datetime]) -> list[float]:
    """MB at the end of each trial: the last that was seen before it."""
    return [[mb for moment, mb in curve if moment <= end.timestamp()][-1] for end in ends]


def draw(path: Path, after: list[float]) -> None:
    """The curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(after) + 1), after)
    axes.set(xlabel="trials done", ylabel="MB resident", ylim=(0, None), xlim=(1, len(after)))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure and report."""
    options_of = table.parser(__doc__, rounds=1)
    options_of.add_argument("--trials", type=int, default=500, help="on the digits (default: %(default)s)")
    options_of.add_argument("--figure", type=Path, help="where to draw the curve")
    options = options_of.parse_args()
    if options.trials < SETTLED:
        options_of.error(f"--trials must be at least {SETTLED}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    mnist = f"data.root={os.environ.get('IOLAUS_DATA', project_root() / 'data')}"
    rows: table.Rows = [("a worker's memory", "MB")]
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as home:
        for number, model in enumerate(["model=mlp", "model=cnn"]):
            _, peak, _ = watched(
                Path(home) / str(number), mnist, model, "data.batch_size=512", "epochs=1", "seed=choice(0,1)",
                "hydra.sweeper.n_trials=2",
            )  # fmt: skip
            figures[model] = peak
            rows.append((f"peak on MNIST, {model}, batch size 512", f"{peak:.0f}"))
        folder = Path(home) / "digits"
        curve, _, ends = watched(
            folder, "data=digits", f"data.root={folder}", "epochs=1", "model=choice(mlp,cnn)",
            "data.batch_size=choice(32,128,512)", "optimizer.lr=tag(log, interval(0.001,0.01))",
            f"hydra.sweeper.n_trials={options.trials}",
        )  # fmt: skip
        after = figures["digits"] = by_trial(curve, ends)
    rows.append((f"after trial {SETTLED} on the digits", f"{after[SETTLED - 1]:.0f}"))
    rows.append((f"after trial {len(after)}", f"{after[-1]:.0f}"))
    if options.figure:
        draw(options.figure, after)
    table.report("Memory", rows, figures, options.json)


if __name__ == "__main__":
    main()
