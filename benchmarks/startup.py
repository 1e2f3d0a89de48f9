"""How long --help takes, against a Hydra app of two lines.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from table import arguments, ratio, report, take_turns

from iolaus.config import project_root

BARE = """
import hydra
@hydra.main()
def main(cfg): pass
main()
"""


def run_of(*command: str, code: int = 0) -> Callable[[], float]:
    """A function that runs a command, which must end with `code`, and gives the seconds."""

    def measure() -> float:
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, cwd=project_root())
        assert done.returncode == code, done.stderr.decode()
        return time.perf_counter() - start

    return measure


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__, rounds=15)
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE)
        candidates = {
            "bare Hydra app --help": run_of(sys.executable, str(bare), "--help"),
            "src/train.py --help": run_of(sys.executable, "src/train.py", "--help"),
            "src/train.py epoch=3 (misspelt)": run_of(sys.executable, "src/train.py", "epoch=3", code=1),
        }
        for measure in candidates.values():  # byte code is compiled once
            measure()
        seconds = take_turns(candidates, options.rounds)
    bare_seconds = next(iter(seconds.values()))
    rows = [("start-up", "median s", "times the bare app")]
    for name, values in seconds.items():
        rows.append((name, f"{statistics.median(values):.2f}", f"{ratio(values, bare_seconds):.2f}"))
    report(f"Start-up, {options.rounds} rounds in turn", rows, {"seconds": seconds}, options.json)


if __name__ == "__main__":
    main()
