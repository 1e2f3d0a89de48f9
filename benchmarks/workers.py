"""How many workers a machine should have: trainings by one worker with all cores or by one for each, or several a GPU.

    python benchmarks/workers.py               # both parts, in about ten minutes
    python benchmarks/workers.py spin          # one of them

The first, rule, supports the rule of hydra.sweeper.n_jobs; on a GPU it tries several workers. The second is
about the spinning of PyTorch's threads, which src/train.py shortens: a step of a training alone, and beside another.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
from table import Rows, parser, ratio, report, take_turns

from iolaus.classifier.run.config import project_root
from iolaus.study.storage import open_storage
from iolaus.system import machine

TRAINING = """
import time, torch
from iolaus.classifier import models
torch.manual_seed(0)
model = models.MLP((1, 28, 28), 10, hidden_sizes=[384, 128])
optimizer = torch.optim.Adam(model.parameters(), fused=True)
images, labels = torch.randn(256, 1, 28, 28), torch.randint(10, (256,))
for step in range(160):
    if step == 60:
        start = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
print((time.perf_counter() - start) / 100)
"""


def trials(home: Path, n_jobs: int, model: str, epochs: int, count: int) -> Callable[[], float]:
    """A function that sweeps over seeds and gives the seconds that a trial took, from first claim to last tell."""
    runs = iter(range(1000))

    def measure() -> float:
        folder = home / f"{model}-{n_jobs}-{next(runs)}"
        command = [
            sys.executable, "src/train.py", "-m", "hydra/sweeper=iolaus", "hydra/sweeper/sampler=grid",
            f"seed=range({count})", f"model={model}", f"epochs={epochs}", "tracking=none",
            f"hydra.sweeper.n_jobs={n_jobs}", "hydra.sweeper.direction=maximize",
            "hydra.sweeper.study_name=study", f"hydra.sweep.dir={folder}",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found = optuna.load_study(study_name="study", storage=open_storage(str(folder / "journal.log"))).trials
        # without the first of each worker, which imports PyTorch
        later = found[n_jobs:]
        span = max(t.datetime_complete for t in later) - min(t.datetime_start for t in later)  # type: ignore[type-var, operator]
        return float(span.total_seconds() / len(later))

    return measure


def trainings(count: int, environment: Mapping[str, str]) -> Callable[[], float]:
    """A function that runs so many trainings at once, each with all threads, and gives the seconds of a step."""

    def measure() -> float:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", TRAINING],
                env={**os.environ, "PYTHONPATH": str(project_root() / "src"), **environment},
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        return statistics.mean(float(process.communicate()[0]) for process in started)

    return measure


def rule(rounds: int) -> tuple[Rows, dict[str, object]]:
    """Trials by one worker with all cores, or by one for each; where there is a GPU, by one and by several."""
    gpus, cores = len(machine.gpus()), machine.cores()
    candidates = [gpus, 4 * gpus] if gpus else [1, cores]
    rows: Rows = []
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as home:
        for model, epochs in (("mlp", 2), ("cnn", 1)):
            count = 4 * max(candidates)
            measures = {f"n_jobs={n}": trials(Path(home), n, model, epochs, count) for n in candidates}
            seconds = take_turns(measures, rounds)
            rows += compared(f"a trial of {model}", seconds)
            figures[model] = seconds
    return rows, figures


def spin(rounds: int) -> tuple[Rows, dict[str, object]]:
    """Steps of a training with PyTorch's spinning, and with ours."""
    rows: Rows = []
    figures: dict[str, object] = {}
    spins = {"PyTorch's spinning": {}, "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"}}
    for where, count in (("alone", 1), ("beside another training", 2)):
        seconds = take_turns({name: trainings(count, variables) for name, variables in spins.items()}, rounds)
        rows += compared(f"a step {where}", seconds)
        figures[f"a step {where}"] = seconds
    return rows, figures


def compared(what: str, seconds: Mapping[str, list[float]]) -> Rows:
    """A row for each candidate, compared with the first."""
    first = next(iter(seconds.values()))
    return [
        (f"{what}, {name}", f"{statistics.median(values):.4f}", f"{ratio(first, values):.2f}")
        for name, values in seconds.items()
    ]


def main() -> None:
    """Measure what was asked for, and report."""
    parts = {"rule": rule, "spin": spin}
    options_of = parser(__doc__, rounds=3)
    options_of.add_argument("parts", nargs="*", choices=[*parts, []], help="which (default: both)")
    options = options_of.parse_args()
    rows: Rows = [("", "seconds", "times as fast")]
    figures: dict[str, object] = {}
    for name in options.parts or parts:
        new_rows, new_figures = parts[name](options.rounds)
        rows += new_rows
        figures |= new_figures
    report(f"Workers, {machine.cores()} cores, {options.rounds} rounds in turn", rows, figures, options.json)


if __name__ == "__main__":
    main()
