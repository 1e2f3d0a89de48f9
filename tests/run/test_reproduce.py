import shlex
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
from conftest import ROOT, Program

from iolaus.classifier.run import reproduce
from iolaus.classifier.training import checkpoint, loop
from iolaus.errors import InputError
from iolaus.system import provenance


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all were committed: while one works on this very program it is not."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    known = {**provenance.tags(ROOT), "git_dirty": "false"}
    monkeypatch.setattr(provenance, "tags", lambda root: known)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def last_run(home: Path) -> str:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list", order_by=["start_time DESC"])
    return str(runs[0].info.run_id)


def again(program: Program, home: Path, digits_root: Path, *arguments: str) -> str:
    done = program(
        *arguments, f"root={home}", f"data.root={digits_root}", f"hydra.run.dir={home}/again", defaults=False
    )
    assert done.code == 0, done.err
    return done.out + done.err


def test_a_run_is_repeated_bitwise_and_says_so(program: Program, home: Path, digits_root: Path) -> None:
    done = program(
        "tracking=mlflow", f"root={home}", "model=cnn_dropout", "model.channels=[8,16]", "seed=5", "threads=1"
    )
    assert done.code == 0, done.err
    said = again(program, home, digits_root, f"from_run={last_run(home)}")
    assert "bitwise the same as from_run=" in said
    assert "test/accuracy" in said
    assert "not as in" not in said


def test_overrides_beside_it_win_and_are_shown(program: Program, home: Path, digits_root: Path) -> None:
    program("tracking=mlflow", f"root={home}", "optimizer.lr=0.001", "seed=5")
    said = again(program, home, digits_root, f"from_run={last_run(home)}", "optimizer.lr=0.01")
    assert "optimizer.lr was 0.001, now 0.01" in said
    assert "not the same as from_run=" in said


def test_a_trial_is_repeated_bitwise(program: Program, tmp_path: Path, digits_root: Path) -> None:
    program(
        "-m", "hparams_search=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", "epochs=1",
        "hydra.sweeper.study_name=s", f"hydra.sweep.dir={tmp_path}/multirun/s", "hydra.sweeper.report=false",
    )  # fmt: skip
    said = again(program, tmp_path, digits_root, "from_trial=s/1")
    assert "bitwise the same as from_trial=s/1: train/loss" in said
    assert "test" not in (tmp_path / "again" / "metrics.json").read_text()  # it is still a trial
    assert not (tmp_path / "test_looks.jsonl").exists()
    shutil.rmtree(tmp_path / "multirun" / "s" / "1")
    gone = program("from_trial=s/1", f"root={tmp_path}", defaults=False)
    assert "/multirun/s/1) has no run.json, so its configuration is unknown" in gone.message


