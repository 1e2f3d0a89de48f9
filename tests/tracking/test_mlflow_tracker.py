import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from conftest import HELD, ROOT, Outcome, Program, held_after_epoch, started, wait_for
from waiting import HANG_S, wait_until

from iolaus.classifier.data.dataset import Data
from iolaus.classifier.run.predictor import Predictor
from iolaus.classifier.training import checkpoint, device, loop
from iolaus.errors import InputError
from iolaus.system import provenance
from iolaus.tracking.mlflow_tracker import MLflowTracker


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project root whose database is made once: that takes seconds."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    assert mlflow.active_run() is None
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")


@pytest.fixture
def tracked(program: Program, home: Path) -> Program:
    def run(*arguments: str) -> Outcome:
        return program("tracking=mlflow", f"root={home}", *arguments)

    return run


def newest(home: Path) -> mlflow.entities.Run:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    runs = mlflow.MlflowClient().search_runs(
        [experiment.experiment_id for experiment in mlflow.search_experiments()], order_by=["start_time DESC"]
    )
    return runs[0]


@pytest.fixture(scope="module")
def cnn_run(home: Path, digits_root: Path) -> tuple[mlflow.entities.Run, Path]:
    """A whole tracked run in a process of its own."""
    output = home / "cnn"
    subprocess.run(
        [sys.executable, "src/train.py", "data=digits", f"data.root={digits_root}", "model=cnn_dropout", "epochs=3",
         "optimizer.lr=0.01", "seed=4", f"root={home}", f"hydra.run.dir={output}"],
        cwd=ROOT, check=True, capture_output=True, env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"},
    )  # fmt: skip
    return newest(home), output


Recorded = tuple[mlflow.entities.Run, Path]


def test_params_are_the_configuration_under_its_own_names(cnn_run: Recorded) -> None:
    params = cnn_run[0].data.params
    expected = {
        "model": "cnn_dropout",
        "model._target_": "iolaus.classifier.models.CNN", "model.dropout": "0.2", "optimizer": "adam",
        "optimizer.lr": "0.01", "scheduler.max_lr": "0.01", "data.batch_size": "64", "epochs": "3", "seed": "4",
        "early_stopping.patience": "None", "loss.label_smoothing": "0.0", "objective": "val/accuracy",
    }  # fmt: skip
    assert {name: params[name] for name in expected} == expected
    assert not any("_partial_" in name for name in params)


