import copy
import functools
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from iolaus.classifier.data.dataset import Data
from iolaus.classifier.models.cnn import CNN
from iolaus.classifier.models.mlp import MLP
from iolaus.classifier.training import device, loop, metrics
from iolaus.classifier.training.epoch_metrics import EpochMetrics, NonFiniteLossError
from iolaus.classifier.training.step import TrainStep
from iolaus.errors import InputError


def learner(digits: Data, seed: int = 0, dropout: float = 0.2, lr: float = 0.003) -> tuple[nn.Module, torch.optim.Adam]:
    torch.manual_seed(seed)
    model = MLP(digits.input_shape, digits.num_classes, hidden_sizes=[32], dropout=dropout)
    return model, torch.optim.Adam(model.parameters(), lr=lr)


def fit(digits: Data, model: nn.Module, optimizer: torch.optim.Optimizer, **settings: object) -> loop.State:
    arguments = {"epochs": 3, **settings}
    return loop.fit(model, digits.loader("train"), digits.loader("val"), optimizer, **arguments)  # type: ignore[arg-type]


ONE_CYCLE = functools.partial(OneCycleLR, max_lr=0.01, cycle_momentum=False)


def without_times(history: list[loop.Metrics]) -> list[loop.Metrics]:
    return [{name: value for name, value in epoch.items() if name != "epoch_s"} for epoch in history]


def test_a_network_learns_the_digits(digits: Data) -> None:
    model, optimizer = learner(digits, lr=0.01)
    state = fit(digits, model, optimizer, epochs=10)
    assert state.best["val/accuracy"] > 0.93
    assert state.best["val/loss"] < 0.4


def test_train_metrics_count_every_image_once_though_batches_are_uneven(digits: Data) -> None:
    model, _ = learner(digits, dropout=0.0)
    still = torch.optim.SGD(model.parameters(), lr=1e-30)
    assert len(digits.train.labels) % digits.batch_size != 0
    logits, labels = loop.infer(model, digits.loader("train"))
    loss, accuracy, count = loop.train_epoch(TrainStep(model, still), digits.loader("train"))
    assert count == len(digits.train.labels)
    assert accuracy == pytest.approx(metrics.accuracy(logits, labels), abs=1e-12)
    assert loss == pytest.approx(metrics.loss(logits, labels), rel=1e-5)


def test_the_same_seed_gives_bitwise_the_same_run(digits: Data) -> None:
    runs = [fit(digits, *learner(digits), scheduler=ONE_CYCLE, seed=7) for _ in range(2)]
    assert without_times(runs[0].history) == without_times(runs[1].history)
    assert all(torch.equal(runs[0].weights[name], runs[1].weights[name]) for name in runs[0].weights)


def test_another_seed_gives_another_run(digits: Data) -> None:
    runs = [fit(digits, *learner(digits), seed=seed) for seed in (1, 2)]
    assert runs[0].history[0]["train/loss"] != runs[1].history[0]["train/loss"]


@pytest.mark.parametrize(
    "scheduler",
    [None, ONE_CYCLE, functools.partial(StepLR, step_size=2), ReduceLROnPlateau],
    ids=["none", "one_cycle", "step", "plateau"],
)
def test_a_run_goes_on_from_between_any_two_epochs_to_bitwise_the_same_end(
    digits: Data, scheduler: Callable[..., object] | None
) -> None:
    states: list[loop.State] = []
    whole = fit(
        digits,
        *learner(digits),
        epochs=4,
        scheduler=scheduler,
        on_epoch=lambda state: states.append(copy.deepcopy(state)),
    )
    for state in states[:3]:
        model, optimizer = learner(digits, seed=99)
        resumed = fit(digits, model, optimizer, epochs=4, scheduler=scheduler, state=state)
        assert without_times(resumed.history) == without_times(whole.history)
        assert all(torch.equal(whole.best_weights[name], tensor) for name, tensor in model.state_dict().items())


def test_the_model_is_left_with_the_weights_of_the_best_epoch(digits: Data) -> None:
    model, optimizer = learner(digits)
    epochs: list[dict[str, torch.Tensor]] = []

    def ruin_from_third(state: loop.State) -> None:
        epochs.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        if state.epoch >= 2:
            optimizer.param_groups[0]["lr"] = 10.0

    state = fit(digits, model, optimizer, epochs=4, on_epoch=ruin_from_third)
    assert state.best_epoch == 2
    assert all(torch.equal(epochs[1][name], tensor) for name, tensor in model.state_dict().items())
    logits, labels = loop.infer(model, digits.loader("val"))
    assert metrics.accuracy(logits, labels) == state.best["val/accuracy"]


