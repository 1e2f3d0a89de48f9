"""A sweep as users would make it otherwise, and as Iolaus makes it: the same networks, rates, epochs and images.

    python benchmarks/peers.py                 # MLPs and CNNs, 5 epochs a trial, in about half an hour
    python benchmarks/peers.py mlp --epochs 2  # in about five minutes
    python benchmarks/peers.py --pruning       # what pruning saves, in about eight minutes

Otherwise means a tutorial's loop: a Dataset that transforms one sample after the other behind a DataLoader, in fp32,
with a look at val after each epoch. It runs as a script, with 0 and with 2 processes that load, under the official
Optuna sweeper as it comes, and on joblib with a job for each core. All go through the same grid: the networks of the
default search (CNNs with kernels of 3) times four learning rates, at batch size 256, on the CPU; none uses MLflow.

Ours are measured whole. The others are too slow for that: sweeps of the whole grid without an epoch and with one are
measured, and of the scripts one trial without and one with an epoch; more epochs, and trials, are extrapolated. What
pruning saves is the time of the same sweep of ours with the pruner asha; the best values tell what it costs.
"""

import gzip
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import optuna
from table import Rows, parser, ratio, report, take_turns

from iolaus.classifier.run.config import project_root
from iolaus.study.storage import open_storage
from iolaus.system import machine

RATES = "choice(0.001,0.003,0.01,0.03)"
SPACES: Mapping[str, tuple[str, Sequence[str]]] = {
    "mlp": ("hidden_sizes", ("[384,128]", "[256]", "[512,256]", "[512,256,128]")),
    "cnn": ("channels", ("[16,32,64]", "[16,32]", "[32,32,64]")),
}
"""What the networks of a model differ in: a parameter's name, and its values."""
TRIALS = {model: 4 * len(values) for model, (_, values) in SPACES.items()}
ROOT = Path(os.environ.get("IOLAUS_DATA", project_root() / "data"))

TUTORIAL = """
import json, os, hydra, torch
from hydra.core.config_store import ConfigStore
from hydra_plugins.hydra_optuna_sweeper.config import OptunaSweeperConf
from torch.nn import functional as F
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms
from iolaus.classifier import models

ConfigStore.instance().store(group="hydra/sweeper", name="official", node=OptunaSweeperConf)  # ours has taken its name
node = {"data": "", "model": "mlp", "sizes": "[384,128]", "epochs": 1, "num_workers": 0, "lr": 0.003}
ConfigStore.instance().store(name="config", node=node)


@hydra.main(config_path=None, config_name="config")
def main(cfg):
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    dataset = datasets.MNIST(cfg.data, train=True, transform=transform)
    train, val = random_split(dataset, [55_000, 5_000], generator=torch.Generator().manual_seed(0))
    train_loader = DataLoader(train, batch_size=256, shuffle=True, num_workers=cfg.num_workers)
    val_loader = DataLoader(val, batch_size=1000, num_workers=cfg.num_workers)
    torch.manual_seed(0)
    sizes = json.loads(str(cfg.sizes))
    make = {"mlp": lambda: models.MLP((1, 28, 28), 10, sizes), "cnn": lambda: models.CNN((1, 28, 28), 10, sizes)}
    model = make[cfg.model]()
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
    accuracy = 0.0
    for epoch in range(cfg.epochs):
        model.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            correct = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in val_loader)
        accuracy = correct / len(val)
    return accuracy


main()
"""


