import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from conftest import ROOT, Program, held_after_epoch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sweeps import children, gone, kill
from waiting import HANG_S, Started, wait_until

from iolaus import task
from iolaus.study import attributes
from iolaus.study.storage import open_storage
from iolaus.system import lease
from iolaus.tracking import mlflow_sweep, mlflow_tracker

Runs = dict[str, Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project root whose database is made once: that takes seconds."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def own_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    yield
    assert mlflow.active_run() is None


@pytest.fixture
def tracker(home: Path, request: pytest.FixtureRequest) -> mlflow_tracker.MLflowTracker:
    """With an experiment for each test."""
    return mlflow_tracker.MLflowTracker(request.node.name, f"sqlite:///{home}/mlflow.db", str(home / "mlruns"))


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=open_storage(str(tmp_path / "journal.log")))


def runs_of(experiment: str) -> tuple[list[Any], dict[int, Any]]:
    """The runs of sweeps in an experiment, and those of trials by number."""
    found = mlflow.get_experiment_by_name(experiment)
    assert found is not None
    runs = mlflow.MlflowClient().search_runs([found.experiment_id])
    trials = [run for run in runs if "trial" in run.data.tags]
    by_number = {int(run.data.tags["trial"]): run for run in trials}
    assert len(by_number) == len(trials)  # none is doubled
    return [run for run in runs if "trial" not in run.data.tags], by_number


def begun_trial(study: optuna.Study) -> optuna.Trial:
    attrs = {attributes.LEASE: lease.lease()}
    study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs=attrs, user_attrs={"folder": "0"}))
    return optuna.Trial(study, study.trials[-1]._trial_id)


def test_a_sweep_goes_on_in_its_run(tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path) -> None:
    tracker.begin_sweep(study, tmp_path)
    first = study.user_attrs["mlflow_run_id"]
    tracker.end_sweep(study, tmp_path, status="KILLED")
    assert mlflow.get_run(first).info.status == "KILLED"
    tracker.begin_sweep(study, tmp_path)
    assert mlflow.get_run(first).info.status == "RUNNING"
    tracker.end_sweep(study, tmp_path, status="FINISHED")
    assert study.user_attrs["mlflow_run_id"] == first
    assert mlflow.get_run(first).info.status == "FINISHED"


