"""What holds on the CPU holds on a CUDA device."""

import copy
import json
import math
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch import Tensor, nn

from iolaus.classifier.data import augment, dataset
from iolaus.classifier.models import cnn
from iolaus.classifier.training import loop
from iolaus.classifier.training.device import deterministic, place
from iolaus.classifier.training.step import TrainStep
from iolaus.errors import InputError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic(CUDA)
    yield
    torch.use_deterministic_algorithms(False)


def network(digits: dataset.Data, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = cnn.CNN(digits.input_shape, digits.num_classes, channels=[8, 16], hidden_sizes=[32], dropout=0.2)
    model = place(model, CUDA)
    return model, torch.optim.AdamW(model.parameters(), lr=0.003, fused=True)


def fit(digits: dataset.Data, model: nn.Module, optimizer: torch.optim.Optimizer, **settings: object) -> loop.State:
    loaders = digits.loader("train", augment=augment.Affine(), device=CUDA), digits.loader("val", device=CUDA)
    return loop.fit(model, *loaders, optimizer, **{"epochs": 3, "seed": 1, **settings})  # type: ignore[arg-type]


def values(state: loop.State) -> list[loop.Metrics]:
    return [{name: value for name, value in epoch.items() if name != "epoch_s"} for epoch in state.history]


def test_the_same_seed_gives_bitwise_the_same_run(digits: dataset.Data) -> None:
    runs = [fit(digits, *network(digits)) for _ in range(2)]
    assert values(runs[0]) == values(runs[1])


def test_a_network_learns_the_digits(digits: dataset.Data) -> None:
    assert fit(digits, *network(digits), epochs=20).best["val/accuracy"] > 0.93


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_steps_are_bitwise_those_that_python_launches(digits: dataset.Data, precision: str) -> None:
    runs = []
    for capture in (False, True):
        model, optimizer = network(digits)
        step = TrainStep(model, optimizer, precision=precision, capture=capture)
        model.train()
        torch.manual_seed(3)
        losses = [step(*batch) for _ in range(3) for batch in digits.loader("train", device=CUDA)]
        assert sum(graph is not None for graph in step.graphs.values()) == (2 if capture else 0)
        runs.append((torch.stack(losses), copy.deepcopy(model.state_dict())))
    assert torch.equal(runs[0][0], runs[1][0])
    assert all(torch.equal(runs[0][1][name], tensor) for name, tensor in runs[1][1].items())


class Waits(nn.Module):
    """Says that it can be captured, but waits for the GPU."""

    capturable = True

    def forward(self, images: Tensor) -> Tensor:
        return images * float(images.mean() < 1e9)


def test_after_a_capture_that_fails_python_launches_the_steps(digits: dataset.Data) -> None:
    runs = []
    for capture in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), Waits(), nn.Dropout(0.5), nn.Linear(32, 10)).to(CUDA)
        step = TrainStep(model, torch.optim.SGD(model.parameters(), lr=0.1), capture=capture)
        stream = torch.cuda.current_stream()
        torch.manual_seed(3)
        losses = [step(*batch) for batch in digits.loader("train", device=CUDA)]
        assert not step.captures
        assert torch.cuda.current_stream() == stream
        runs.append(torch.stack(losses))
    assert torch.equal(*runs)


@pytest.mark.parametrize("capture", [False, True])
def test_a_step_waits_for_no_value_of_the_gpu(digits: dataset.Data, capture: bool) -> None:
    model, optimizer = network(digits)
    batches = iter(digits.loader("train", augment=augment.Affine(), device=CUDA))
    learn = TrainStep(model, optimizer, precision="bf16", capture=capture)

    def step() -> Tensor:
        return learn(*next(batches))

    def waits(done: Callable[[], object]) -> int:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")  # which warns itself, as it does not see all that waits
            try:
                done()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(warning.message) for warning in warned)

    for _ in range(2):
        step()  # in which libraries are loaded and the graph is made
    assert waits(step) == 0
    assert waits(lambda: step().tolist()) == 1


def test_a_run_goes_on_from_between_two_epochs_to_bitwise_the_same_end(digits: dataset.Data) -> None:
    states: list[loop.State] = []
    whole = fit(digits, *network(digits), on_epoch=lambda state: states.append(copy.deepcopy(state)))
    for state in states[:2]:
        assert values(fit(digits, *network(digits, seed=9), state=state)) == values(whole)


def test_augmented_images_are_those_of_the_cpu() -> None:
    images = torch.rand(64, 1, 28, 28)
    for augmentation in (augment.Affine(), augment.Elastic()):
        torch.manual_seed(0)
        expected = augmentation(images)
        torch.manual_seed(0)
        torch.testing.assert_close(augmentation(images.to(CUDA)).cpu(), expected, atol=1e-4, rtol=0)


def test_a_loss_that_is_not_finite_stops_the_run(digits: dataset.Data) -> None:
    model, optimizer = network(digits)
    optimizer.param_groups[0]["lr"] = math.inf
    with pytest.raises(InputError, match=r"the loss became nan in step 2 of epoch 1: lower optimizer.lr"):
        fit(digits, model, optimizer)


def train(root: Path, folder: Path, *overrides: str) -> dict[str, float]:
    command = [
        sys.executable,
        "src/train.py",
        f"data.root={root}",
        f"root={folder}",
        "tracking=none",
        f"hydra.run.dir={folder}",
    ]
    done = subprocess.run([*command, *overrides], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.mnist
def test_a_cnn_learns_mnist_as_well_as_on_the_cpu(mnist_root: Path, tmp_path: Path) -> None:
    def accuracy(device: str, seed: int) -> float:
        settings = [f"device={device}", f"seed={seed}", "epochs=1", "model=cnn"]
        return train(mnist_root, tmp_path / f"{device}-{seed}", *settings)["val/accuracy"]

    accuracies = {device: [accuracy(device, seed) for seed in range(3)] for device in ("cpu", "cuda")}
    assert statistics.mean(accuracies["cuda"]) > statistics.mean(accuracies["cpu"]) - 0.005, accuracies


def test_workers_share_a_gpu(digits_root: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, "src/train.py", "-m", "hparams_search=optuna", "data=digits", f"data.root={digits_root}",
        "epochs=2", "tracking=none", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.max_failure_rate=0", f"root={tmp_path}", f"hydra.sweep.dir={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 trials finished" in done.stdout + done.stderr