class Home:
    """A folder with the tutorial's program and MNIST unpacked, as it needs it, in which each command has its own."""

    def __init__(self, folder: Path) -> None:
        """Unpack."""
        self.folder = folder
        self.program = folder / "tutorial.py"
        self.program.write_text(TUTORIAL)
        raw = folder / "data" / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for packed in (ROOT / "MNIST" / "raw").glob("*.gz"):
            with gzip.open(packed) as source, open(raw / packed.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        self.used = 0

    def run_s(self, program: Path, *overrides: str) -> float:
        """Seconds that a program takes, in a new folder that is the last one then."""
        self.used += 1
        self.last = self.folder / str(self.used)
        path = os.pathsep.join([str(project_root() / "src"), os.environ.get("PYTHONPATH", "")])
        command = [
            sys.executable,
            str(program),
            *overrides,
            f"hydra.sweep.dir={self.last}",
            f"hydra.run.dir={self.last}",
        ]
        start = time.perf_counter()
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return time.perf_counter() - start

    def script(self, model: str, epochs: int, num_workers: int) -> Callable[[], float]:
        """The tutorial once for each trial."""
        common = [
            f"model={model}",
            f"data={self.folder}/data",
            f"sizes='{SPACES[model][1][0]}'",
            f"num_workers={num_workers}",
        ]

        def measure() -> float:
            start_up = self.run_s(self.program, *common, "epochs=0")
            epoch = self.run_s(self.program, *common, "epochs=1") - start_up
            return start_up + TRIALS[model] * epochs * epoch

        return measure

    def official(self, model: str, epochs: int, *overrides: str) -> Callable[[], float]:
        """The tutorial under the official sweeper."""
        sizes = ",".join(f"'{value}'" for value in SPACES[model][1])
        common = [
            "-m", "hydra/sweeper=official", "hydra/sweeper/sampler=grid", "hydra.sweeper.direction=maximize",
            f"hydra.sweeper.n_trials={TRIALS[model]}", f"model={model}", f"data={self.folder}/data",
            f"lr={RATES}", f"sizes=choice({sizes})", *overrides,
        ]  # fmt: skip

        def measure() -> float:
            without = self.run_s(self.program, *common, "epochs=0")
            return without + epochs * (self.run_s(self.program, *common, "epochs=1") - without)

        return measure

    def ours(self, model: str, epochs: int, best: list[float], *overrides: str) -> Callable[[], float]:
        """The same grid by our sweeper; its best value is added to `best`."""
        name, values = SPACES[model]

        def measure() -> float:
            seconds = self.run_s(
                project_root() / "src" / "train.py", "-m", "hydra/sweeper=iolaus", "hydra/sweeper/sampler=grid",
                "hydra.sweeper.direction=maximize", "hydra.sweeper.study_name=study", "hydra.sweeper.report=false",
                f"data.root={ROOT}", f"root={self.folder}", f"model={model}", f"epochs={epochs}", "device=cpu",
                "tracking=none", f"optimizer.lr={RATES}", f"model.{name}=choice({','.join(values)})", *overrides,
            )  # fmt: skip
            study = optuna.load_study(study_name="study", storage=open_storage(str(self.last / "journal.log")))
            best.append(study.best_value)
            return seconds

        return measure


def compared(home: Home, model: str, epochs: int, rounds: int, pruning: bool) -> tuple[Rows, dict[str, object]]:
    """A row for each way to make the sweep, or for the last two."""
    cores, best, best_pruned = machine.cores(), list[float](), list[float]()
    joblib = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={cores}", f"hydra.sweeper.n_jobs={cores}"]
    all_workers, pruned = f"ours, {cores} workers", f"ours, {cores} workers, pruning"
    ways = {
        all_workers: home.ours(model, epochs, best, f"hydra.sweeper.n_jobs={cores}"),
        pruned: home.ours(model, epochs, best_pruned, f"hydra.sweeper.n_jobs={cores}", "hydra/sweeper/pruner=asha"),
    }
    if not pruning:
        ways = {
            "a script for each, 0 loading processes": home.script(model, epochs, 0),
            "a script for each, 2 loading processes": home.script(model, epochs, 2),
            "the official sweeper as it comes": home.official(model, epochs),
            f"the official sweeper on joblib, {cores} jobs": home.official(model, epochs, *joblib),
            "ours, one worker": home.ours(model, epochs, [], "hydra.sweeper.n_jobs=1"),
            **ways,
        }
    seconds = take_turns(ways, rounds)
    found = {all_workers: best, pruned: best_pruned}
    reference = seconds[all_workers]
    rows: Rows = [
        (
            f"{model}: {way}", f"{statistics.median(values):.0f}", f"{ratio(values, reference):.2f}",
            f"{100 * statistics.mean(found[way]):.2f}" if way in found else "",
        )
        for way, values in seconds.items()
    ]  # fmt: skip
    return rows, {"seconds": seconds, "best": found}


def main() -> None:
    """Measure what was asked for, and report."""
    options_of = parser(__doc__, rounds=1)
    options_of.add_argument("models", nargs="*", choices=[*SPACES, []], help="which (default: both)")
    options_of.add_argument("--epochs", type=int, default=5, help="of each trial (default: %(default)s)")
    options_of.add_argument(
        "--pruning", action="store_true", help="only our sweeps by all workers, without and with it"
    )
    options = options_of.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: Rows = [("a sweep on MNIST", "seconds", "times ours", "best val, %")]
    figures: dict[str, object] = {"epochs": options.epochs, "trials": TRIALS}
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        home.ours("mlp", 1, [])()  # decodes the images, and compiles what is imported
        home.run_s(home.program, f"data={folder}/data", "epochs=0")
        for model in options.models or list(SPACES):
            new, figures[model] = compared(home, model, options.epochs, options.rounds, options.pruning)
            rows += new
    counts = " and ".join(f"{TRIALS[model]} {model}s" for model in options.models or list(SPACES))
    report(f"{counts}, {options.epochs} epochs each, {options.rounds} rounds in turn", rows, figures, options.json)


if __name__ == "__main__":
    main()
