"""Test accuracy of the README's commands on real MNIST, over seeds, each run a process of its own.

python benchmarks/accuracy.py
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from table import arguments, report

from iolaus.classifier.run.config import project_root

COMMANDS = {
    "model=mlp": 0.983,
    "model=cnn": 0.992,
    "model=cnn optimizer.lr=0.01": 0.985,
    "experiment=udacity": 0.985,
}
"""Overrides, and the accuracy that their mean must reach."""


def main() -> None:
    """Train, and report mean and standard deviation."""
    options = arguments(__doc__, rounds=3)
    rows = [("python src/train.py ...", "test accuracy", "seeds", "seconds of training", "epochs", "reached")]
    figures: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for command, goal in COMMANDS.items():
            results = []
            for seed in range(options.rounds):
                output = Path(folder) / f"{command} {seed}"
                overrides = [*command.split(), f"seed={seed}", "tracking=none", f"hydra.run.dir='{output}'"]
                subprocess.run(
                    [sys.executable, "src/train.py", *overrides], cwd=project_root(), check=True, capture_output=True
                )
                results.append(json.loads((output / "metrics.json").read_text()))
                print(command, seed, results[-1]["test/accuracy"], file=sys.stderr, flush=True)
            figures[command] = results
            accuracies = [100 * result["test/accuracy"] for result in results]
            mean = statistics.mean(accuracies)
            spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
            seconds = statistics.median(result["fit_s"] for result in results)
            row = (f"{mean:.2f}{spread} %", str(len(results)), f"{seconds:.0f}", str(len(results[0]["history"])))
            rows.append((command, *row, f"{'yes' if mean >= 100 * goal else 'NO'} (goal {goal:.1%})"))
    report("Accuracy on the 10,000 test images of MNIST", rows, figures, options.json)


if __name__ == "__main__":
    main()
