"""The callback in small apps, which know no tracker of ours."""

import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from conftest import ROOT
from in_process import NewSweep, Sweep
from optuna.trial import TrialState
from sweeps import App, children, gone, kill
from waiting import wait_until

from iolaus.tracking import mlflow_sweep
from iolaus.tracking.environment import absolute_uri, artifacts_beside
from iolaus.tracking.mlflow_callback import MLflowCallback

PAGE = (ROOT / "docs" / "sweeper.md").read_text().partition("\n## MLflow\n")[2]
CONFIG = """
defaults: [{override hydra/sweeper: iolaus}]
x: 0.0
seed: 0
home: ${oc.env:HOME}
hydra:
  callbacks:
    mlflow: {_target_: iolaus.tracking.mlflow_callback.MLflowCallback}
"""


def app(body: str) -> str:
    """The source of an app whose task has this body."""
    lines = "\n    ".join(body.strip().splitlines())
    return f"""
import hydra, iolaus, mlflow, optuna, os

@hydra.main(config_path="conf", config_name="config", execution_whitelist=["iolaus.*", "app.*"])
def main(cfg):
    {lines}

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a database that is made once: that takes seconds."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    yield
    assert mlflow.active_run() is None


@pytest.fixture
def new_app(new_sweep: NewSweep, request: pytest.FixtureRequest) -> Callable[..., Sweep]:
    """Make an app of a task's body, with an experiment for each test."""

    def make(body: str, **conf: str) -> Sweep:
        named = CONFIG.replace("MLflowCallback", f"MLflowCallback, experiment_name: {request.node.name}")
        return new_sweep(app(body), {"config.yaml": conf.get("config", named)})

    return make


def runs_of(experiment: str) -> tuple[list[Any], dict[str, Any]]:
    """The runs of sweeps, and of single runs, in an experiment, and those of trials by name."""
    known = mlflow.get_experiment_by_name(experiment)
    assert known is not None
    runs = mlflow.MlflowClient().search_runs([known.experiment_id])
    trials = [run for run in runs if "trial" in run.data.tags]
    by_name = {run.info.run_name: run for run in trials}
    assert len(by_name) == len(trials)  # none is doubled
    return [run for run in runs if "trial" not in run.data.tags], by_name


def curve(run: Any, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in mlflow.MlflowClient().get_metric_history(run.info.run_id, metric)]


