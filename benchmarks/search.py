"""What the sampler and the pruner of the default search bring: the same wall time with them and without, on MNIST.

    python benchmarks/search.py                            # its MLPs, 3 sweeps each of 5 minutes: 50 minutes
    python benchmarks/search.py --seconds 660 model=cnn    # its CNNs at full length: 2 hours, and 20 trials a sweep

Each sweep is a command of its own, with one worker for each core; a round gives all of them the same sampler seed, in
turn. None is given settings to begin with: one that is known to be good would hide what was found. All are judged on
the same validation images, of which the best of many trials flatters itself: what is compared is how good, and how
soon, not how good the winner is. Of CNNs two cores train too few in minutes to tell the sweeps apart.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
from optuna.trial import TrialState
from table import Rows, parser, report

from iolaus.classifier.run.config import project_root
from iolaus.study.storage import open_storage

SWEEPS = {
    "TPE, pruning (the default)": [],
    "TPE, no pruning": ["hydra/sweeper/pruner=none"],
    "random search": ["hydra/sweeper/pruner=none", "hydra/sweeper/sampler=random"],
}
MLPS = "model=choice(mlp,mlp_dropout)"
ENOUGH = 5
"""Of how many of the best trials the mean is compared: it varies less than the best one."""


def sweep(folder: Path, seed: int, seconds: float, overrides: list[str]) -> dict[str, object]:
    """Search for so long, and give what became of each trial."""
    start = time.time()
    subprocess.run(
        [
            sys.executable, "src/train.py", "-m", "hparams_search=optuna", *overrides, "tracking=none",
            "hydra.sweeper.enqueue=[]", f"hydra.sweeper.sampler.seed={seed}", f"hydra.sweeper.timeout_s={seconds}",
            "hydra.sweeper.n_trials=1000",
            "hydra.sweeper.study_name=study", f"hydra.sweep.dir='{folder}'", "hydra.sweeper.report=false",
        ],
        cwd=project_root(), check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    study = optuna.load_study(study_name="study", storage=open_storage(str(folder / "journal.log")))
    trials = [trial for trial in study.get_trials() if trial.state.is_finished()]
    return {
        "seed": seed,
        "whole_s": time.time() - start,
        "trials": [
            {
                "number": trial.number,
                "state": trial.state.name,
                "value": trial.value if trial.state == TrialState.COMPLETE else None,
                "end_s": trial.datetime_complete.timestamp() - start if trial.datetime_complete else None,
                "params": trial.params,
            }
            for trial in trials
        ],
    }


def best_until(result: dict, seconds: float) -> float:
    """The best value that a sweep had found by then."""
    return max((t["value"] for t in result["trials"] if t["value"] is not None and t["end_s"] <= seconds), default=0.0)


def seconds_until(result: dict, value: float) -> float | None:
    """When a sweep had a value that was as good as this, if it ever had."""
    return min((t["end_s"] for t in result["trials"] if t["value"] is not None and t["value"] >= value), default=None)


def row_of(name: str, results: list[dict], references: list[dict], seconds: float) -> tuple[str, ...]:
    """A line of the table: means and standard deviations over the sweeps of one kind."""
    ends = [max(t["end_s"] for t in result["trials"]) for result in results]
    tops = [
        statistics.mean(sorted((t["value"] for t in result["trials"] if t["value"] is not None), reverse=True)[:ENOUGH])
        for result in results
    ]
    counts = [
        (len(result["trials"]), sum(trial["state"] == "PRUNED" for trial in result["trials"])) for result in results
    ]
    soon = [
        seconds_until(result, best_until(reference, float("inf")))
        for result, reference in zip(results, references, strict=True)
    ]
    reached = [f"{moment:.0f}" if moment is not None else "never" for moment in soon]
    return (
        name,
        spread([100 * best_until(result, seconds / 2) for result in results]),
        spread([100 * best_until(result, float("inf")) for result in results]),
        spread([100 * top for top in tops]),
        f"{statistics.mean(count for count, _ in counts):.0f}",
        f"{statistics.mean(pruned for _, pruned in counts):.0f}",
        " ".join(reached),
        f"{statistics.mean(ends):.0f}",
    )


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    """Search in turn, and report."""
    options_of = parser(__doc__, rounds=3)
    options_of.add_argument(
        "--seconds", type=float, default=300, help="in which trials may begin (default: %(default)s)"
    )
    options_of.add_argument("space", nargs="*", default=[MLPS], help="overrides that narrow it (default: %(default)s)")
    options = options_of.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found: dict[str, list[dict]] = {name: [] for name in SWEEPS}
    with tempfile.TemporaryDirectory() as home:
        for seed in range(options.rounds):
            for number, (name, overrides) in enumerate(SWEEPS.items()):
                folder = Path(home) / f"{seed}-{number}"
                found[name].append(sweep(folder, seed, options.seconds, [*options.space, *overrides]))
                print(name, seed, best_until(found[name][-1], float("inf")), file=sys.stderr, flush=True)
            # After each round, so that it need not be waited for to the end.
            rows: Rows = [
                (
                    f"sweeps of each: {seed + 1}", "best val at half time, %", "best val, %",
                    f"mean of the best {ENOUGH}, %", "trials", "of them pruned",
                    "s until random search's best, by round", "s until the last trial's end",
                )
            ]  # fmt: skip
            rows += [row_of(name, results, found["random search"], options.seconds) for name, results in found.items()]
            title = f"The search on MNIST, {' '.join(options.space)}, trials begun within {options.seconds:.0f} s"
            report(title, rows, {"seconds": options.seconds, "sweeps": found}, options.json)


if __name__ == "__main__":
    main()
