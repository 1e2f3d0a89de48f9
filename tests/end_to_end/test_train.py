import errno
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from conftest import HELD, ROOT, Program, held_after_epoch, started, wait_for
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image
from waiting import HANG_S, wait_until

from iolaus.classifier.data.dataset import Data
from iolaus.classifier.training import checkpoint, loop
from iolaus.study.storage import open_storage


def metrics(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "metrics.json").read_text()))


def timeless(results: dict[str, object]) -> dict[str, object]:
    kept = {name: value for name, value in results.items() if name not in ("fit_s", "images_per_s", "epoch_s")}
    history = results["history"]
    assert isinstance(history, list)
    kept["history"] = [{name: value for name, value in epoch.items() if name != "epoch_s"} for epoch in history]
    return kept


def test_a_run_leaves_its_metrics_model_and_pictures(program: Program, digits: Data) -> None:
    done = program()
    assert done.code == 0
    results = metrics(done.output)
    assert set(results) == {
        "train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/loss", "test/accuracy",
        "fit_s", "params", "images_per_s", "lr", "epoch_s", "best_epoch", "history",
    }  # fmt: skip
    for name in ("samples", "curves", "confusion", "mistakes"):
        assert (done.output / f"{name}.png").stat().st_size > 5000
    model = checkpoint.load_model(done.output / "model.pt").model
    logits, labels = loop.infer(model, digits.loader("test"), precision="auto")
    assert (logits.argmax(1) == labels).double().mean().item() == results["test/accuracy"]
    assert results["params"] == 64 * 384 + 384 + 384 * 128 + 128 + 128 * 10 + 10


def test_the_last_lines_state_accuracy_with_interval_and_count(program: Program) -> None:
    out = program().out
    assert re.search(r"val accuracy +\d+\.\d\d %  \(95 % interval \d+\.\d\d to \d+\.\d\d %, n = 300\)", out)
    assert re.search(r"test accuracy +\d+\.\d\d %  \(95 % interval .* n = 360\)", out)


