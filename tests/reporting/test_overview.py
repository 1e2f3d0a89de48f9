"""A study in a screenful of text."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import ROOT, Program
from optuna.distributions import FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from iolaus.reporting import overview
from iolaus.study import attributes
from iolaus.study.catalog import StoredStudy
from iolaus.study.storage import open_storage
from iolaus.system import lease


def new_study(folder: Path, *trials: FrozenTrial, names: list[str] | None = None, **attrs: Any) -> Study:
    directions = ["maximize"] * len(names or [""])
    storage = open_storage(str(folder / "journal.log"))
    study = optuna.create_study(study_name="mine", storage=storage, directions=directions)
    if names is not None:
        with pytest.warns(optuna.exceptions.ExperimentalWarning):
            study.set_metric_names(names)
    study.add_trials(trials)
    for name, value in attrs.items():
        study.set_user_attr(getattr(attributes, name), value)
    return study


def complete(*values: float) -> FrozenTrial:
    space = {"+optimizer.momentum": FloatDistribution(0, 1)}
    params = {"+optimizer.momentum": 0.123456789}
    return create_trial(values=values, params=params, distributions=space, user_attrs={"folder": "7"})


def failed(reason: str) -> FrozenTrial:
    return create_trial(state=TrialState.FAIL, user_attrs={"reason": reason})


def shown(study: Study, folder: Path) -> dict[str, list[str]]:
    """Return the lines below each label, and the first one below an empty label."""
    first, *lines = overview.lines(StoredStudy(study, folder, in_folder=True))
    found, label = {"": [first]}, ""
    for line in lines:
        label = line[: overview.LABEL].strip() or label
        found.setdefault(label, []).append(line[overview.LABEL + 1 :])
    return found


def test_a_search_that_has_ended_has_its_best_trial_its_failures_and_its_places(tmp_path: Path) -> None:
    study = new_study(
        tmp_path, complete(0.5), complete(0.98765), failed("loss is nan at step 3"), failed("loss is nan at step 5"),
        names=["val/accuracy"], GOALS={"n_trials": 4, "max_failure_rate": 0.5}, NOTES=["a note"],
        COMMAND={"command": "python app.py -m", "cores": 2},
        REPORT={"trial": 1, "command": "python app.py x=1", "target": None},
    )  # fmt: skip
    found = shown(study, tmp_path)
    assert found[""] == ["mine: 4 of 4 trials finished, ended by its total"]
    assert found["trials"][0] == "2 complete, 2 failed"
    assert found["best"] == [
        "trial 1: val/accuracy 98.77 %",
        "  +optimizer.momentum=0.123457",
        f"  in {tmp_path / '7'}",
        "once more: python app.py x=1",
    ]
    assert found["failures"] == ["2 x loss is nan at step 3"]
    assert found["notes"] == ["a note"]
    assert found["folder"] == [str(tmp_path)]
    assert found["storage"] == [str(tmp_path / "journal.log")]
    assert found["command"] == ["python app.py -m"]
    assert found["report"] == ["none yet: the verb report writes it"]
    (tmp_path / "report.html").touch()
    assert shown(study, tmp_path)["report"] == [str(tmp_path / "report.html")]


def test_its_state_says_who_is_at_work_and_what_has_ended_it(tmp_path: Path) -> None:
    study = new_study(tmp_path, complete(0.5), GOALS={"n_trials": 4, "max_failure_rate": 0.5, "patience": 2})
    assert shown(study, tmp_path)[""] == ["mine: 1 of 4 trials finished, nobody is at work: its command goes on"]
    attrs = {attributes.LEASE: lease.lease()}
    study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs=attrs))
    assert shown(study, tmp_path)[""] == ["mine: 1 of 4 trials finished, 1 running"]
    study._storage.set_trial_state_values(study.trials[-1]._trial_id, TrialState.PRUNED)
    study.set_user_attr(attributes.GROWN, 9)
    study.set_user_attr(attributes.STOPS, 1)
    assert shown(study, tmp_path)[""] == ["mine: 2 of 9 trials finished, ended by a request to stop"]
    study.set_user_attr(attributes.GOALS, {"n_trials": 2, "max_failure_rate": 0.0, "deadline": 1.0})
    study.set_user_attr(attributes.STOPS, 0)
    study.set_user_attr(attributes.ENDED, {"by": "timeout", "timeout_s": 60})
    assert shown(study, tmp_path)[""] == ["mine: 2 of 9 trials finished, ended by hydra.sweeper.timeout_s=60"]


def test_of_several_objectives_those_that_no_other_beats_are_shown(tmp_path: Path) -> None:
    trials = [complete(i / 10, 1 - i / 10) for i in range(overview.SHOWN + 2)]
    found = shown(new_study(tmp_path, *trials, names=["val/accuracy", "speed"]), tmp_path)
    assert found["best"][:2] == [
        "7 trials that no other beats in all objectives",
        "trial 0: val/accuracy 0.00 %, speed 1",
    ]
    assert found["best"][-1] == "and 2 others"


@pytest.mark.parametrize(
    ("trials", "says"),
    [
        ([], "none: no trial is complete"),
        ([failed("no")], "none: no trial is complete"),
        ([create_trial(value=1.0, constraints={"size": 1.0})], "none: no complete trial keeps all constraints"),
    ],
)
def test_a_study_of_another_program_without_a_best_trial_can_be_shown(
    tmp_path: Path, trials: list[FrozenTrial], says: str
) -> None:
    found = shown(new_study(tmp_path, *trials), tmp_path)
    assert found[""] == [f"mine: {len(trials)} trials finished, 0 running"]
    assert found["best"] == [says]
    assert found["command"] == ["not known"]


def test_finals_and_comparisons_are_told_in_words(tmp_path: Path) -> None:
    known = json.loads((ROOT / "docs" / "results" / "best_cnn.json").read_text())
    found = shown(
        new_study(tmp_path / "a", complete(0.5), FINALS_RESULT={**known["finals"], "test": known["test"]}), tmp_path
    )
    told = "\n".join(found["finals"])
    assert "\nwinner: trial " in told
    assert "\ntest accuracy of the winner, trained on train and val: 99." in told
    known = json.loads((ROOT / "docs" / "results" / "udacity.json").read_text())
    listed = new_study(tmp_path / "b", complete(0.5), COMPARISON_RESULT=known["comparison"], SETTINGS=[["a=1"]])
    found = shown(listed, tmp_path)
    assert found["comparison"][0] == "each with 5 seeds, paired by seed; mean ± half the 95 % interval"
    assert "best" not in found


def test_nothing_in_a_study_moves_the_cursor(tmp_path: Path) -> None:
    study = new_study(tmp_path, failed("red \x1b[31m\nno"), COMMAND={"command": "a\x1b[2J"})
    found = list(overview.lines(StoredStudy(study, None, False), "postgresql://me:pw@host/db"))
    assert all(line.isprintable() for line in found)
    assert "storage    postgresql://host/db" in found


def test_the_verb_show_prints_it(program: Program, tmp_path: Path) -> None:
    new_study(tmp_path / "mine", complete(0.5))
    done = program("show", "mine", "--root", str(tmp_path), entry="studies", defaults=False)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("mine: 1 trials finished, 0 running\ntrials     1 complete\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lst"], "error: argument VERB: invalid choice: 'lst'"),
        (["show"], "error: the following arguments are required: NAME; see python src/studies.py show --help"),
        (
            ["grow", "mine", "many"],
            "error: argument N: invalid int value: 'many'; see python src/studies.py grow --help",
        ),
        (["show", "mine", "--rot", "x"], "error: unrecognized arguments: --rot x; see python src/studies.py --help"),
    ],
)
def test_what_cannot_be_parsed_is_said_in_one_line(program: Program, arguments: list[str], says: str) -> None:
    done = program(*arguments, entry="studies", defaults=False)
    assert done.code == 2
    assert done.err.startswith(says)
    assert done.err.count("\n") == 1


def test_without_a_verb_the_help_names_all(program: Program) -> None:
    done = program(entry="studies", defaults=False)
    assert done.code == 2
    for verb in ("list", "show", "watch", "stop", "grow", "report", "export", "free", "delete"):
        assert f"    {verb} " in done.out
