from collections.abc import Iterator

import optuna
import pytest

import iolaus
from iolaus.errors import InputError
from iolaus.task import set_current_trial


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Iterator[optuna.Trial]:
    directions = getattr(request, "param", ["minimize"])
    trial = optuna.create_study(directions=directions).ask()
    set_current_trial(trial)
    yield trial
    set_current_trial(None)


def test_a_report_reaches_the_trial(trial: optuna.Trial) -> None:
    iolaus.report(1, 0.5)
    iolaus.report(2, 0.25)
    assert trial.study.trials[0].intermediate_values == {1: 0.5, 2: 0.25}


@pytest.mark.parametrize("trial", [["minimize", "maximize"]], indirect=True)
def test_a_report_in_a_search_for_several_objectives_does_nothing(trial: optuna.Trial) -> None:
    iolaus.report(1, 0.5)
    assert trial.study.trials[0].intermediate_values == {}


def test_a_report_of_a_trial_that_the_pruner_gives_up_ends_it() -> None:
    study = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1.0))
    set_current_trial(study.ask())
    iolaus.report(1, 0.5)
    with pytest.raises(optuna.TrialPruned, match="pruned at step 2"):
        iolaus.report(2, 1.5)
    set_current_trial(study.ask(), reports=False)
    iolaus.report(1, 1.5)
    set_current_trial(None)
    assert [trial.intermediate_values for trial in study.trials] == [{1: 0.5, 2: 1.5}, {}]


def test_a_constraint_reaches_the_trial_and_the_first_repeat_decides(trial: optuna.Trial) -> None:
    iolaus.constrain("params", -5)
    iolaus.constrain("params", 5)
    assert trial.constraints == {"params": -5}


def test_outside_a_search_nothing_is_reported_or_required() -> None:
    assert iolaus.current_trial() is None
    iolaus.report(1, 0.5)
    iolaus.require_same("the content of the data", "a")
    iolaus.constrain("params", 1)


def test_what_differs_from_the_studys_first_trial_is_refused(trial: optuna.Trial) -> None:
    iolaus.require_same("the content of the data", "a")
    set_current_trial(trial.study.ask())
    iolaus.require_same("the content of the data", "a")
    with pytest.raises(InputError, match=r"the content of the data is not what study .* began with"):
        iolaus.require_same("the content of the data", "b")