def test_of_equal_accuracies_the_smaller_loss_is_better() -> None:
    old = {"val/accuracy": 0.9, "val/loss": 0.5}
    assert loop.better({"val/accuracy": 0.9, "val/loss": 0.4}, old, "val/accuracy")
    assert not loop.better({"val/accuracy": 0.9, "val/loss": 0.5}, old, "val/accuracy")
    assert loop.better({"val/accuracy": 0.8, "val/loss": 0.4}, old, "val/loss")


def test_early_stopping_ends_after_patience_epochs_without_a_better_one(digits: Data) -> None:
    model, _ = learner(digits)
    frozen = torch.optim.SGD(model.parameters(), lr=0.0)
    state = fit(digits, model, frozen, epochs=9, patience=2)
    assert (state.epoch, state.best_epoch) == (3, 1)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(digits: Data, broken: float) -> None:
    model, optimizer = learner(digits)
    steps: list[float] = []

    def break_third(loss: float, accuracy: float, count: int) -> None:
        steps.append(loss)
        if len(steps) == 2:
            with torch.no_grad():
                model[1].bias[0] = broken  # type: ignore[index]

    with pytest.raises(InputError, match=r"the loss became (nan|inf) in step 3 of epoch 1: lower optimizer.lr"):
        fit(digits, model, optimizer, on_batch=break_third)
    assert len(steps) == 2


def test_metrics_that_are_read_late_add_up_to_the_same() -> None:
    steps = [(torch.tensor([2.0, 3.0]), 4), (torch.tensor([1.0, 8.0]), 8), (torch.tensor([4.0, 1.0]), 2)]
    for read_s, before_the_end in ((0.0, 3), (1e9, 0)):
        batches: list[tuple[float, float, int]] = []
        epoch = EpochMetrics(lambda *batch, to=batches: to.append(batch), read_s)
        for of_step, count in steps:
            epoch.add(of_step, count)
        assert len(batches) == before_the_end
        epoch.read()
        epoch.read()
        assert batches == [(2.0, 0.75, 4), (1.0, 1.0, 8), (4.0, 0.5, 2)]
        assert (epoch.loss, epoch.accuracy, epoch.images) == (24 / 14, 12 / 14, 14)


def test_of_losses_that_are_read_late_the_first_that_is_not_finite_is_named() -> None:
    epoch = EpochMetrics(read_s=1e9)
    for loss in (1.0, 1.0, math.inf, math.nan):
        epoch.add(torch.tensor([loss, 0.0]), 2)
    with pytest.raises(NonFiniteLossError) as error:
        epoch.read()
    assert (error.value.loss, error.value.step) == (math.inf, 3)


@pytest.mark.parametrize("monitor", ["val/accuracy", "val/loss"])
def test_weights_that_the_last_steps_broke_stop_the_run_too(digits: Data, monitor: str) -> None:
    model, optimizer = learner(digits)
    batches = len(digits.loader("train"))
    steps: list[float] = []

    def break_last(loss: float, accuracy: float, count: int) -> None:
        steps.append(loss)
        if len(steps) == batches:
            with torch.no_grad():
                model[1].bias[0] = math.nan  # type: ignore[index]

    with pytest.raises(InputError, match=r"the loss became nan on val after epoch 1: lower optimizer.lr"):
        fit(digits, model, optimizer, on_batch=break_last, monitor=monitor)


def test_training_goes_on_from_the_last_epoch_though_another_was_best(digits: Data) -> None:
    def trained(epochs: int, state: loop.State | None = None) -> loop.State:
        model, optimizer = learner(digits)

        def worsen(state: loop.State) -> None:
            optimizer.param_groups[0]["lr"] = 0.5

        return fit(digits, model, optimizer, epochs=epochs, state=state, on_epoch=worsen)

    state = trained(3)
    assert state.best_epoch < 3
    assert any(not torch.equal(state.weights[name], best) for name, best in state.best_weights.items())
    assert without_times(trained(4, state).history) == without_times(trained(4).history)


def test_label_smoothing_changes_what_is_minimised_but_not_how_val_is_measured(digits: Data) -> None:
    model, _ = learner(digits, dropout=0.0)
    still = torch.optim.SGD(model.parameters(), lr=1e-30)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20)  # confident
    plain = fit(digits, model, still, epochs=1).best
    smooth = fit(digits, model, still, epochs=1, label_smoothing=0.5).best
    assert smooth["train/loss"] != pytest.approx(plain["train/loss"], rel=0.01)
    assert smooth["val/loss"] == plain["val/loss"]