def test_the_pages_example_records_a_sweep_and_its_trials(
    new_sweep: NewSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    blocks = dict(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
    sweep = new_sweep(blocks["python"], {"config.yaml": blocks["yaml"]})
    (command,) = re.findall(r"^    python app.py -m (.*)$", PAGE, re.MULTILINE)
    for _ in range(2):  # the second time nothing is added
        done = sweep(*shlex.split(command), n_trials=3)
        assert done.code == 0, done.err
    assert (tmp_path / "mlflow.db").exists()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")

    (parent,), runs = runs_of("mine")
    trials = sweep.trials()
    best = min(trials, key=lambda trial: trial.value or 0.0)
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "study")
    assert parent.data.params["space.x"] == "0.0 to 5.0"
    assert parent.data.metrics["best/value"] == best.value
    assert parent.data.metrics["trials/complete"] == 3
    assert parent.data.tags["best_run_id"] == runs[f"trial {best.number}"].info.run_id
    assert mlflow.MlflowClient().list_artifacts(parent.info.run_id)[0].path == "optimization_results.yaml"
    assert parent.info.artifact_uri.startswith((tmp_path / "mlruns").as_uri())
    assert sorted(runs) == ["trial 0", "trial 1", "trial 2"]
    for trial in trials:
        run = runs[f"trial {trial.number}"]
        assert run.info.status == "FINISHED"
        assert run.data.params == {"x": str(trial.params["x"])}
        assert run.data.metrics == {"value": trial.value, "distance": abs(trial.params["x"] - 2)}
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["output_dir"] == str(tmp_path / "study" / str(trial.number))
        assert run.data.tags["overrides"] == f"x={trial.params['x']}"
        assert trial.user_attrs["mlflow_run_id"] == run.info.run_id


def test_each_end_of_a_trial_is_told_by_its_run(new_app: Callable[..., Sweep], request: pytest.FixtureRequest) -> None:
    sweep = new_app("""
mlflow.log_params({"x": cfg.x, "seed": cfg.seed})  # what the run has already
iolaus.report(0, 5.0)
iolaus.report(1, 6.0)
if cfg.x == 1:
    raise optuna.TrialPruned("enough")
if cfg.x == 2:
    raise RuntimeError("no such layer")
if cfg.x == 3:
    return float("nan")
if cfg.x == 4:
    mlflow.end_run()
if cfg.x == 5:
    mlflow.start_run(nested=True)
return cfg.x
""")
    done = sweep(
        "x=choice(0,1,2,3,4,5,6)", "hydra/sweeper/sampler=grid", "hydra.sweeper.max_failure_rate=1", n_trials=7
    )  # fmt: skip
    assert done.code == 0, done.err
    runs = runs_of(request.node.name)[1]
    by_x = {trial.params["x"]: runs[f"trial {trial.number}"] for trial in sweep.trials()}
    statuses = {x: run.info.status for x, run in by_x.items()}
    assert statuses == {
        0: "FINISHED", 1: "FINISHED", 2: "FAILED", 3: "FAILED", 4: "FINISHED", 5: "FINISHED", 6: "FINISHED",
    }  # fmt: skip
    reasons = {x: run.data.tags["reason"] for x, run in by_x.items() if "reason" in run.data.tags}
    assert reasons == {
        1: "enough", 2: "RuntimeError: no such layer", 3: "ValueError: the task returned NaN",
    }  # fmt: skip
    assert (by_x[1].data.tags["state"], by_x[1].data.tags["pruned_at_step"]) == ("PRUNED", "1")
    values = {x: run.data.metrics["value"] for x, run in by_x.items() if "value" in run.data.metrics}
    assert values == {0: 0.0, 4: 4.0, 5: 5.0, 6: 6.0}
    for run in by_x.values():
        assert curve(run, "reported") == [(0, 5.0), (1, 6.0)]
        assert set(run.data.params) == {"x", "seed"}  # not home, which comes from the environment


def test_each_repeat_has_a_run_with_its_own_curve(
    new_app: Callable[..., Sweep], request: pytest.FixtureRequest
) -> None:
    sweep = new_app("iolaus.report(0, cfg.seed)\nreturn cfg.x + cfg.seed")
    assert sweep("x=choice(1)", "hydra.sweeper.repeats=2", n_trials=1).code == 0
    runs = runs_of(request.node.name)[1]
    first, second = runs["trial 0, repeat 0"], runs["trial 0, repeat 1"]
    assert [run.data.params["seed"] for run in (first, second)] == ["0", "1"]
    assert first.data.metrics == {"reported": 0.0, "value": 1.0, "trial/value": 1.5}
    assert second.data.metrics == {"reported": 1.0, "value": 2.0, "trial/value": 1.5}


def test_several_objectives_are_metrics_of_their_own(
    new_app: Callable[..., Sweep], request: pytest.FixtureRequest
) -> None:
    sweep = new_app("return cfg.x, 2 * cfg.x")
    assert sweep("x=choice(1)", "hydra.sweeper.direction=[minimize,maximize]", n_trials=1).code == 0
    assert runs_of(request.node.name)[1]["trial 0"].data.metrics == {"value/0": 1.0, "value/1": 2.0}


def test_an_interrupted_trial_is_killed_and_the_same_command_goes_on_in_the_sweeps_run(
    new_app: Callable[..., Sweep], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    sweep = new_app("""
if not os.path.exists("interrupted"):
    open("interrupted", "w").close()
    raise KeyboardInterrupt
return cfg.x
""")
    assert sweep("x=interval(0,1)").code == 130
    (parent,), runs = runs_of(request.node.name)
    assert (parent.info.status, runs["trial 0"].info.status) == ("KILLED", "KILLED")
    assert runs["trial 0"].data.tags["reason"] == "interrupted"
    assert sweep("x=interval(0,1)").code == 0
    (parent,), runs = runs_of(request.node.name)
    assert parent.info.status == "FINISHED"
    assert {name: run.info.status for name, run in runs.items()} == {
        "trial 0": "KILLED", "trial 1": "FINISHED", "trial 2": "FINISHED",
    }  # fmt: skip
    assert runs["trial 1"].data.params == runs["trial 0"].data.params


def test_jobs_that_are_no_trials_are_single_runs_in_an_experiment_of_the_apps_name(
    new_app: Callable[..., Sweep],
) -> None:
    sweep = new_app('iolaus.report(1, 5.0)\nreturn cfg.x if cfg.x else "none"', config=CONFIG)
    done = sweep._run("hydra/sweeper=basic", "x=1,0")
    assert done.code == 0, done.err
    source = sweep.folder / "app.py"
    source.write_text(f"import sys\nsys.argv.remove('-m')\n{source.read_text()}")  # a single run
    done = sweep._run("hydra.run.dir=alone")
    assert done.code == 0, done.err
    runs, trials = runs_of("app")
    assert not trials
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert sorted(run.data.params["x"] for run in runs) == ["0", "0.0", "1"]
    assert [run.data.metrics["value"] for run in runs if run.data.params["x"] == "1"] == [1.0]
    assert all(curve(run, "reported") == [(1, 5.0)] for run in runs)
    assert all("mlflow.parentRunId" not in run.data.tags for run in runs)


def test_a_missing_mlflow_is_one_line(new_app: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = new_app("return cfg.x")
    (sweep.folder / "app.py").write_text((sweep.folder / "app.py").read_text().replace(" mlflow,", ""))
    monkeypatch.setitem(sys.modules, "mlflow", None)
    line = "error: MLflow is not installed: install it, or take the callback out of hydra.callbacks"
    assert sweep.refused("x=interval(0,1)") == line
    with pytest.raises(SystemExit, match=line):
        start(MLflowCallback("mine"))
    monkeypatch.undo()


def start(callback: MLflowCallback) -> None:
    """Have a callback start the run of a job."""
    from omegaconf import OmegaConf

    hydra = {"job": {"name": "app"}, "overrides": {"task": []}, "runtime": {"output_dir": "."}}
    callback.on_job_start(OmegaConf.create({"x": 1, "hydra": hydra}), task_function=lambda _: None)


def test_a_run_that_the_app_has_started_before_is_left_alone() -> None:
    with mlflow.start_run() as run:
        with pytest.raises(SystemExit, match=f"MLflow's run {run.info.run_id} is active already"):
            start(MLflowCallback("mine"))
        assert mlflow.active_run() is not None


def test_a_reported_value_that_mlflow_does_not_take_is_no_failure(
    new_app: Callable[..., Sweep], request: pytest.FixtureRequest
) -> None:
    sweep = new_app("""
from unittest import mock
with mock.patch("mlflow.log_metrics", side_effect=mlflow.exceptions.MlflowException("try later")) as log_metrics:
    iolaus.report(0, 1.0)
    iolaus.report(1, 1.0)
assert log_metrics.call_count == 1
return cfg.x
""")
    assert sweep("x=interval(0,1)", n_trials=1).code == 0
    assert sweep.trials()[0].intermediate_values == {0: 1.0, 1: 1.0}
    assert runs_of(request.node.name)[1]["trial 0"].info.status == "FINISHED"
    log = (sweep.folder / "study" / "0" / "app.log").read_text()
    assert log.count("reported values are no longer recorded in MLflow: try later") == 1


def test_several_workers_killed_in_mid_trial_leave_no_run_open_and_none_twice(home: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    named = CONFIG.replace("MLflowCallback", "MLflowCallback, experiment_name: killed")
    (tmp_path / "conf" / "config.yaml").write_text(named)
    folder = "hydra.core.hydra_config.HydraConfig.get().runtime.output_dir"
    source = app(f"from waiting import pass_gate\npass_gate({folder})\nreturn (cfg.x - 2) ** 2")
    killed = App(tmp_path, "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4", source=source)
    killed.hold()
    journal = Path(killed.storage)

    def two_are_recorded() -> bool:
        return journal.exists() and journal.read_text().count("mlflow_run_id") >= 3  # the sweep's is one

    with killed.start(out=tmp_path / "out") as process:
        wait_until(lambda: two_are_recorded() or process.poll() is not None)
        workers = children(process.pid)
        kill([process.pid, *workers])
    assert process.returncode == -signal.SIGKILL, (tmp_path / "out").read_text()
    wait_until(lambda: all(gone(worker) for worker in workers))
    (parent,), runs = runs_of("killed")
    assert {run.info.status for run in (parent, *runs.values())} == {"RUNNING"}

    killed.go()
    killed.run()
    (parent,), runs = runs_of("killed")
    assert parent.info.status == "FINISHED"
    trials = killed.trials()
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) == 4
    for trial in trials:
        if "folder" in trial.user_attrs:
            run = runs[f"trial {trial.number}"]
            assert run.info.status == mlflow_sweep.status_of(trial)
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    lost = [trial for trial in trials if trial.state == TrialState.FAIL and "folder" in trial.user_attrs]
    assert [runs[f"trial {trial.number}"].data.tags["reason"] for trial in lost] == ["its worker was lost"] * 2


WINNER = """
iolaus.require_same("the data", "digest")
if iolaus.is_final():
    run_id = mlflow.active_run().info.run_id  # as log_model does, though without files
    model = mlflow.initialize_logged_model(name="model", source_run_id=run_id)
    mlflow.finalize_logged_model(model.model_id, "READY")
    mlflow.MlflowClient().log_outputs(run_id, [mlflow.entities.LoggedModelOutput(model.model_id, 0)])
return cfg.x + cfg.seed / 1000
"""


def test_the_winner_of_the_finals_is_registered_with_its_evidence(new_app: Callable[..., Sweep]) -> None:
    sweep = new_app(WINNER)
    source = sweep.folder / "app.py"
    callback = (
        "from hydra.experimental.callback import Callback\n"
        "class Finals(Callback):\n    def final_overrides(self, config, results):\n        return []\n"
    )
    source.write_text(callback + source.read_text())
    finals = [
        "hydra/sweeper/finals=seeds", "hydra.sweeper.finals.k=1", "hydra.sweeper.finals.r=3",
        "+hydra.callbacks.finals={_target_:app.Finals}", "+hydra.callbacks.mlflow.model='mine-{seed}'",
    ]  # fmt: skip
    done = sweep("x=choice(0,1)", "hydra/sweeper/sampler=grid", *finals)
    assert done.code == 0, done.err
    assert "new champion: mine-1 version 1 (the first): models:/mine-1@champion" in done.out
    version = mlflow.MlflowClient().get_model_version_by_alias("mine-1", "champion")
    assert version.tags["finals.values"] == "[0.001, 0.002, 0.003]"
    assert version.tags["finals.measured_on"] == "the data digest"
    assert version.tags["study"] == "study"
    last = mlflow.get_run(version.run_id)
    assert last.data.tags["study"] == "study-test"
    part = mlflow.get_run(last.data.tags["mlflow.parentRunId"])
    whole = mlflow.get_run(part.data.tags["mlflow.parentRunId"])
    assert (part.info.run_name, whole.info.run_name) == ("study-test", "study")
    assert whole.data.metrics["finals/mean"] == pytest.approx(0.002)


def test_a_database_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("sqlite:////elsewhere/mlflow.db") == "sqlite:////elsewhere/mlflow.db"
    assert absolute_uri("https://server") == "https://server"
    assert artifacts_beside("sqlite:////elsewhere/mlflow.db") == Path("/elsewhere/mlruns")
    assert artifacts_beside("postgresql://server/mlflow") == tmp_path / "mlruns"