def test_a_sweep_that_was_not_tracked_when_it_began_has_a_run_at_its_end(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    tracker.end_sweep(study, tmp_path, status="FINISHED")
    assert mlflow.get_run(study.user_attrs["mlflow_run_id"]).info.status == "FINISHED"


def test_a_sweep_that_was_killed_before_it_noted_its_run_finds_it(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(key: str, value: object) -> None:
        if key == "mlflow_run_id":
            raise KeyboardInterrupt
        original(key, value)

    original = study.set_user_attr
    monkeypatch.setattr(study, "set_user_attr", killed)
    with pytest.raises(KeyboardInterrupt):
        tracker.begin_sweep(study, tmp_path)
    monkeypatch.undo()
    tracker.begin_sweep(study, tmp_path)
    assert len(runs_of(tracker.experiment_name)[0]) == 1


def test_a_run_and_its_trial_name_each_other(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    tracker.begin_sweep(study, tmp_path)
    trial = begun_trial(study)
    with tracker.run({"x": 1}, {}, trial=trial) as run:
        assert trial.user_attrs["mlflow_run_id"] == run.id
    tags = mlflow.get_run(run.id).data.tags
    assert tags["study"] == "s"
    assert tags["trial"] == "0"
    assert tags["mlflow.parentRunId"] == study.user_attrs["mlflow_run_id"]


@pytest.mark.parametrize("again", ["begin", "end"])
def test_the_run_of_a_lost_trial_is_ended_with_the_reason(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path, again: str
) -> None:
    tracker.begin_sweep(study, tmp_path)
    trial = begun_trial(study)
    with tracker.run({}, {}, trial=trial) as run:
        pass
    mlflow.MlflowClient().update_run(run.id, status="RUNNING")  # as kill -9 leaves it
    trial.set_user_attr("reason", "its worker was lost")
    study.tell(0, state=TrialState.FAIL)
    tracker.begin_sweep(study, tmp_path) if again == "begin" else tracker.end_sweep(study, tmp_path, "FINISHED")
    ended = mlflow.get_run(run.id)
    assert ended.info.status == "FAILED"
    assert ended.data.tags["reason"] == "its worker was lost"


def test_the_run_of_a_trial_at_work_is_left_alone(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    tracker.begin_sweep(study, tmp_path)
    with tracker.run({}, {}, trial=begun_trial(study)) as run:
        tracker.begin_sweep(study, tmp_path)  # of a second command
        assert mlflow.get_run(run.id).info.status == "RUNNING"


def test_the_run_of_a_task_whose_trial_failed_after_it_says_so(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    tracker.begin_sweep(study, tmp_path)
    trial = begun_trial(study)
    ids = repeats(tracker, trial, 2)
    trial.set_user_attr("reason", "ValueError: the task returned NaN")
    study.tell(0, state=TrialState.FAIL)
    for _ in range(2):
        tracker.end_sweep(study, tmp_path, status="FINISHED")
    runs = [mlflow.get_run(run_id) for run_id in ids]
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]  # the last repeat is the one to blame
    assert runs[1].data.tags["reason"] == "ValueError: the task returned NaN"


def test_a_trial_that_was_lost_before_its_run_was_noted_leaves_no_run_active(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    tracker.begin_sweep(study, tmp_path)
    trial = begun_trial(study)
    study.tell(0, state=TrialState.FAIL)
    with pytest.raises(UpdateFinishedTrialError), tracker.run({}, {}, trial=trial):
        pass
    assert mlflow.active_run() is None


def test_a_trial_that_failed_before_it_had_a_run_gets_one(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    tracker.begin_sweep(study, tmp_path)
    trial = begun_trial(study)
    trial.suggest_float("lr", 0, 1)
    trial.set_user_attr("reason", "ValueError: no such layer")
    study.tell(0, state=TrialState.FAIL)
    for _ in range(2):
        tracker.end_sweep(study, tmp_path, status="FINISHED")
    run = runs_of(tracker.experiment_name)[1][0]
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == "ValueError: no such layer"
    assert float(run.data.params["lr"]) == trial.params["lr"]


def test_a_pruned_trials_run_says_so_and_where_it_ended(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    tracker.begin_sweep(study, tmp_path)
    trial = study.ask()
    trial.report(0.5, 3)
    with pytest.raises(optuna.TrialPruned), tracker.run({}, {}, trial=trial) as run:
        raise optuna.TrialPruned("pruned at step 3")
    ended = mlflow.get_run(run.id)
    assert ended.info.status == "FINISHED"
    told = {name: ended.data.tags[name] for name in ("state", "pruned_at_step", "reason")}
    assert told == {"state": "PRUNED", "pruned_at_step": "3", "reason": "pruned at step 3"}


def repeats(tracker: mlflow_tracker.MLflowTracker, trial: optuna.Trial, count: int) -> list[str]:
    """The runs of a trial's repeats."""
    ids = []
    try:
        for repeat in range(count):
            task.set_current_trial(trial, repeat=repeat)
            with tracker.run({"seed": repeat}, {}, trial=trial) as run:
                ids.append(run.id)
    finally:
        task.set_current_trial(None)
    return [run_id for run_id in ids if run_id is not None]


def test_the_runs_of_repeats_have_the_trials_value(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    tracker.begin_sweep(study, tmp_path)
    ids = repeats(tracker, study.ask(), 2)
    study.tell(0, 0.75)
    for _ in range(2):
        tracker.end_sweep(study, tmp_path, status="FINISHED")
    runs = [mlflow.get_run(run_id) for run_id in ids]
    assert len(mlflow.MlflowClient().get_metric_history(ids[0], "trial/value")) == 1
    assert [run.data.tags["repeat"] for run in runs] == ["0", "1"]
    assert [run.info.run_name for run in runs] == ["trial 0, repeat 0", "trial 0, repeat 1"]
    assert [run.data.metrics["trial/value"] for run in runs] == [0.75, 0.75]


def test_a_trial_that_is_pruned_between_its_repeats_says_so_in_each_of_their_runs(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    tracker.begin_sweep(study, tmp_path)
    trial = study.ask()
    ids = repeats(tracker, trial, 2)
    trial.report(0.5, 1)
    study.tell(0, state=TrialState.PRUNED)
    tracker.end_sweep(study, tmp_path, status="FINISHED")
    for run_id in ids:
        ended = mlflow.get_run(run_id)
        assert ended.info.status == "FINISHED"
        assert (ended.data.tags["state"], ended.data.tags["pruned_at_step"]) == ("PRUNED", "1")


def test_the_sweeps_run_tells_the_best(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    study.set_user_attr("iolaus:identity", {"space.x": "Float 0 to 1", "epochs": "3"})
    tracker.begin_sweep(study, tmp_path)
    for value in (3.0, 1.0, 2.0):
        trial = begun_trial(study)
        with tracker.run({}, {}, trial=trial):
            pass
        study.tell(trial, value)
    (tmp_path / "optimization_results.yaml").write_text("best_value: 1.0")
    tracker.end_sweep(study, tmp_path, status="FINISHED")
    run = mlflow.get_run(study.user_attrs["mlflow_run_id"])
    assert run.data.metrics["best/value"] == 1.0
    assert run.data.metrics["best/trial"] == 1
    assert run.data.metrics["trials/complete"] == 3
    assert run.data.tags["best_run_id"] == study.trials[1].user_attrs["mlflow_run_id"]
    assert run.data.params == {"space.x": "Float 0 to 1", "epochs": "3"}
    assert mlflow.MlflowClient().list_artifacts(run.info.run_id)[0].path == "optimization_results.yaml"


def test_what_is_added_and_deleted_has_a_name_that_mlflow_takes(
    tracker: mlflow_tracker.MLflowTracker, study: optuna.Study, tmp_path: Path
) -> None:
    study.set_user_attr("iolaus:identity", {"space.+optimizer.amsgrad": "a", "+x": "1", "db@src": "2"})
    tracker.begin_sweep(study, tmp_path)
    params = mlflow.get_run(study.user_attrs["mlflow_run_id"]).data.params
    assert params == {"space._optimizer.amsgrad": "a", "x": "1", "db_src": "2"}


@pytest.fixture(scope="module")
def killed_and_gone_on_with(home: Path, digits_root: Path) -> list[FrozenTrial]:
    """A sweep of real training by two workers, all killed in the middle, and started again; some trials diverge."""
    command = [
        sys.executable, "src/train.py", "-m", "hparams_search=optuna", "data=digits", f"data.root={digits_root}",
        f"root={home}", "hydra.sweeper.study_name=killed", "hydra.sweeper.n_trials=10", "hydra.sweeper.n_jobs=2",
        "epochs=2", "optimizer=sgd", "model=mlp", "optimizer.lr=choice(0.01,0.02,1e30)",
        "hydra.sweeper.max_failure_rate=1", "tracking.experiment_name=e2e", *held_after_epoch(1, home),
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = str(ROOT / "tests")
    journal = home / "multirun" / "killed" / "journal.log"

    def two_are_recorded() -> bool:
        return journal.exists() and journal.read_text().count("mlflow_run_id") >= 3

    with Started(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: two_are_recorded() or process.poll() is not None)
        workers = children(process.pid)
        kill([process.pid, *workers])
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: all(gone(worker) for worker in workers))
    (home / "hold").unlink()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return optuna.load_study(study_name="killed", storage=open_storage(str(journal))).trials


def test_after_kill_nine_each_trial_has_one_finished_run(killed_and_gone_on_with: list[FrozenTrial]) -> None:
    parents, runs = runs_of("e2e")
    assert [parent.info.status for parent in parents] == ["FINISHED"]
    for trial in killed_and_gone_on_with:
        if "folder" in trial.user_attrs:
            assert runs[trial.number].info.status == mlflow_sweep.status_of(trial)
            assert runs[trial.number].data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        if trial.state == TrialState.COMPLETE:
            assert trial.user_attrs["mlflow_run_id"] == runs[trial.number].info.run_id


def test_a_diverged_trial_has_its_reason_everywhere(killed_and_gone_on_with: list[FrozenTrial], home: Path) -> None:
    runs = runs_of("e2e")[1]
    diverged = [t for t in killed_and_gone_on_with if t.system_attrs.get(attributes.END) == attributes.FAILED]
    assert diverged
    for trial in diverged:
        assert "the loss became" in trial.user_attrs["reason"]
        assert "the loss became" in runs[trial.number].data.tags["reason"]
        log = home / "multirun" / "killed" / trial.user_attrs["folder"] / "train.log"
        assert "Traceback" in log.read_text()


def test_a_direction_that_is_not_the_objectives_is_refused_before_anything_is_made(program: Program) -> None:
    done = program("-m", "hparams_search=optuna", "hydra.sweeper.direction=minimize")
    assert done.code == 1
    assert "hydra.sweeper.direction must be maximize for val/accuracy (where none is given it is minimize)" in done.err
    assert not (done.output / "journal.log").exists()


def test_the_best_trial_keeps_the_bounds_of_its_metrics(program: Program) -> None:
    done = program(
        "-m", "hydra/sweeper=iolaus", "hydra.sweeper.direction=maximize", "constraints={params: 1000}", "epochs=1",
        "model.hidden_sizes=choice([8],[16])", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_jobs=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    best = next(line for line in done.out.splitlines() if "once more:" in line)
    assert "model.hidden_sizes=[8]" in best  # 610 parameters, the other has 1,210


def test_a_bound_of_what_is_no_metric_is_refused_before_anything_is_made(program: Program) -> None:
    done = program("-m", "hparams_search=optuna", "constraints={parms: 10000}")
    assert done.code == 1
    assert (
        "constraints must be bounds of val/accuracy, val/loss, fit_s, params, images_per_s, but got parms" in done.err
    )
    assert not (done.output / "journal.log").exists()


def test_a_direction_is_asked_for_each_objective(program: Program) -> None:
    done = program("-m", "hparams_search=optuna", "objective=[val/accuracy,params]")
    assert done.code == 1
    assert "hydra.sweeper.direction has 1 directions for 2 objectives: give one for each" in done.err