def test_without_a_terminal_each_epoch_is_a_plain_line(program: Program) -> None:
    done = program()
    lines = [line for line in done.out.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert re.search(
        r"epoch 1/2: train loss .*, accuracy .* %; val loss .*, accuracy .* % \(best\); [\d,]+ images/s, 0:.* left",
        lines[0],
    )
    assert "\r" not in done.out + done.err


@pytest.mark.parametrize("model", ["mlp", "mlp_dropout", "cnn", "cnn_dropout", "layers"])
def test_every_model_trains(program: Program, model: str) -> None:
    done = program(f"model={model}", "epochs=1")
    assert done.code == 0, done.err


def test_named_layers_can_be_removed_from_the_command_line(program: Program) -> None:
    whole = program("model=layers", "epochs=1")
    less = program("model=layers", "~model.layers.conv2", "model.layers.fc2=null", "epochs=1")
    assert (whole.code, less.code) == (0, 0), less.err
    assert checkpoint.load_model(less.output / "model.pt").spec["layers"].keys() >= {"conv1", "fc2"}
    assert "conv2" not in checkpoint.load_model(less.output / "model.pt").spec["layers"]
    assert metrics(whole.output)["params"] != metrics(less.output)["params"]


def test_augmentation_scheduler_and_early_stopping_are_configurable(program: Program) -> None:
    done = program(
        "augment=affine", "scheduler=cosine", "optimizer=sgd", "early_stopping.patience=1", "loss.label_smoothing=0.1",
        "optimizer.lr=1e-12", "epochs=9",
    )  # fmt: skip
    assert done.code == 0, done.err
    history = metrics(done.output)["history"]
    assert isinstance(history, list)
    assert len(history) < 9


def test_several_objectives_reach_the_sweeper(program: Program) -> None:
    done = program(
        "-m", "hydra/sweeper=optuna", "hydra.sweeper.direction=[maximize,minimize]", "hydra.sweeper.n_trials=1",
        "hydra.sweeper.n_jobs=1", "+hydra.sweeper.params={seed: 'range(1,3)'}",
        "objective=[val/accuracy,params]", "epochs=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    (solution,) = OmegaConf.load(done.output / "optimization_results.yaml").solutions
    results = metrics(done.output / "0")
    assert list(solution["values"]) == [results["val/accuracy"], results["params"]]
    storage = open_storage(str(done.output / "journal.log"))
    (name,) = optuna.get_all_study_names(storage)
    assert optuna.load_study(study_name=name, storage=storage).metric_names == ["val/accuracy", "params"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.dropout=1.5"], r"model.dropout must be in \[0, 1\), but got 1.5"),
        (["data.val_size=60000"], r"data.val_size must be in 1\.\.1436, but got 60000"),
        (["data.val_size=0"], r"data.val_size must be in 1\.\.1436, but got 0"),
        (["data.val_size=many"], r"data.val_size must be in 1\.\.1436, but got many"),
        (["data.batch_size=many"], "data.batch_size must be at least 1, but got many"),
        (["data.batch_size=2.5"], "data.batch_size must be at least 1, but got 2.5"),
        (["model.dropout=high"], r"model.dropout must be in \[0, 1\), but got high"),
        (["data=folder", "data.source.image_size=64"], r"data.source.image_size must be \[height, width\], but got 64"),
        (["data=mnist", "data.source.dataset=QMNIST"], "data.source.dataset must be one of MNIST, FashionMNIST, "),
        (["data.batch_size=0"], "data.batch_size must be at least 1, but got 0"),
        (["optimizer.lr=-1"], "optimizer.lr must be a number above 0, but got -1"),
        (["optimizer=sgd", "optimizer.momentum=-1"], "optimizer: Invalid momentum value: -1"),
        (["epochs=0"], "epochs must be at least 1, but got 0"),
        (["model=layers", "~model.layers"], r"model does not fit Layers: missing a required argument: 'layers'"),
        (["model.hidden_sizes=[0]"], r"model.hidden_sizes must be a list of whole numbers of at least 1, but got \[0"),
        (["model=cnn", "model.channels=[4,4,4,4]"], "model.pool_size=2 in 4 blocks shrinks images of 8x8 to nothing"),
        (["model=cnn", "+model.depth=3"], "model does not fit CNN: got an unexpected keyword argument 'depth'"),
        (["model._target_=no.such.Net"], "Error locating target 'no.such.Net'"),
        (["optimizer=sgd", "optimizer.lr=1e30"], r"the loss became (nan|inf) in step \d+ of epoch 1"),
        (["resume=nowhere/checkpoint.pt"], "resume must be .* a run's checkpoint.pt, but got nowhere/checkpoint.pt"),
        (["resume="], "resume must be the path of a run's checkpoint.pt, but got nothing"),
        (["hparams_search=optuna"], "hparams_search needs -m: without it there is one run"),
        (["data=folder", "data.root=nowhere"], "data.root must be a folder with a folder of images for each class"),
    ],
)  # fmt: skip
def test_a_mistake_ends_in_one_line(program: Program, overrides: list[str], message: str) -> None:
    done = program(*overrides)
    assert done.code == 1
    assert re.search(f"^error: {message}", done.message), done.err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("class Tiny(:\n    pass\n", r"SyntaxError: invalid syntax \(broken.py, line 1\)"),
        ("from troch import nn\n", "ModuleNotFoundError: No module named 'troch'"),
    ],
)
def test_a_mistake_in_the_users_own_module_is_named(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, reason: str
) -> None:
    (tmp_path / "broken.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    done = program("model._target_=broken.Tiny")
    assert done.code == 1
    assert re.search(f"Error locating target 'broken.Tiny' .*{reason}", done.message)


def test_a_folder_without_permission_is_one_line(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere/model.pt")

    monkeypatch.setattr(checkpoint, "save_model", refuse)
    assert "no permission for /somewhere/model.pt: choose another folder" in program().message


def test_a_damaged_cache_is_one_line(program: Program, tmp_path: Path) -> None:
    assert program("data.root=" + str(tmp_path / "data"), "epochs=1").code == 0
    (cached,) = (tmp_path / "data").glob(".digits-train-*.npz")
    cached.write_bytes(cached.read_bytes()[:5000])
    done = program("data.root=" + str(tmp_path / "data"))
    assert done.code == 1
    assert re.search(r"\.npz is damaged \(.*\): delete it", done.message)


def test_mnist_that_is_missing_without_a_network_is_one_line(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    done = program("data=mnist", f"data.root={tmp_path}/nothing")
    assert done.code == 1
    assert "MNIST is not in" in done.message
    assert "data=digits, which needs no network" in done.message


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"a": [8, 8]}, "at least 2 classes"),
        ({"a": [], "b": [8, 8]}, "must hold images"),
        ({"a": [8, 8], "b": [8, 9]}, "all images must have one size"),
    ],
)
def test_a_folder_that_is_no_data_set_is_one_line(
    program: Program, tmp_path: Path, sizes: dict[str, list[int]], message: str
) -> None:
    for name, sides in sizes.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, side in enumerate(sides):
            Image.new("L", (side, side), number).save(tmp_path / "photos" / name / f"{number}.png")
    done = program("data=folder", f"data.root={tmp_path}/photos", "data.val_size=1")
    assert done.code == 1
    assert message in done.message


