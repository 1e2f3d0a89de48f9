"""How many workers a machine should have: the same trainings by one worker with all cores, or by one for each core.

    python benchmarks/workers.py

It supports the rule of hydra.sweeper.n_jobs: one for each core where there is no GPU. Then the spinning of PyTorch's
threads, which src/train.py shortens: how much slower a training gets when another one runs beside it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
from table import Rows, arguments, ratio, report, take_turns

from iolaus import machine
from iolaus.config import project_root
from iolaus.journal import open_storage

TRAINING = """
import time, torch
from iolaus import models
torch.manual_seed(0)
model = models.MLP((1, 28, 28), 10, hidden_sizes=[384, 128])
optimizer = torch.optim.Adam(model.parameters(), fused=True)
images, labels = torch.randn(256, 1, 28, 28), torch.randint(10, (256,))
for step in range(400):
    if step == 100:
        start = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
print((time.perf_counter() - start) / 300)
"""


def trials(home: Path, n_jobs: int, model: str, epochs: int) -> Callable[[], float]:
    """A function that sweeps over seeds and gives the seconds that a trial took, from first claim to last tell."""
    runs = iter(range(1000))

    def measure() -> float:
        folder = home / f"{model}-{n_jobs}-{next(runs)}"
        command = [
            sys.executable, "src/train.py", "-m", "hydra/sweeper=iolaus", "hydra/sweeper/sampler=grid",
            "seed=range(8)", f"model={model}", f"epochs={epochs}", "tracking=none", f"hydra.sweeper.n_jobs={n_jobs}",
            "hydra.sweeper.direction=maximize", "hydra.sweeper.study_name=study", f"hydra.sweep.dir={folder}",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        found = optuna.load_study(study_name="study", storage=open_storage(str(folder / "journal.log"))).trials
        # without the first of each worker, which imports PyTorch
        later = found[n_jobs:]
        span = max(t.datetime_complete for t in later) - min(t.datetime_start for t in later)  # type: ignore[type-var, operator]
        return float(span.total_seconds() / len(later))

    return measure


def beside_another(environment: Mapping[str, str]) -> Callable[[], float]:
    """A function that runs two trainings at once, each with all threads, and gives the seconds of a step."""

    def measure() -> float:
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", TRAINING],
                env={**os.environ, "PYTHONPATH": str(project_root() / "src"), **environment},
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        return statistics.mean(float(process.communicate()[0]) for process in pair)

    return measure


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__, rounds=3)
    cores = machine.cores()
    rows: Rows = [("", "seconds", "times as fast")]
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as home:
        for model, epochs in (("mlp", 2), ("cnn", 1)):
            seconds = take_turns(
                {f"{n_jobs} workers": trials(Path(home), n_jobs, model, epochs) for n_jobs in (1, cores)},
                options.rounds,
            )
            one, many = seconds.values()
            rows.append((f"a trial of {model}, 1 worker with {cores} threads", f"{statistics.median(one):.2f}", "1.00"))
            name = f"a trial of {model}, {cores} workers with 1 thread"
            rows.append((name, f"{statistics.median(many):.2f}", f"{ratio(one, many):.2f}"))
            figures[model] = seconds
    spins = {"PyTorch's default": {}, "GOMP_SPINCOUNT=50000": {"GOMP_SPINCOUNT": "50000"}}
    steps = take_turns({name: beside_another(environment) for name, environment in spins.items()}, options.rounds)
    default, shorter = steps.values()
    rows.append(("a step beside another training, PyTorch's spinning", f"{statistics.median(default):.4f}", "1.00"))
    name = "a step beside another training, GOMP_SPINCOUNT=50000"
    rows.append((name, f"{statistics.median(shorter):.4f}", f"{ratio(default, shorter):.2f}"))
    report(f"Workers, {cores} cores, {options.rounds} rounds in turn", rows, {**figures, "steps": steps}, options.json)


if __name__ == "__main__":
    main()
