"""Seconds to 99 % of MNIST: experiment=speedrun over seeds, beside the network of train_mnist_fast.

    python benchmarks/speedrun.py               # 30 seeds of each, in about five minutes
    python benchmarks/speedrun.py --rounds 1    # 10 seeds

A round trains ten seeds of each, in turn, in one process each; a third kind of measurement is a process of its own for
one training, from its start to the trained model in its file. Seconds of training include the evaluation on val, and
begin with the first batch. The other network is that of https://github.com/tuomaso/train_mnist_fast with its batch
size, rate and betas, in the same program: memory, bf16 and channels_last are ours for both.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from table import Rows, parser, ratio, report, take_turns

from iolaus.classifier.run.config import project_root

SEEDS = 10
"""Of each kind in a round."""
OTHER = [
    "model.layers.crop=null", "model.layers.norm1=null", "model.layers.norm2=null", "model.layers.fc1.out_features=256",
    "model.layers.conv1.out_channels=24", "model.layers.conv1.kernel_size=5", "model.layers.conv1.bias=true",
    "model.layers.conv2.out_channels=32", "model.layers.conv2.kernel_size=3", "model.layers.conv2.bias=true",
    "epochs=1", "data.batch_size=256", "optimizer.lr=0.01", "optimizer.betas=[0.7,0.9]", "loss.label_smoothing=0",
    "scheduler.pct_start=0.3",
]  # fmt: skip


def train(folder: Path, *overrides: str) -> None:
    """Run the program in a folder."""
    command = [sys.executable, "src/train.py", *overrides, "experiment=speedrun", "tracking=none"]
    folders = [f"hydra.run.dir='{folder}'", f"hydra.sweep.dir='{folder}'"]
    subprocess.run([*command, *folders], cwd=project_root(), check=True, stdout=subprocess.DEVNULL)


def seeds(home: Path, results: list[dict], *overrides: str) -> Callable[[], float]:
    """A function that trains the next seeds, adds their results, and gives the median of their seconds of training."""

    def measure() -> float:
        first = len(results)
        folder = home / f"{len(list(home.iterdir()))}"
        train(folder, "-m", f"seed=range({first},{first + SEEDS})", *overrides)
        new = [json.loads(path.read_text()) for path in folder.glob("*/metrics.json")]
        assert len(new) == SEEDS
        results.extend(new)
        return statistics.median(float(result["fit_s"]) for result in new)

    return measure


def process_s(home: Path) -> Callable[[], float]:
    """A function that starts the program, and gives the seconds until its trained model is written."""

    def measure() -> float:
        folder = home / f"{len(list(home.iterdir()))}"
        start = time.time()
        train(folder)
        return (folder / "model.pt").stat().st_mtime - start

    return measure


def main() -> None:
    """Measure in turn, and report."""
    options = parser(__doc__, rounds=3).parse_args()
    ours, other = list[dict](), list[dict]()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        train(home / "warm-up")  # decodes the images
        turns = {
            "experiment=speedrun": seeds(home, ours),
            "train_mnist_fast's network": seeds(home, other, *OTHER),
            "a process from its start": process_s(home),
        }
        seconds = take_turns(turns, options.rounds)
    rows: Rows = [("to 99 % of MNIST", "test accuracy", "seeds", "s of training", "times ours")]
    for (name, values), results in zip(seconds.items(), [ours, other, []], strict=True):
        accuracies = [100 * result["test/accuracy"] for result in results]
        mean = f"{statistics.mean(accuracies):.3f} ± {statistics.stdev(accuracies):.3f} %" if results else ""
        fit_s = statistics.median(result["fit_s"] for result in results) if results else statistics.median(values)
        rows.append(
            (name, mean, f"{len(results)}", f"{fit_s:.2f}", f"{ratio(values, seconds['experiment=speedrun']):.2f}")
        )
    figures = {"ours": ours, "train_mnist_fast": other, "seconds": seconds}
    report(f"Speedrun, {options.rounds} rounds in turn", rows, figures, options.json)


if __name__ == "__main__":
    main()