def test_all_layers_null_is_a_mistake(program: Program) -> None:
    names = ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "fc1", "relu3", "dropout1", "fc2", "relu4"]
    names += ["dropout2", "fc3", "relu5"]
    done = program("model=layers", *(f"model.layers.{name}=null" for name in names))
    assert "model.layers must keep at least one layer, but all were removed or null" in done.message


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("epoch=3", "Did you mean: 'epochs'"),
        ("optimizer.lrr=3", "Did you mean: 'lr'"),
        ("model=cn", "Could not find 'model/cn'"),
        ("epochs=many", "Value 'many' of type 'str' could not be converted to Integer"),
    ],
)
def test_a_misspelt_key_group_or_type_is_answered_by_hydra(program: Program, override: str, hint: str) -> None:
    done = program(override)
    assert done.code == 1
    assert hint in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_seed_gives_bitwise_the_same_metrics_in_another_process(
    tmp_path: Path, digits_root: Path, program: Program, count: int
) -> None:
    overrides = ["model=cnn_dropout", "augment=affine", "epochs=2", f"threads={count}", "seed=3"]
    threads = torch.get_num_threads()
    try:
        here = program(*overrides)
    finally:
        torch.set_num_threads(threads)
    with started(tmp_path, digits_root, *overrides, f"hydra.run.dir={tmp_path}/other") as other:
        out, _ = other.communicate(timeout=HANG_S)
    assert other.returncode == 0, out
    assert timeless(metrics(here.output)) == timeless(metrics(tmp_path / "other"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes_to_bitwise_the_same_end(
    tmp_path: Path, digits_root: Path, program: Program, number: signal.Signals
) -> None:
    overrides = ["model=cnn_dropout", *held_after_epoch(3, tmp_path), "epochs=5", "seed=5", "threads=1"]
    with started(tmp_path, digits_root, *overrides, f"hydra.run.dir={tmp_path}/cut") as run:
        wait_for(run, "epoch 3/")
        run.send_signal(number)
        rest, _ = run.communicate(timeout=HANG_S)
    (tmp_path / "hold").unlink()
    assert run.returncode != 0
    assert "Traceback" not in rest
    assert not (tmp_path / "cut" / "metrics.json").exists()
    command = re.search(r"to resume: +python src/train.py (.*resume=(\S+checkpoint.pt))", rest)
    assert command, rest
    assert checkpoint.load_state(Path(command[2]))[0].epoch == 3

    threads = torch.get_num_threads()
    try:
        resumed = program(HELD, f"resume={command[2]}")
        whole = program(*overrides)
    finally:
        torch.set_num_threads(threads)
    assert resumed.code == 0, resumed.err
    assert "epoch 3/5" not in resumed.out
    assert "epoch 4/5" in resumed.out
    assert timeless(metrics(resumed.output)) == timeless(metrics(whole.output))


def test_resuming_under_other_settings_is_refused(program: Program) -> None:
    first = program()
    again = program("epochs=3", f"resume={first.output}/checkpoint.pt")
    assert "checkpoint.pt was made with other settings: epochs was 2, now 3" in again.message


def test_resuming_a_run_of_an_earlier_version_is_one_clear_line(program: Program, tmp_path: Path) -> None:
    made = {"model": {"_target_": "iolaus.models.CNN"}, "in_search": False}
    checkpoint.save(
        tmp_path / "checkpoint.pt", {"format": "iolaus-state-1", "state": {}, "settings": made, "run_id": None}
    )
    (tmp_path / ".hydra").mkdir()
    overrides = ["data=digits", "tracking=none", "epochs=2", "model._target_=iolaus.models.CNN"]
    (tmp_path / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    done = program(f"resume={tmp_path}/checkpoint.pt")
    assert done.code == 1
    assert "checkpoint.pt was made by an earlier version of Iolaus: use that version, or train again" in done.message


def test_kill_9_leaves_a_whole_checkpoint(tmp_path: Path, digits_root: Path) -> None:
    overrides = ["epochs=1000", "model.hidden_sizes=[2000,2000]", f"hydra.run.dir={tmp_path}/cut"]
    with started(tmp_path, digits_root, *overrides) as run:
        wait_for(run, "epoch 2/")
        wait_until(lambda: list((tmp_path / "cut").glob(".checkpoint.pt.*")))  # the next one is being written
        run.kill()
    assert checkpoint.load_state(tmp_path / "cut" / "checkpoint.pt")[0].epoch >= 2


def test_a_full_disk_ends_in_one_line_and_keeps_the_last_checkpoint(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    calls = 0

    def fails_second(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails_second)
    done = program()
    assert done.code == 1
    assert "no space left on the disk of" in done.message
    assert "checkpoint.pt" in done.message
    assert checkpoint.load_state(done.output / "checkpoint.pt")[0].epoch == 1


def test_a_grid_without_a_search_reads_test_in_each_run(program: Program) -> None:
    done = program("-m", "seed=1,2", "epochs=1")
    assert done.code == 0, done.err
    results = [metrics(done.output / str(number)) for number in (0, 1)]
    assert all("test/accuracy" in result for result in results)
    assert results[0]["val/loss"] != results[1]["val/loss"]


def test_the_first_search_runs_its_trials_and_none_reads_test(program: Program) -> None:
    done = program("-m", "hparams_search=optuna", "hydra.sweeper.n_trials=3", "epochs=1")
    assert done.code == 0, done.err
    for number in range(3):
        assert "test/accuracy" not in metrics(done.output / str(number))
        assert not (done.output / str(number) / "confusion.png").exists()
    assert (done.output / "optimization_results.yaml").exists()


PEEK = """
from iolaus.classifier import data, models

class Model(models.MLP):
    def __init__(self, input_shape, num_classes, root, **keywords):
        super().__init__(input_shape, num_classes, **keywords)
        data.load("digits", data.Digits(), root, val_size=300).test

def load(*arguments, **keywords):
    loaded = data.load(*arguments, **keywords)
    loaded.loader("test")
    return loaded
"""


@pytest.mark.parametrize("own", ["model._target_=peek.Model", "data._target_=peek.load"])
def test_in_a_trial_neither_a_model_nor_a_data_set_of_the_users_own_gets_at_test_images(
    program: Program, tmp_path: Path, digits_root: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    (tmp_path / "peek.py").write_text(PEEK)
    monkeypatch.syspath_prepend(tmp_path)
    given = [own, *([f"+model.root={digits_root}"] if own.startswith("model") else [])]
    alone = program(*given)
    assert alone.code == 0, alone.err
    done = program("-m", "hparams_search=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.params=null",
                   "hydra.sweeper.when=null", "hydra.sweeper.enqueue=[]", *given)  # fmt: skip
    assert done.code == 1
    assert "the test set is locked: the trials of a search are compared on val" in done.err + done.out


def test_train_on_val_is_for_runs_after_a_search(program: Program) -> None:
    done = program("train_on_val=true")
    assert done.code == 0, done.err
    assert "val accuracy" not in done.out
    assert "test accuracy" in done.out
    assert set(json.loads((done.output / "metrics.json").read_text())["history"][0]) == {
        "train/loss", "train/accuracy", "lr", "epoch_s",
    }  # fmt: skip
    refused = program("train_on_val=true", "early_stopping.patience=1")
    assert "train_on_val leaves no val for early stopping" in refused.message
    searched = program("-m", "hparams_search=optuna", "hydra.sweeper.n_trials=1", "train_on_val=true")
    assert searched.code == 1
    assert "train_on_val=true leaves a search nothing to compare by: add train_on_val=false" in searched.message


def test_each_run_that_looks_at_test_is_recorded_and_no_trial_is(program: Program, tmp_path: Path) -> None:
    program()
    program("-m", "seed=1,2")
    program("-m", "hparams_search=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.n_jobs=1")
    lines = [json.loads(line) for line in (tmp_path / "test_looks.jsonl").read_text().splitlines()]
    assert [Path(line["run"]).name for line in lines] == ["run1", "0", "1"]
    assert {line["images"] for line in lines} == {360}


def test_an_objective_that_has_no_value_in_each_epoch_is_not_pruned_by_another(program: Program) -> None:
    done = program(
        "-m", "hydra/sweeper=iolaus", "hydra/sweeper/pruner=median", "objective=params", "epochs=2",
        "model.hidden_sizes=choice([8],[16])", "hydra.sweeper.n_trials=2",
    )  # fmt: skip
    assert done.code == 0, done.err
    trials = optuna.load_study(study_name=None, storage=open_storage(str(done.output / "journal.log"))).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert all(trial.intermediate_values == {} for trial in trials)
    assert "the task never reports a value, so nothing can be pruned" in done.out


def test_a_dry_run_times_each_branch_and_random_trials_and_leaves_nothing(program: Program) -> None:
    done = program(
        "-m", "hparams_search=optuna", "hydra.sweeper.dry_run=true", "hydra.sweeper.timeout_s=0.01", "epochs=1"
    )
    assert done.code == 0, done.err
    branches = [line for line in done.out.splitlines() if "hparams_search=optuna" in line]
    assert len(branches) == 4  # an MLP with each optimizer, and augmented
    assert all(re.match(r" +\d+\.\d s  optimizer=", line) for line in branches)
    assert re.search(
        r"\nabout 0:\d\d:\d\d \(h:mm:ss\) for 60 trials of \d+\.\d s, the mean of 24 random ones", done.out
    )
    assert re.search(
        r"\nhydra\.sweeper\.timeout_s ends it after about 0:\d\d:\d\d \(h:mm:ss\), with about 1 trials", done.out
    )
    assert not done.output.exists()


def test_a_trial_that_is_gone_on_with_sees_no_test_image_either(program: Program) -> None:
    searched = program("-m", "hparams_search=optuna", "hydra.sweeper.n_trials=1", "epochs=1")
    resumed = program(f"resume={searched.output}/0/checkpoint.pt")
    assert resumed.code == 0, resumed.err
    assert "test/accuracy" not in metrics(resumed.output)


def test_a_nan_loss_fails_the_trial_and_the_search_goes_on(program: Program) -> None:
    done = program(
        "-m", "hparams_search=optuna", "hydra.sweeper.n_trials=6", "epochs=1",
        "optimizer=sgd", "optimizer.lr=choice(0.1,1e30)",
    )  # fmt: skip
    assert done.code == 0, done.err
    finished = [(done.output / str(number) / "metrics.json").exists() for number in range(6)]
    assert 0 < sum(finished) < 6
    assert done.out.count("(InputError: the loss became") == 6 - sum(finished)


def test_other_images_than_the_checkpoints_are_refused(program: Program, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        for number in range(12):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (8, 8), dtype=np.uint8)).save(path)
    settings = ["data=folder", f"data.root={tmp_path}/photos", "data.val_size=4", "data.batch_size=4"]
    first = program(*settings)
    assert first.code == 0, first.err
    (tmp_path / "photos" / "a" / "0.png").unlink()
    again = program(*settings, f"resume={first.output}/checkpoint.pt")
    assert "checkpoint.pt was made with other settings: data_digest was" in again.message


def test_two_runs_started_at_once_do_not_share_a_folder(tmp_path: Path, digits_root: Path) -> None:
    with (
        started(tmp_path, digits_root, "epochs=1", "seed=1") as first,
        started(tmp_path, digits_root, "epochs=1", "seed=2") as second,
    ):
        for run in (first, second):
            out, _ = run.communicate(timeout=HANG_S)
            assert run.returncode == 0, out
    assert len(list((tmp_path / "outputs").glob("*/*/metrics.json"))) == 2


def test_tracking_none_needs_no_mlflow(tmp_path: Path, digits_root: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").write_text("raise ImportError('not here')")
    run = subprocess.run(
        [sys.executable, "src/train.py", "data=digits", f"data.root={digits_root}", "tracking=none", "epochs=1",
         f"root={tmp_path}"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["epoch=3"], ["model=cn"], ["epochs=0"], ["hparams_search=optuna"]])
def test_help_and_mistakes_import_neither_torch_nor_mlflow(arguments: list[str]) -> None:
    code = f"""
import sys, atexit
def report():
    heavy = sorted({{"torch", "mlflow", "torchvision", "sklearn", "matplotlib", "optuna"}} & set(sys.modules))
    print("imported:", heavy)
atexit.register(report)
sys.argv = ["src/train.py", *{arguments!r}]
import runpy
runpy.run_path("src/train.py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "imported: []" in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == (arguments == ["--help"])


@pytest.fixture(autouse=True)
def no_config_left() -> None:
    HydraConfig.instance().cfg = None


@pytest.mark.mnist
def test_an_mlp_learns_real_mnist_in_an_epoch(program: Program, mnist_root: Path) -> None:
    done = program("data=mnist", f"data.root={mnist_root}", "epochs=1")
    assert done.code == 0, done.err
    accuracy = metrics(done.output)["test/accuracy"]
    assert isinstance(accuracy, float)
    assert accuracy > 0.96