def test_schedulers_with_a_horizon_step_each_batch_and_others_each_epoch(digits: Data) -> None:
    _, optimizer = learner(digits)
    assert loop.make_scheduler(ONE_CYCLE, optimizer, 10)[1]
    assert loop.make_scheduler(CosineAnnealingLR, optimizer, 10)[1]
    assert not loop.make_scheduler(functools.partial(CosineAnnealingLR, T_max=5), optimizer, 10)[1]
    assert not loop.make_scheduler(functools.partial(StepLR, step_size=1), optimizer, 10)[1]


def test_one_cycle_reaches_its_end_in_the_last_batch(digits: Data) -> None:
    model, optimizer = learner(digits)
    next_rates: list[float] = []
    fit(
        digits,
        model,
        optimizer,
        scheduler=ONE_CYCLE,
        on_batch=lambda *_: next_rates.append(optimizer.param_groups[0]["lr"]),
    )
    assert max(next_rates) == pytest.approx(0.01, rel=0.01)
    assert next_rates[-2] == pytest.approx(0.01 / 25 / 1e4)


def test_a_refused_value_names_its_key(digits: Data) -> None:
    model, optimizer = learner(digits)
    with pytest.raises(InputError, match=r"^optimizer: Invalid momentum value: -1"):
        loop.make_optimizer(functools.partial(torch.optim.SGD, momentum=-1), model.parameters())
    with pytest.raises(InputError, match=r"^scheduler: Expected float between 0 and 1 pct_start"):
        loop.make_scheduler(functools.partial(ONE_CYCLE, pct_start=2), optimizer, 10)


def test_infer_keeps_the_order_and_gives_logits_of_every_image(digits: Data) -> None:
    model, _ = learner(digits)
    logits, labels = loop.infer(model, digits.loader("val"))
    assert logits.shape == (300, 10)
    assert torch.equal(labels, digits.val.labels)


def test_auto_precision_is_fp32_where_bf16_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    cnn, mlp = CNN((1, 8, 8), 10), MLP((1, 8, 8), 10)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert device.resolve_precision("auto", cnn) == device.resolve_precision("auto", mlp) == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert device.resolve_precision("auto", cnn) == device.resolve_precision("auto", mlp) == "bf16"
    assert device.resolve_precision("fp32", mlp) == "fp32"


def test_bf16_learns_as_well(digits: Data) -> None:
    model, optimizer = learner(digits, lr=0.01)
    assert fit(digits, model, optimizer, epochs=10, precision="bf16").best["val/accuracy"] > 0.93


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="device=cuda is not available"):
        device.resolve_device("cuda")


def test_convolutions_are_placed_channels_last() -> None:
    model = device.place(CNN((3, 8, 8), 10), torch.device("cpu"))
    assert next(model.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_the_engine_knows_nothing_of_hydra_optuna_and_mlflow() -> None:

    imported = "sorted({'hydra', 'omegaconf', 'optuna', 'mlflow'} & set(sys.modules))"
    code = f"import sys, iolaus.classifier.training.loop; print({imported})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_val_the_last_epoch_is_kept(digits: Data) -> None:
    model, optimizer = learner(digits)
    state = loop.fit(model, digits.loader("train"), None, optimizer, epochs=3, patience=1)
    assert state.best_epoch == state.epoch == 3
    assert {"train/loss", "train/accuracy"} <= state.best.keys()
    assert not any(name.startswith("val/") for name in state.best)
    assert all(torch.equal(state.weights[name], tensor) for name, tensor in model.state_dict().items())


def test_val_changes_nothing_in_how_a_network_is_trained(digits: Data) -> None:
    with_val = fit(digits, *learner(digits))
    model, optimizer = learner(digits)
    without = loop.fit(model, digits.loader("train"), None, optimizer, epochs=3)
    assert all(torch.equal(with_val.weights[name], without.weights[name]) for name in without.weights)


def test_a_scheduler_that_waits_for_a_plateau_looks_at_train_where_there_is_no_val(digits: Data) -> None:
    model, optimizer = learner(digits)
    plateau = functools.partial(ReduceLROnPlateau, patience=0, threshold=1e9)  # nothing is ever better
    state = loop.fit(model, digits.loader("train"), None, optimizer, epochs=3, scheduler=plateau)
    assert state.history[-1]["lr"] < state.history[0]["lr"]