def test_overrides_commit_versions_and_what_auto_meant_are_tags(cnn_run: Recorded) -> None:
    tags = cnn_run[0].data.tags
    assert "model=cnn_dropout epochs=3 optimizer.lr=0.01 seed=4" in tags["overrides"]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if commit.returncode == 0:
        assert tags["mlflow.source.git.commit"] == commit.stdout.strip()
        assert tags["git_dirty"] in ("true", "false")
    assert tags["version.torch"] == torch.__version__.split("+")[0]
    assert tags["version.python"] == ".".join(map(str, sys.version_info[:3]))
    assert (tags["resolved.device"], tags["resolved.precision"]) in (("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "bf16"))
    assert int(tags["resolved.threads"]) >= 1


def test_each_epoch_and_the_best_values_are_metrics(cnn_run: Recorded) -> None:
    run, output = cnn_run
    results = json.loads((output / "metrics.json").read_text())
    client = mlflow.MlflowClient()
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [(point.step, point.value) for point in history] == [
            (epoch, values[name]) for epoch, values in enumerate(results["history"], start=1)
        ]
        assert run.data.metrics[f"best/{name}"] == results[name]
    assert run.data.metrics["best/epoch"] == results["best_epoch"]
    for name in ("test/accuracy", "test/loss", "fit_s", "images_per_s", "params"):
        assert run.data.metrics[name] == results[name]


def test_the_logged_model_carries_the_runs_final_metrics(cnn_run: Recorded) -> None:
    run, output = cnn_run
    results = json.loads((output / "metrics.json").read_text())
    (logged,) = mlflow.search_logged_models([run.info.experiment_id], output_format="list")
    assert logged.source_run_id == run.info.run_id
    values = {metric.key: metric.value for metric in logged.metrics}
    assert values["test/accuracy"] == results["test/accuracy"]
    assert values["best/val/loss"] == results["val/loss"]


def test_the_data_set_is_an_input_of_the_run(cnn_run: Recorded, digits: Data) -> None:
    (recorded,) = cnn_run[0].inputs.dataset_inputs
    assert (recorded.dataset.name, recorded.dataset.digest) == ("digits", digits.digest[:32])


def test_config_pictures_and_state_dict_are_artifacts(cnn_run: Recorded, home: Path) -> None:
    run, _ = cnn_run
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert names >= {
        "model.pt", "config.yaml", "metrics.json", "samples.png", "curves.png", "confusion.png", "mistakes.png",
    }  # fmt: skip
    assert run.info.artifact_uri.startswith((home / "mlruns").as_uri())
    assert run.info.status == "FINISHED"


def test_state_dict_and_mlflow_model_give_the_runs_logits(cnn_run: Recorded, digits: Data, home: Path) -> None:
    run, output = cnn_run
    client = mlflow.MlflowClient()
    fetched = client.download_artifacts(run.info.run_id, "model.pt")
    saved = checkpoint.load_model(fetched)
    placed = device.place(saved.model, torch.device("cpu"))
    logits, labels = loop.infer(placed, digits.loader("test"), precision=run.data.tags["resolved.precision"])
    results = json.loads((output / "metrics.json").read_text())
    assert (logits.argmax(1) == labels).double().mean().item() == results["test/accuracy"]
    assert torch.nn.functional.cross_entropy(logits.double(), labels).item() == results["test/loss"]

    deployed = Predictor.load(f"runs:/{run.info.run_id}/model", tracking_uri=f"sqlite:///{home}/mlflow.db")
    pixels = digits.test.images.float() / 255
    exact, _ = loop.infer(placed, digits.loader("test"), precision="fp32")  # the run itself may have used bf16
    torch.testing.assert_close(deployed.logits(pixels), exact, rtol=1e-3, atol=1e-4)
    assert (deployed.classes, deployed.digit_box, deployed.input_shape) == (digits.classes, 8, (1, 8, 8))
    info = mlflow.models.get_model_info(f"runs:/{run.info.run_id}/model")
    assert str(info.signature.inputs.inputs[0].type) == "float32"
    assert info.saved_input_example_info is not None


def test_a_failed_run_says_failed_and_why(tracked: Program, home: Path) -> None:
    done = tracked("optimizer=sgd", "optimizer.lr=1e30")
    assert "the loss became" in done.message
    run = newest(home)
    assert run.info.status == "FAILED"
    assert "the loss became" in run.data.tags["reason"]


def test_an_interrupted_run_is_killed_and_its_resumption_goes_on_in_it(
    home: Path, digits_root: Path, tracked: Program
) -> None:
    overrides = ["epochs=4", *held_after_epoch(2, home), f"hydra.run.dir={home}/cut"]
    with started(home, digits_root, *overrides, tracking="mlflow") as run:
        wait_for(run, "epoch 2/")
        run.send_signal(signal.SIGINT)
        rest, _ = run.communicate(timeout=HANG_S)
    (home / "hold").unlink()
    assert run.returncode != 0
    assert "Traceback" not in rest
    killed = newest(home)
    assert (killed.info.status, killed.data.tags["reason"]) == ("KILLED", "interrupted")

    done = tracked(HELD, f"resume={home}/cut/checkpoint.pt")
    assert done.code == 0, done.err
    resumed = mlflow.get_run(killed.info.run_id)
    assert (resumed.info.status, newest(home).info.run_id) == ("FINISHED", killed.info.run_id)
    assert "reason" not in resumed.data.tags
    history = mlflow.MlflowClient().get_metric_history(killed.info.run_id, "val/loss")
    assert [point.step for point in history] == list(range(1, 5))


def test_a_run_that_was_killed_outright_goes_on_in_its_mlflow_run(
    home: Path, digits_root: Path, tracked: Program
) -> None:
    overrides = ["epochs=4", *held_after_epoch(2, home), f"hydra.run.dir={home}/killed"]
    with started(home, digits_root, *overrides, tracking="mlflow") as run:
        wait_for(run, "epoch 2/")
        run.kill()
    (home / "hold").unlink()
    left = newest(home)
    assert left.info.status == "RUNNING"
    done = tracked(HELD, f"resume={home}/killed/checkpoint.pt")
    assert done.code == 0, done.err
    assert mlflow.get_run(left.info.run_id).info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(left.info.run_id, "val/loss")
    assert [point.step for point in history] == list(range(1, 5))


def test_a_deleted_experiment_is_named_in_one_line(tracked: Program, home: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    mlflow.delete_experiment(mlflow.create_experiment("gone"))
    done = tracked("tracking.experiment_name=gone")
    assert done.code != 0
    assert "cannot be used" in done.message
    assert "active" in done.message


def test_a_model_that_torch_export_cannot_take_is_recorded_without_its_mlflow_model(
    tracked: Program, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wavering.py").write_text(
        "from torch import nn\n"
        "class Wavering(nn.Sequential):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))\n"
        "    def forward(self, images):\n"
        "        return super().forward(images if images.max() > 0 else -images)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = tracked(
        "model._target_=wavering.Wavering", "~model.hidden_sizes", "~model.dropout", "tracking.experiment_name=own"
    )
    assert done.code == 0, done.err
    assert "no MLflow model: torch.export cannot take this one (Could not guard on data-dependent" in done.out
    assert "def forward" not in done.out + done.err
    run = newest(home)
    assert run.info.status == "FINISHED"
    assert "data-dependent" in run.data.tags["model_not_exported"]
    results = json.loads((done.output / "metrics.json").read_text())
    assert run.data.metrics["test/accuracy"] == results["test/accuracy"]
    assert "model.pt" in {item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)}


def test_a_failure_to_store_the_mlflow_model_is_not_blamed_on_the_model(
    tracked: Program, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device", "model.pt2")

    monkeypatch.setattr(torch.export, "save", full)
    done = tracked()
    assert done.code != 0
    assert "no space left" in done.message
    assert newest(home).info.status == "FAILED"


def test_trials_of_a_search_record_a_state_dict_but_no_mlflow_model(tracked: Program, home: Path) -> None:
    done = tracked("-m", "hparams_search=optuna", "hydra.sweeper.n_trials=1", "epochs=1", "tracking.experiment_name=s")
    assert done.code == 0, done.err
    run = newest(home)
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert names == {"model.pt", "config.yaml", "metrics.json"}
    assert "test/accuracy" not in run.data.metrics
    assert not mlflow.search_logged_models([run.info.experiment_id], output_format="list")


def test_a_server_that_does_not_answer_is_a_clear_line_at_once(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def sleep(_: float) -> None:
        pytest.fail("it waits to ask again")

    monkeypatch.setattr(time, "sleep", sleep)
    done = program("tracking=mlflow", f"tracking.uri=http://127.0.0.1:{port}")
    assert f"the MLflow server at http://127.0.0.1:{port} does not answer" in done.message
    assert "tracking=none" in done.message


def test_a_server_that_is_something_else_is_a_clear_line(program: Program) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = program("tracking=mlflow", f"tracking.uri=http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "cannot be used" in done.message


def test_a_database_that_is_none_is_a_clear_line(program: Program, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_text("this is no database, though long enough to be taken for one" * 100)
    done = program("tracking=mlflow", f"tracking.uri=sqlite:///{tmp_path}/broken.db")
    assert "MLflow at sqlite:///" in done.message
    assert "tracking=none" in done.message


def test_a_server_that_speaks_something_else_is_a_clear_line_without_the_password(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=greet, daemon=True).start()
        done = program("tracking=mlflow", f"tracking.uri=http://user:secret@127.0.0.1:{port}")
    assert f"the MLflow server at http://127.0.0.1:{port} does not answer" in done.message
    assert "secret" not in done.message


def test_mlflow_that_fails_in_mid_run_is_a_clear_line_that_names_the_checkpoint(
    tracked: Program, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_metrics = mlflow.log_metrics

    def gone(values: dict[str, float], step: int | None = None, **keywords: object) -> None:
        if step == 2:
            raise mlflow.exceptions.MlflowException("connection refused\nand more")
        log_metrics(values, step=step, **keywords)

    monkeypatch.setattr(mlflow, "log_metrics", gone)
    done = tracked()
    assert done.code == 1
    assert "stopped working (connection refused): fix it and go on from checkpoint.pt with resume" in done.message
    assert str(done.output) in done.message
    monkeypatch.undo()
    resumed = tracked(f"resume={done.output}/checkpoint.pt")
    assert resumed.code == 0, resumed.err
    run = newest(home)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val/loss")
    assert (run.info.status, [point.step for point in history]) == ("FINISHED", [1, 2])


def test_a_run_that_goes_on_records_no_epoch_twice_whatever_its_metrics(home: Path, tmp_path: Path) -> None:
    tracker = MLflowTracker("epochs", f"sqlite:///{home}/mlflow.db", str(tmp_path / "mlruns"))
    history = [{"train/loss": 3.0}, {"train/loss": 2.0}, {"train/loss": 1.0}]
    with tracker.run({}, {}) as run:
        run.log_epochs(history[:2])
    with tracker.run({}, {}, run.id) as resumed:
        resumed.log_epochs([])
        resumed.log_epochs(history[:1])  # an older checkpoint than the newest
        resumed.log_epochs(history)
    assert resumed.id == run.id
    points = mlflow.MlflowClient().get_metric_history(run.id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 3.0), (2, 2.0), (3, 1.0)]


def test_an_address_without_a_model_is_a_clear_line(home: Path) -> None:
    with pytest.raises(InputError, match=r"models:/nothing/1 cannot be loaded"):
        Predictor.load("models:/nothing/1", tracking_uri=f"sqlite:///{home}/mlflow.db")


def test_a_pickled_model_of_mlflow_is_refused_and_not_run(home: Path, tmp_path: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"  # of whoever made it
    try:
        with mlflow.start_run(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            info = mlflow.pytorch.log_model(
                torch.nn.Linear(2, 2), name="model", serialization_format="pickle", pip_requirements=["torch"],
                metadata={"classes": ["a", "b"], "digit_box": None},
            )  # fmt: skip
    finally:
        del os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"]
    with pytest.raises(InputError, match=r"cannot be loaded: .*pickle"):
        Predictor.load(info.model_uri)


def test_a_registered_model_is_found_by_name_version_and_alias(cnn_run: Recorded, home: Path, digits: Data) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    version = mlflow.register_model(f"runs:/{cnn_run[0].info.run_id}/model", "iolaus-test").version
    mlflow.MlflowClient().set_registered_model_alias("iolaus-test", "champion", version)
    pixels = digits.test.images[:5].float() / 255
    by_version = Predictor.load(f"models:/iolaus-test/{version}").logits(pixels)
    by_alias = Predictor.load("models:/iolaus-test@champion").logits(pixels)
    assert by_version.shape == (5, 10)
    assert torch.equal(by_version, by_alias)


def test_provenance_outside_a_repository_names_no_commit(tmp_path: Path) -> None:
    assert "mlflow.source.git.commit" not in provenance.tags(tmp_path)


def answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=HANG_S):
        return True
    return False


def test_the_logged_model_answers_over_http(cnn_run: Recorded, home: Path, digits: Data) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with open(home / "serve.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"runs:/{cnn_run[0].info.run_id}/model",
             "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{port}/ping"))
        assert server.poll() is None, (home / "serve.log").read_text()
        pixels = digits.test.images[:7].float() / 255
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps({"inputs": pixels.tolist()}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            served = np.array(json.load(answer)["predictions"])
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # MLflow leaves its uvicorn child otherwise
        server.wait(HANG_S)
    expected = checkpoint.load_model(cnn_run[1] / "model.pt").pixels_to_logits()
    with torch.inference_mode():
        np.testing.assert_allclose(served, expected(pixels).numpy(), rtol=1e-3, atol=1e-4)


def test_nothing_of_a_run_that_has_ended_is_kept_in_memory(tracked: Program) -> None:
    from mlflow.tracking._tracking_service import utils

    before = len(utils._artifact_repos_cache)
    assert tracked("model.hidden_sizes=[8]", "epochs=1").code == 0
    assert len(utils._artifact_repos_cache) == before
