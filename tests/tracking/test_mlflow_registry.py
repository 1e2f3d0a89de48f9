from pathlib import Path

import mlflow
import optuna
import pytest
from conftest import ROOT, Program

from iolaus.classifier.run.predictor import champion
from iolaus.errors import InputError
from iolaus.tracking import base, mlflow_registry

ACCURATE, BETTER, AS_GOOD = [0.95, 0.951, 0.949], [0.97, 0.971, 0.969], [0.9505, 0.9515, 0.949]


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")


def trained(program: Program, tmp_path: Path, *overrides: str) -> str:
    """The id of a new run with its model."""
    done = program("tracking=mlflow", f"root={tmp_path}", "epochs=1", *overrides)
    assert done.code == 0, done.err
    return str(mlflow.search_runs(search_all_experiments=True, output_format="list", max_results=1)[0].info.run_id)


def register(run_id: str | None, accuracies: list[float]) -> str:
    study = optuna.create_study(study_name="study")
    attrs = {} if run_id is None else {"mlflow_run_id": run_id}
    trials = [
        optuna.trial.create_trial(value=0.9, user_attrs={}),
        optuna.trial.create_trial(value=0.9, user_attrs=attrs),
    ]
    found = {"winner": 3, "test": {"values": [0.9], "mean": 0.9, "interval": None, "n": 1}}
    winner = base.Winner(
        study, Path(), found, trials, model="iolaus-{data}", metric="val/accuracy", values=accuracies, maximize=True,
        measured_on="{data_digest}, val_size {data.val_size}",
    )  # fmt: skip
    return mlflow_registry.register(mlflow, winner)


def test_a_champion_is_replaced_only_by_one_that_is_better_beyond_the_noise(program: Program, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert champion(uri) is None
    first = trained(program, tmp_path, "seed=1")
    assert champion(uri) is None
    assert register(first, ACCURATE).startswith("new champion: iolaus-digits version 1 (the first)")
    assert register(first, ACCURATE) == "champion: iolaus-digits version 1 (models:/iolaus-digits@champion)"

    assert "not better beyond the noise" in register(trained(program, tmp_path, "seed=2"), AS_GOOD)
    client = mlflow.MlflowClient()
    assert client.get_model_version_by_alias("iolaus-digits", "champion").run_id == first
    better = trained(program, tmp_path, "seed=3")
    assert "new champion: iolaus-digits version 3 (+2.00 % in the finals against version 1, " in register(
        better, BETTER
    )
    now = client.get_model_version_by_alias("iolaus-digits", "champion")
    assert now.run_id == better
    assert now.tags["finals"] == "97.00 ± 0.25 % (n = 3)"
    assert now.tags["trial"] == "3"
    assert "seed=3" in now.tags["overrides"]
    assert mlflow.models.get_model_info("models:/iolaus-digits@champion").signature is not None

    other_split = trained(program, tmp_path, "data.val_size=200")
    assert "was measured on other data than version 3, so they cannot be compared" in register(other_split, BETTER)
    assert client.get_model_version_by_alias("iolaus-digits", "champion").run_id == better

    assert champion(uri) == champion(uri, "digits") == "models:/iolaus-digits@champion"
    with pytest.raises(InputError, match="no search over mnist has a champion yet"):
        champion(uri, "mnist")
    image = ROOT / "docs" / "digit.png"
    images = [image] if image.exists() else sorted((ROOT / "docs").glob("*.png"))[:1]
    done = program(*map(str, images), "--sheet", str(tmp_path / "sheet.png"), entry="predict", defaults=False)
    assert done.code == 0, done.err
    assert "model: models:/iolaus-digits@champion" in done.err


def test_a_winner_without_a_model_in_mlflow_is_no_champion(program: Program, tmp_path: Path) -> None:
    assert register(None, ACCURATE) == "no champion: the winner's model is not in MLflow"
    bare = mlflow.start_run().info.run_id
    mlflow.end_run()
    assert register(bare, ACCURATE) == "no champion: the winner's model is not in MLflow"


@pytest.mark.parametrize(("maximize", "verdict"), [(False, "new champion: loss version 2"), (True, "no new champion")])
def test_the_better_of_two_winners_is_the_one_with_the_lower_values_if_they_are_minimized(
    maximize: bool, verdict: str
) -> None:
    study = optuna.create_study(study_name="study")
    lines = []
    for values in ([0.5, 0.51, 0.49], [0.3, 0.31, 0.29]):
        with mlflow.start_run() as run:
            model = mlflow.initialize_logged_model(name="model", source_run_id=run.info.run_id)
            output = mlflow.entities.LoggedModelOutput(model.model_id, 0)
            mlflow.MlflowClient().log_outputs(run.info.run_id, [output])
        trials = [optuna.trial.create_trial(value=0.9, user_attrs={"mlflow_run_id": run.info.run_id})]
        found = {"winner": 0, "test": {"values": [0.9], "mean": 0.9, "interval": None, "n": 1}}
        winner = base.Winner(study, Path(), found, trials, "loss", "loss", values, maximize, measured_on="the same")
        lines.append(mlflow_registry.register(mlflow, winner))
    assert lines[0] == "new champion: loss version 1 (the first): models:/loss@champion"
    assert lines[1].startswith(verdict)
    assert "-0.2 in the finals against version 1" in lines[1]


def test_a_store_that_does_not_answer_is_not_taken_for_one_without_a_champion(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = trained(program, tmp_path)

    def fail(*_: object) -> None:
        raise mlflow.exceptions.MlflowException("try again later")

    monkeypatch.setattr(mlflow.MlflowClient, "get_model_version_by_alias", fail)
    with pytest.raises(mlflow.exceptions.MlflowException, match="try again later"):
        register(run_id, ACCURATE)


def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "none.db").write_text("this is no database")
    with pytest.raises(InputError, match="name one with --model"):
        champion(f"sqlite:///{tmp_path}/none.db")
