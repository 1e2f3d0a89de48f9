import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from conftest import Program
from optuna.trial import TrialState, create_trial

from iolaus.errors import InputError
from iolaus.study import attributes
from iolaus.study import catalog as module
from iolaus.study.storage import open_storage
from iolaus.sweep import live
from iolaus.system import lease


@pytest.fixture
def studies(program: Program) -> Program:
    def run(*arguments: str):
        return program(*arguments, entry="studies", defaults=False)

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of sweeps with the study ``mine``: three trials, of which number 1 is the best and number 2 failed."""
    folder = tmp_path / "multirun" / "mine"
    study = optuna.create_study(study_name="mine", storage=open_storage(str(folder / "journal.log")))
    fill(study, folder)
    return tmp_path / "multirun"


def fill(study: optuna.Study, folder: Path) -> None:
    space = {"x": optuna.distributions.FloatDistribution(0, 9)}
    study.set_user_attr("iolaus:folder", str(folder))
    for number, value in enumerate([4.0, 1.0, None]):
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        attrs = {"folder": str(number)}
        study.add_trial(
            create_trial(state=state, value=value, params={"x": 1.0}, distributions=space, user_attrs=attrs)
        )
        (folder / str(number)).mkdir(parents=True)
        for name in ("checkpoint.pt", "model.pt", "metrics.json"):
            (folder / str(number) / name).write_bytes(bytes(500_000))


def running(study: optuna.Study) -> None:
    attrs = {attributes.LEASE: lease.lease()}
    study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs=attrs))


def test_list_shows_trials_failures_best_and_size(studies: Program, root: Path) -> None:
    line = studies("list", "--root", str(root)).out.strip()
    assert line.startswith("mine: 3 trials, 1 failed, 0 running, best 1 (trial 1), last ")
    assert line.endswith(f"4.5 MB in {root / 'mine'}")


def test_list_finds_studies_in_a_database(studies: Program, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    fill(optuna.create_study(study_name="other", storage=open_storage(url)), tmp_path / "other")
    done = studies("list", "--storage", url)
    assert done.out.startswith("other: 3 trials")
    assert str(tmp_path / "other") in done.out


def test_free_keeps_the_best_model_and_all_metrics(studies: Program, root: Path) -> None:
    done = studies("free", "mine", "--root", str(root))
    assert done.out.startswith("2.0 MB freed")
    left = sorted(str(path.relative_to(root / "mine")) for path in (root / "mine").glob("[0-9]/*"))
    assert left == ["0/metrics.json", "1/checkpoint.pt", "1/metrics.json", "1/model.pt", "2/metrics.json"]


def test_delete_leaves_nothing_of_a_study(studies: Program, root: Path) -> None:
    assert studies("delete", "mine", "--root", str(root)).code == 0
    assert not (root / "mine").exists()
    assert studies("list", "--root", str(root)).out == f"no studies in {root}\n"


def test_delete_leaves_what_is_not_the_studys(studies: Program, root: Path) -> None:
    (root / "mine" / "notes.txt").write_text("mine")
    (root / "mine" / "7").mkdir()
    studies("delete", "mine", "--root", str(root))
    assert sorted(path.name for path in (root / "mine").iterdir()) == ["7", "notes.txt"]


def test_delete_removes_a_study_from_a_database(studies: Program, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    fill(optuna.create_study(study_name="other", storage=open_storage(url)), tmp_path / "other")
    assert studies("delete", "other", "--storage", url).code == 0
    assert optuna.get_all_study_names(url) == []
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("action", ["free", "delete"])
def test_a_study_that_somebody_works_on_is_left_alone(studies: Program, root: Path, action: str) -> None:
    running(optuna.load_study(study_name="mine", storage=open_storage(str(root / "mine" / "journal.log"))))
    done = studies(action, "mine", "--root", str(root))
    assert done.code == 1
    assert done.message == "error: study mine has running trials (3): end the sweep first"
    assert (root / "mine" / "0" / "checkpoint.pt").exists()


def test_a_misspelt_name_is_answered_with_those_that_there_are(studies: Program, root: Path) -> None:
    done = studies("delete", "mime", "--root", str(root))
    assert done.code == 1
    assert done.message == f"error: there is no study mime in {root}; available: mine"


def test_delete_leaves_another_study_in_the_same_folder_whole(studies: Program, root: Path) -> None:
    storage = open_storage(str(root / "mine" / "journal.log"))
    other = optuna.create_study(study_name="other", storage=storage)
    other.add_trial(create_trial(value=1.0, user_attrs={"folder": "7"}))
    (root / "mine" / "7").mkdir()
    (root / "mine" / "workers").mkdir()
    assert studies("delete", "mine", "--root", str(root)).code == 0
    assert studies("list", "--root", str(root)).out.startswith("other: 1 trials")
    assert sorted(path.name for path in (root / "mine").glob("[0-9w]*")) == ["7", "workers"]


def test_a_storage_that_is_not_there_is_not_made(studies: Program, tmp_path: Path) -> None:
    done = studies("list", "--storage", f"sqlite:///{tmp_path}/typo.db")
    assert done.message == f"error: there is no storage sqlite:///{tmp_path}/typo.db"
    assert not (tmp_path / "typo.db").exists()


# A study that another version has made

OTHERS = [(attributes.FORMAT_VERSION - 1, "an older"), (attributes.FORMAT_VERSION + 1, "a newer")]


def made_by_another(root: Path, made_with: int) -> optuna.Study:
    """Turn the study ``mine`` into one that another version has made."""
    study = optuna.load_study(study_name="mine", storage=open_storage(str(root / "mine" / "journal.log")))
    study.set_user_attr(attributes.FORMAT, made_with)
    return study


@pytest.mark.parametrize(("made_with", "age"), OTHERS)
def test_a_study_of_another_version_is_listed_and_deleted_and_nothing_else(
    studies: Program, root: Path, made_with: int, age: str
) -> None:
    made_by_another(root, made_with)
    said = f"made by {age} version of Iolaus (its format is {made_with}, this version's {attributes.FORMAT_VERSION})"
    refused = f"error: study mine was {said}: use that version, or another study_name"
    before = sorted(root.rglob("*"))
    for verb in ("show", "watch", "stop", "grow", "report", "export", "free"):
        more = {"grow": ["9"], "export": [str(root / "results.json")]}.get(verb, [])
        assert studies(verb, "mine", *more, "--root", str(root)).message == refused
    assert sorted(root.rglob("*")) == before
    assert studies("list", "--root", str(root)).out == f"mine: {said}, 4.5 MB in {root / 'mine'}\n"
    assert studies("delete", "mine", "--root", str(root)).code == 0
    assert not (root / "mine").exists()


def test_a_trial_of_a_repetition_is_not_taken_from_a_study_of_another_version(program: Program, root: Path) -> None:
    made_by_another(root, attributes.FORMAT_VERSION - 1)
    done = program("from_trial=mine/1", f"root={root.parent}")
    assert done.message.startswith("error: study mine was made by an older version of Iolaus")


def test_a_running_trial_whose_lease_only_another_version_can_read_is_left_alone(studies: Program, root: Path) -> None:
    study = made_by_another(root, attributes.FORMAT_VERSION + 1)
    study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs={attributes.LEASE: {"owner": "somebody"}}))
    done = studies("delete", "mine", "--root", str(root))
    assert done.message == "error: study mine has running trials (3): end the sweep first"


@pytest.mark.parametrize("in_folder", [True, False])
def test_the_finals_of_another_version_are_not_freed_but_deleted_with_their_search(
    tmp_path: Path, in_folder: bool
) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    places = [tmp_path / "mine", tmp_path / "mine" / "finals"]
    for name, folder in zip(("mine", "mine-finals"), places, strict=True):
        fill(optuna.create_study(study_name=name, storage=open_storage(f"{folder}/journal.log" if in_folder else url)),
             folder)  # fmt: skip
    storage = None if in_folder else url
    finals = module.find_one("mine-finals", tmp_path, storage).study
    finals.set_user_attr(attributes.FORMAT, attributes.FORMAT_VERSION - 1)
    stored = module.find_one("mine", tmp_path, storage)
    with pytest.raises(InputError, match=r"^study mine-finals was made by an older version"):
        module.free(stored)
    assert (tmp_path / "mine" / "0" / "model.pt").exists()
    module.delete(stored)
    assert not list(module.find(tmp_path, storage, with_parts=True))
    assert not (tmp_path / "mine").exists()


# A search that runs elsewhere


def test_a_search_is_asked_to_stop_and_to_grow(studies: Program, root: Path) -> None:
    study = optuna.load_study(study_name="mine", storage=open_storage(str(root / "mine" / "journal.log")))
    study.set_user_attr(attributes.GOALS, {"n_trials": 5, "max_failure_rate": 0.5, "of": "a later version"})
    assert studies("stop", "mine", "--root", str(root)).code == 0
    assert studies("grow", "mine", "9", "--root", str(root)).code == 0
    assert study.user_attrs[attributes.STOPS] == 1
    assert study.user_attrs[attributes.GROWN] == 9
    assert studies("grow", "mine", "7", "--root", str(root)).code == 0  # 9 was a mistake
    assert study.user_attrs[attributes.GROWN] == 7
    done = studies("grow", "mine", "5", "--root", str(root))
    assert done.message == "error: the new total must be above the command's own, 5, but got 5"
    study.set_user_attr(attributes.GOALS, {"n_trials": 5, "limit": 6})
    done = studies("grow", "mine", "7", "--root", str(root))
    assert done.message == "error: mine goes through a list of 6 points: it cannot grow beyond"


def test_a_search_that_is_over_is_shown_as_it_ended(studies: Program, root: Path) -> None:
    study = optuna.load_study(study_name="mine", storage=open_storage(str(root / "mine" / "journal.log")))
    study.set_user_attr(attributes.GOALS, {"n_trials": 3, "max_failure_rate": 1.0})
    done = studies("watch", "mine", "--root", str(root))
    assert done.out.strip() == "3 trials finished; ended by its total"
    assert "never reports" not in done.err  # whether it prunes is not known here


def test_a_search_that_was_killed_is_watched_until_nobody_can_be_at_work(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = module.find_one("mine", root)
    stored.study.set_user_attr(attributes.GOALS, {"n_trials": 9, "max_failure_rate": 1.0})
    slept: list[float] = []
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append))
    assert live.watch(stored) == "3 trials finished; nobody has been at work for 10 s"


def test_a_search_that_runs_is_shown_until_it_ends(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = module.find_one("mine", root)
    stored.study.set_user_attr(attributes.GOALS, {"n_trials": 4, "max_failure_rate": 1.0})
    running(stored.study)
    slept: list[float] = []

    def sleep(duration_s: float) -> None:
        slept.append(duration_s)
        if len(slept) == 50:
            other = module.find_one("mine", root).study
            other._storage.set_trial_state_values(other.trials[3]._trial_id, TrialState.COMPLETE, [0.5])

    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: sum(slept), time=time.time, sleep=sleep))
    assert live.watch(stored) == "4 trials finished; ended by its total"
    assert "trial 3: 0.5 (best so far) in " in capsys.readouterr().out
