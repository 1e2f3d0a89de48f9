"""What a run costs outside training and evaluation, with everything logged: the first in a process, and later ones.

    python benchmarks/overhead.py

Each cause is timed by wrapping the function that stands for it; the rest is Hydra composing and what has no name.
"""

import contextlib
import io
import json
import runpy
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from table import arguments, report

from iolaus.config import project_root

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
    for module in ("torch", "mlflow", "mlflow.pytorch", "iolaus.figures", "iolaus.tracking"):
        start = time.perf_counter()
        __import__(module)
        spent[f"import {module}"] = time.perf_counter() - start
    from iolaus import checkpoint, data, engine, figures, tracking

    run = tracking._MLflowRun
    for cause, owner, name in [
        ("data from the cache", data, "load"),
        ("MLflow: open the store, start the run, params", tracking.MLflow, "_start"),
        ("MLflow: record the data set", run, "log_data"),
        ("MLflow: metrics of each epoch", run, "log_epochs"),
        ("MLflow: metrics at the end", run, "log_metrics"),
        ("MLflow: artifacts", run, "log_file"),
        ("MLflow: the model (torch.export)", run, "log_model"),
        ("checkpoint of each epoch", checkpoint, "save_state"),
        ("model.pt", checkpoint, "save_model"),
        ("figures", figures, "of_run"),
        ("git and versions", tracking, "provenance"),
        ("(evaluation on test)", engine, "infer"),
    ]:
        timed(cause, owner, name)


def one_run(folder: Path, number: int) -> dict[str, float]:
    """Seconds by cause of one run, in this process."""
    spent_before = dict(spent) if number == 0 else {}
    spent.clear()
    spent.update(spent_before)
    output = folder / str(number)
    sys.argv = [
        "src/train.py",
        *("data=mnist", "model=mlp", "epochs=2", f"seed={number}"),
        *(
            f"tracking.uri=sqlite:///{folder}/mlflow.db",
            f"tracking.artifacts={folder}/mlruns",
            f"hydra.run.dir={output}",
        ),
    ]
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        runpy.run_path(str(project_root() / "src" / "train.py"), run_name="__main__")
    total = time.perf_counter() - start + sum(spent_before.values())
    results = json.loads((output / "metrics.json").read_text())
    # evaluation is val, which fit_s contains, and test, which is one more of val's size for each 5,000 images
    evaluation = spent.pop("(evaluation on test)")
    val = results["fit_s"] - sum(epoch["epoch_s"] for epoch in results["history"])
    working = results["fit_s"] + max(evaluation - val, 0.0)
    named = sum(spent.values())
    return {
        "all outside training and evaluation": total - working,
        **spent,
        "Hydra and the rest": total - working - named,
    }


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__, rounds=5)
    imports()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [one_run(folder, number) for number in range(options.rounds + 1)]
    rows = [("seconds", "first run", "later runs, median", "slowest later run")]
    for cause, first in runs[0].items():
        later = [run.get(cause, 0.0) for run in runs[1:]]
        rows.append((cause, f"{first:.2f}", f"{statistics.median(later):.3f}", f"{max(later):.3f}"))
    title = f"Outside training and evaluation, data=mnist model=mlp epochs=2, {options.rounds} later runs"
    report(title, rows, {"runs": runs}, options.json)


if __name__ == "__main__":
    main()