def test_a_repetition_that_was_interrupted_is_gone_on_with(
    program: Program,
    home: Path,
    digits_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program("tracking=mlflow", f"root={home}", "seed=5", "epochs=3")
    save = checkpoint.save_state

    def interrupted(path: Path, state: loop.State, *rest: Any) -> None:
        save(path, state, *rest)
        if state.epoch == 1:
            raise KeyboardInterrupt

    where = [f"root={home}", f"data.root={digits_root}", f"hydra.run.dir={home}/half"]
    monkeypatch.setattr(checkpoint, "save_state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        program(f"from_run={last_run(home)}", *where, defaults=False)
    monkeypatch.setattr(checkpoint, "save_state", save)
    (command,) = [line for line in "".join(capsys.readouterr()).splitlines() if line.startswith("to resume:")]
    arguments = shlex.split(command.partition("train.py ")[2])
    assert not any(argument.startswith("from_run=") for argument in arguments)
    for way in (arguments, [f"resume={home}/half/checkpoint.pt"]):
        done = program(*way, f"hydra.run.dir={home}/rest", defaults=False)
        assert done.code == 0, done.err
        assert "kept epoch" in done.out


def test_what_has_changed_since_is_said() -> None:
    then = {"data_digest": "a", "mlflow.source.git.commit": "1", "version.torch": "2.15.0", "resolved.threads": "2"}
    recorded = reproduce.Recorded("from_run=x", [], {"epochs": "5", "threads": "auto"}, then, {})
    now = {**then, "mlflow.source.git.commit": "2", "version.torch": "2.16.0", "git_dirty": "true", "data_digest": "b"}
    assert list(recorded.differences({"epochs": 5, "threads": 2}, now)) == [
        "data_digest was a, now b",
        "mlflow.source.git.commit was 1, now 2",
        "the code had changes now that are in no commit",
        "version.torch was 2.15.0, now 2.16.0",
    ]
    assert list(recorded.differences({"epochs": 5, "threads": 2}, then)) == []


def test_a_run_without_metrics_says_that_there_is_nothing_to_compare() -> None:
    recorded = reproduce.Recorded("from_run=x", [], {}, {}, {})
    assert recorded.compare_results({"val/accuracy": 0.5}) == "from_run=x has no metrics to compare with"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["from_trial=nosuch/3"], "there is no study nosuch in "),
        (["from_trial=nosuch"], "from_trial must be such as mystudy/17, but got nosuch"),
        (["from_run=abc", "from_trial=s/1"], "from_run, from_trial and resume are mutually exclusive"),
        (["from_run=abc", "-m"], "from_run=abc is one run: leave out -m"),
        (["from_run=abc", "resume=checkpoint.pt"], "from_run, from_trial and resume are mutually exclusive"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        reproduce.expand([*arguments, f"root={tmp_path}"])


def test_a_run_that_is_not_there_or_not_ours_is_one_line(program: Program, home: Path, tmp_path: Path) -> None:
    done = program("from_run=abc", f"root={tmp_path}", defaults=False)
    assert "from_run=abc: there is no MLflow database" in done.message
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    with mlflow.start_run() as run:
        pass
    done = program("from_run=abc", f"root={home}", defaults=False)
    assert "from_run=abc: Run with id=abc not found" in done.message
    done = program(f"from_run={run.info.run_id}", f"root={home}", defaults=False)
    assert "was not logged by a training run of this program" in done.message


def test_code_that_a_run_names_is_called_only_if_it_is_repeated(home: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    tags = {"overrides": "model=mlp model._target_=os.system", "resolved.device": "cpu"}
    with mlflow.start_run(tags=tags) as run:
        pass
    argv = [f"from_run={run.info.run_id}", f"root={home}"]
    with pytest.raises(
        InputError, match=r"names code to be called, which must be repeated .*: model\._target_=os\.system"
    ):
        reproduce.expand(argv)
    assert "model._target_=mine.Tiny" in reproduce.expand([*argv, "model._target_=mine.Tiny"])
    assert reproduce.expand(["model=cnn"]) == ["model=cnn"]


def test_a_run_of_an_earlier_version_that_names_its_code_is_one_clear_line(home: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    tags = {"overrides": "model=mlp model._target_=iolaus.models.MLP", "resolved.device": "cpu"}
    with mlflow.start_run(tags=tags) as run:
        pass
    argv = [f"from_run={run.info.run_id}", f"root={home}"]
    with pytest.raises(
        InputError, match=r"was made by an earlier version of Iolaus, .* \(model\._target_=iolaus\.models\.MLP\): use"
    ):
        reproduce.expand(argv)
    today = "model._target_=iolaus.classifier.models.MLP"
    assert reproduce.expand([*argv, today]) == ["model=mlp", "device=cpu", *argv, today]


def test_a_trial_of_an_earlier_version_is_repeated_and_its_other_names_are_said(
    program: Program, tmp_path: Path, digits_root: Path
) -> None:
    program(
        "-m", "hparams_search=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.n_jobs=1", "epochs=1",
        "hydra.sweeper.study_name=s", f"hydra.sweep.dir={tmp_path}/multirun/s", "hydra.sweeper.report=false",
    )  # fmt: skip
    record = tmp_path / "multirun" / "s" / "0" / provenance.RECORD
    record.write_text(record.read_text().replace("iolaus.classifier.", "iolaus."))
    said = again(program, tmp_path, digits_root, "from_trial=s/0")
    assert "not as in from_trial=s/0: data._target_ was iolaus.data.load, now iolaus.classifier.data.load" in said
    assert "bitwise the same as from_trial=s/0" in said


def test_a_recorded_run_cannot_say_where_code_lies_nor_where_things_are_kept(home: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    overrides = (
        "model=mlp --config-dir=/tmp/evil hydra.searchpath=[/tmp/evil] root=/elsewhere tracking.experiment_name=x"
    )
    with mlflow.start_run(tags={"overrides": overrides, "resolved.device": "cpu"}) as run:
        pass
    argv = [f"from_run={run.info.run_id}", f"root={home}"]
    assert reproduce.expand(argv) == ["model=mlp", "device=cpu", *argv]


def test_another_option_of_a_group_beside_it_comes_without_the_recorded_keys_of_the_first(home: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    overrides = "optimizer=adam 'optimizer.betas=[0.8,0.9]' model.hidden_sizes=[8] epochs=2"
    with mlflow.start_run(tags={"overrides": overrides, "resolved.device": "cpu"}) as run:
        pass
    argv = [f"from_run={run.info.run_id}", f"root={home}", "optimizer=sgd"]
    assert reproduce.expand(argv) == ["model.hidden_sizes=[8]", "epochs=2", "device=cpu", *argv]


def test_what_auto_had_decided_is_pinned_unless_it_is_given(home: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    tags = {"overrides": "'model.channels=[8, 16]' threads=auto", "resolved.device": "cpu", "resolved.threads": "7"}
    with mlflow.start_run(tags={**tags, "resolved.precision": "bf16"}) as run:
        pass
    argv = [f"from_run={run.info.run_id}", f"root={home}", "precision=fp32"]
    assert reproduce.expand(argv) == ["model.channels=[8, 16]", "device=cpu", "threads=7", *argv]
