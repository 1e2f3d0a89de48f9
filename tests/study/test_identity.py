"""A study is the one that is meant, or what differs is said."""

import multiprocessing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from iolaus.errors import InputError
from iolaus.search_space.space import Parameter, Space
from iolaus.study.attributes import FORMAT, FORMAT_VERSION
from iolaus.study.identity import digest, identity, open_study, seed_of
from iolaus.study.queue import Goals, TrialQueue
from iolaus.study.storage import open_storage

SPACE = {"lr": FloatDistribution(1e-4, 0.1, log=True), "model": CategoricalDistribution(["mlp", "cnn"])}


def opened(folder: Path, on_mismatch: str = "refuse", direction: Any = "maximize", **facts: Any) -> Study:
    """Open the study ``s`` with these facts besides its space."""
    space = Space(Parameter(name, domain) for name, domain in facts.pop("space", SPACE).items())
    given = {"objective": "val/accuracy", "data": "mnist", "epochs": 5, **facts}
    given = {name: value for name, value in given.items() if value is not None}
    facts = identity(space, [direction], given)
    return open_study(open_storage(str(folder / "j")), "s", [direction], facts, on_mismatch, space)


def test_the_same_settings_open_the_same_study(tmp_path: Path) -> None:
    opened(tmp_path).enqueue_trial({"lr": 0.01})
    assert len(opened(tmp_path).trials) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 6}, "epochs was 5, now 6"),
        ({"objective": "val/loss"}, "objective was val/accuracy, now val/loss"),
        ({"data": "digits"}, "data was mnist, now digits"),
        ({"data": None}, r"data was mnist, now \(absent\)"),
        ({"model.dropout": 0.5}, r"model\.dropout was \(absent\), now 0\.5"),
        ({"space": SPACE | {"lr": FloatDistribution(1e-3, 0.1, log=True)}}, r"space\.lr was .*0\.0001.*, now .*0\.001"),
        (
            {"space": SPACE | {"depth": IntDistribution(1, 3)}},
            r"space\.depth was \(absent\), now 1 to 3, whole numbers",
        ),
        ({"space": {"lr": SPACE["lr"]}}, r"space\.model was mlp \| cnn, now \(absent\)"),
    ],
)
def test_another_setting_is_refused_with_the_difference(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    opened(tmp_path)
    with pytest.raises(InputError, match=rf"study s was made with other settings: {said}.*\. Leave them as they were"):
        opened(tmp_path, **change)


def test_a_bound_of_zero_is_part_of_the_space(tmp_path: Path) -> None:
    opened(tmp_path, space={"x": FloatDistribution(0.0, 1.0)})
    with pytest.raises(InputError, match=r"space\.x was 0\.0 to 1\.0, now 0\.5 to 1\.0"):
        opened(tmp_path, space={"x": FloatDistribution(0.5, 1.0)})


def test_all_differences_are_named_at_once(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(InputError, match=r"data was mnist, now digits; epochs was 5, now 6\. Leave"):
        opened(tmp_path, epochs=6, data="digits")


@pytest.mark.parametrize("on_mismatch", ["refuse", "continue"])
def test_another_direction_is_always_refused(tmp_path: Path, on_mismatch: str) -> None:
    opened(tmp_path)
    with pytest.raises(InputError, match="study s has the direction maximize, not minimize: use another study_name"):
        opened(tmp_path, on_mismatch, direction="minimize")


def test_going_on_all_the_same_records_what_changed_and_from_which_trial_on(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.add_trial(create_trial(value=1.0))
    opened(tmp_path, "continue", epochs=6)
    study = opened(tmp_path, "continue", epochs=6, data="digits")
    changes = study.user_attrs["iolaus:changes"]
    assert [(change["from_trial"], change["what"]) for change in changes] == [
        (1, ["epochs was 5, now 6"]),
        (1, ["data was mnist, now digits"]),
    ]
    assert datetime.fromisoformat(changes[0]["time"]) <= datetime.now()
    assert opened(tmp_path, epochs=6, data="digits").user_attrs["iolaus:changes"] == changes  # which is no mismatch now


def test_on_mismatch_must_be_one_of_two(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="on_mismatch must be refuse or continue, but got ignore"):
        opened(tmp_path, "ignore")


@pytest.mark.parametrize(("made_with", "age"), [(FORMAT_VERSION - 1, "an older"), (FORMAT_VERSION + 1, "a newer")])
def test_a_study_of_another_format_is_refused(tmp_path: Path, made_with: int, age: str) -> None:
    opened(tmp_path).set_user_attr(FORMAT, made_with)
    said = (
        rf"^study s was made by {age} version of Iolaus \(its format is {made_with}, this version's {FORMAT_VERSION}\)"
    )
    with pytest.raises(InputError, match=said):
        opened(tmp_path)


def test_the_identity_does_not_depend_on_the_order_of_the_settings() -> None:
    def of(space: dict[str, Any], **others: int) -> str:
        return digest(identity(Space(Parameter(name, domain) for name, domain in space.items()), ["maximize"], others))

    turned = dict(reversed(SPACE.items()))
    assert of(SPACE, a=1, b=2) == of(turned, b=2, a=1)
    assert of(SPACE, a=1, b=2) != of(SPACE, a=1, b=3)
    assert len(of(SPACE)) == 8


def test_a_seed_that_was_drawn_stays_the_study_s(tmp_path: Path) -> None:
    assert seed_of(opened(tmp_path)) == seed_of(opened(tmp_path))


def test_the_study_of_another_program_is_taken_over_with_its_zombies(tmp_path: Path) -> None:
    theirs = optuna.create_study(study_name="s", storage=open_storage(str(tmp_path / "j")), direction="maximize")
    theirs.optimize(lambda trial: trial.suggest_float("lr", 1e-4, 0.1, log=True), n_trials=2)
    began = datetime.now() - timedelta(hours=1)
    zombie = create_trial(state=TrialState.RUNNING, params={"lr": 0.05}, distributions={"lr": SPACE["lr"]})
    zombie.datetime_start = began
    theirs.add_trial(zombie)
    search = TrialQueue(opened(tmp_path), Goals(3, 1.0), 0, tmp_path)
    trial = search.claim()
    assert trial is not None
    assert trial.suggest_float("lr", 1e-4, 0.1, log=True) == 0.05
    search.tell(trial, [1.0])
    assert search.claim() is None
    assert [trial.state.name for trial in search.study.trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert "iolaus:identity" in search.study.user_attrs


def open_and_report(folder: Path, connection: Any) -> None:
    connection.recv()
    study = opened(folder)
    connection.send((study._study_id, study.user_attrs["iolaus:identity"]["data"]))


def test_processes_that_make_a_study_at_once_make_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(3)]
    processes = [context.Process(target=open_and_report, args=(tmp_path, theirs)) for _, theirs in pipes]
    for process, (_, theirs) in zip(processes, pipes, strict=True):
        process.start()
        theirs.close()
    for ours, _ in pipes:
        ours.send("go")
    assert [ours.recv() for ours, _ in pipes] == [(0, "mnist")] * 3
    for process in processes:
        process.join()
    assert len(open_storage(str(tmp_path / "j")).get_all_studies()) == 1


def test_other_choices_are_refused_even_if_the_rest_may_change(tmp_path: Path) -> None:
    trial = opened(tmp_path).ask()
    for name, distribution in SPACE.items():
        trial._suggest(name, distribution)
    wider = SPACE | {"model": CategoricalDistribution(["mlp", "cnn", "layers"])}
    with pytest.raises(InputError, match=r"study s has searched model in .* cannot become .* use another study_name"):
        opened(tmp_path, "continue", space=wider)
    opened(tmp_path)  # nothing was recorded
    narrower = SPACE | {"lr": FloatDistribution(1e-3, 0.01, log=True)}
    assert len(opened(tmp_path, "continue", space=narrower).user_attrs["iolaus:changes"]) == 1
