"""How long it takes until something happens: --help against a Hydra app of two lines, a run against its imports.

    python benchmarks/startup.py

The run is that of the default CNN on MNIST, tracked in a database that exists, from the start of the process to its
first batch: there the network, which is this benchmark's own, ends it. Another is whole. What is needed in any case is
measured beside them: an import of PyTorch and MLflow.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import table
from torch import Tensor

from iolaus.classifier.models import cnn
from iolaus.classifier.run.config import project_root

BARE = """
import hydra
@hydra.main()
def main(cfg): pass
main()
"""
IMPORTS = "import torch, mlflow"


class EndsInTraining(cnn.CNN):
    """A network that ends the process as its first training batch comes."""

    def forward(self, images: Tensor) -> Tensor:
        """Give logits (B, K) of images (B, C, H, W), in evaluation."""
        if self.training:
            os._exit(0)
        return super().forward(images)


def run_of(*command: str, code: int = 0) -> Callable[[], float]:
    """A function that runs a command, which must end with `code`, and gives the seconds."""
    here, src = str(Path(__file__).parent), str(project_root() / "src")
    path = os.pathsep.join([here, src, os.environ.get("PYTHONPATH", "")])

    def measure() -> float:
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, cwd=project_root(), env={**os.environ, "PYTHONPATH": path})
        assert done.returncode == code, done.stderr.decode()
        return time.perf_counter() - start

    return measure


def main() -> None:
    """Measure and report."""
    options = table.arguments(__doc__, rounds=9)
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        python, train = sys.executable, "src/train.py"
        data = f"data.root={os.environ.get('IOLAUS_DATA', project_root() / 'data')}"
        tracked = [data, f"root={folder}", f"tracking.uri=sqlite:///{folder}/mlflow.db"]
        pairs = {  # each with what it is compared with
            "--help": (run_of(python, train, "--help"), "bare Hydra app --help"),
            "epoch=3 (misspelt)": (run_of(python, train, "epoch=3", code=1), "bare Hydra app --help"),
            "a run to its first batch": (
                run_of(python, train, *tracked, "model._target_=startup.EndsInTraining"), IMPORTS,
            ),
            "a run of one epoch of an MLP": (
                run_of(python, train, *tracked, f"hydra.run.dir={folder}/run", "model=mlp", "epochs=1"), IMPORTS,
            ),
        }  # fmt: skip
        candidates = {
            "bare Hydra app --help": run_of(python, str(bare), "--help"),
            IMPORTS: run_of(python, "-c", IMPORTS),
            **{name: measure for name, (measure, _) in pairs.items()},
        }
        for measure in candidates.values():  # byte code is compiled once, the database made
            measure()
        seconds = table.take_turns(candidates, options.rounds)
    rows: table.Rows = [("start-up", "median s", "times", "of")]
    for name, values in seconds.items():
        base = pairs[name][1] if name in pairs else name
        rows.append((name, f"{statistics.median(values):.2f}", f"{table.ratio(values, seconds[base]):.2f}", base))
    table.report(f"Start-up, {options.rounds} rounds in turn", rows, {"seconds": seconds}, options.json)


if __name__ == "__main__":
    main()
