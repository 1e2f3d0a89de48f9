"""The results of a study in a file."""

import json
import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Program
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from iolaus.errors import InputError
from iolaus.reporting import export
from iolaus.study import attributes
from iolaus.study.attributes import COMMAND, SETTINGS
from iolaus.study.catalog import StoredStudy
from iolaus.study.storage import open_storage

NOON = datetime(2026, 1, 1, 12)


def trial(value: float, x: float = 0.5, begin_s: float = 0.0, end_s: float = 1.0) -> FrozenTrial:
    made = create_trial(value=value, params={"x": x}, distributions={"x": FloatDistribution(0, 1)})
    made.datetime_start, made.datetime_complete = (NOON + timedelta(seconds=s) for s in (begin_s, end_s))
    return made


def summary(*trials: FrozenTrial, attrs: dict[str, Any] | None = None, directions: int = 1) -> dict[str, Any]:
    study = optuna.create_study(study_name="mine", directions=["maximize"] * directions)
    study.add_trials(trials)
    for name, value in (attrs or {}).items():
        study.set_user_attr(name, value)
    return export.summarize(StoredStudy(study, None, False))


def test_a_search_has_its_best_trial_its_command_and_its_times() -> None:
    command = {"command": "python app.py -m x=1,2", "cores": 2}
    found = summary(trial(0.5, 0.1), trial(0.75, 0.2), trial(0.25, 0.3), attrs={COMMAND: command})
    assert found["search"]["trials"] == {1: {"values": [0.75], "params": {"x": 0.2}}}
    assert found["search"]["objectives"] == ["value"]
    assert (found["command"], found["cores"]) == ("python app.py -m x=1,2", 2)
    assert found["parts"]["search"]["trials"] == {"complete": 3}
    assert found["environment"] == {}  # no run has left a record
    assert found["finals"] is None
    assert found["test"] is None


def test_a_pause_is_no_time_that_a_search_took_and_workers_beside_each_other_take_it_once() -> None:
    found = summary(trial(0.5, 0, 0, 10), trial(0.5, 0, 2, 8), trial(0.5, 0, 5, 15), trial(0.5, 0, 1000, 1005))
    assert found["parts"]["search"]["busy_s"] == 20
    assert found["parts"]["search"]["trials_s"] == 31
    assert found["parts"]["search"]["begun"] == "2026-01-01T12:00:00"


def test_a_study_without_trials_is_no_mistake() -> None:
    found = summary()
    assert found["parts"]["search"] == {"trials": {}}
    assert found["search"]["trials"] == {}
    assert found["search"]["importances"] is None


def test_of_several_objectives_those_that_no_other_beats_are_the_best() -> None:
    space = {"x": FloatDistribution(0, 1)}
    made = [create_trial(values=values, params={"x": 0.1}, distributions=space) for values in ([1, 2], [2, 1], [0, 0])]
    assert set(summary(*made, directions=2)["search"]["trials"]) == {0, 1}


def test_importances_have_their_intervals_and_say_whether_they_are_clear() -> None:
    rng = random.Random(0)
    found = summary(*(trial(-abs(x - 0.3), x) for x in (rng.random() for _ in range(40))))["search"]["importances"]
    share, low, high = found["percent"]["x"]
    assert share == 100
    assert low <= share <= high
    assert (found["of"], found["problem"]) == (40, None)
    few = summary(trial(0.1, 0.1), trial(0.2, 0.2))["search"]["importances"]
    assert few["problem"].startswith("2 complete trials are too few")
    assert not few["clear"]


def test_a_list_has_no_best_trial_and_no_importances() -> None:
    found = summary(trial(0.5), attrs={SETTINGS: [["a=1"]]})
    assert found["comparison"] is None  # it has not ended
    assert "search" not in found
    compared = summary(trial(0.5), attrs={SETTINGS: [["a=1"]], attributes.COMPARISON_RESULT: {"rows": []}})
    assert compared["comparison"] == {"rows": []}
    assert compared["parts"] == {"list": found["parts"]["list"]}


def test_what_is_infinite_is_a_text_and_what_was_there_is_replaced(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trial(trial(float("inf")))
    path = tmp_path / "kept.json"
    path.write_text("before")
    export.write(StoredStudy(study, None, False), path)
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["search"]["trials"]["0"]["values"] == ["Infinity"]


@pytest.mark.parametrize("name", ["missing/kept.json", "."])
def test_a_file_that_cannot_be_written_is_a_mistake(tmp_path: Path, name: str) -> None:
    study = optuna.create_study()
    with pytest.raises(InputError, match=r"^/.* cannot be written \(.*\): name another file$"):
        export.write(StoredStudy(study, None, False), tmp_path / name)


def test_the_verb_export_writes_it_without_a_word_of_optunas(tmp_path: Path, program: Program) -> None:
    storage = open_storage(str(tmp_path / "mine" / "journal.log"))
    study = optuna.create_study(study_name="mine", storage=storage, direction="maximize")
    study.add_trials([trial(i / 20, i / 20) for i in range(20)])
    study.add_trial(create_trial(state=TrialState.FAIL))
    path = tmp_path / "kept.json"
    done = program("export", "mine", str(path), "--root", str(tmp_path), entry="studies", defaults=False)
    assert (done.code, done.out.strip(), done.err) == (0, str(path), "")
    assert json.loads(path.read_text())["parts"]["search"]["trials"] == {"complete": 20, "failed": 1}
