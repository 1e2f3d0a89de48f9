import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from conftest import Program
from optuna.trial import TrialState, create_trial

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
    assert done.message == f"error: there is no study mime in {root}, but mine"


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


# A search that runs elsewhere


@pytest.fixture
def report(program: Program) -> Program:
    def run(*arguments: str):
        return program(*arguments, entry="report", defaults=False)

    return run


def test_a_search_is_asked_to_stop_and_to_grow(report: Program, root: Path) -> None:
    study = optuna.load_study(study_name="mine", storage=open_storage(str(root / "mine" / "journal.log")))
    study.set_user_attr(attributes.GOALS, {"n_trials": 5, "max_failure_rate": 0.5, "of": "a later version"})
    assert report("mine", "--root", str(root), "--stop").code == 0
    assert report("mine", "--root", str(root), "--grow", "9").code == 0
    assert study.user_attrs[attributes.STOPS] == 1
    assert study.user_attrs[attributes.GROWN] == 9
    assert report("mine", "--root", str(root), "--grow", "7").code == 0  # 9 was a mistake
    assert study.user_attrs[attributes.GROWN] == 7
    done = report("mine", "--root", str(root), "--grow", "5")
    assert done.message == "error: the new total must be above the command's own, 5, but got 5"
    study.set_user_attr(attributes.GOALS, {"n_trials": 5, "limit": 6})
    done = report("mine", "--root", str(root), "--grow", "7")
    assert done.message == "error: mine goes through a list of 6 points: it cannot grow beyond"


def test_a_search_that_is_over_is_shown_as_it_ended(report: Program, root: Path) -> None:
    study = optuna.load_study(study_name="mine", storage=open_storage(str(root / "mine" / "journal.log")))
    study.set_user_attr(attributes.GOALS, {"n_trials": 3, "max_failure_rate": 1.0})
    done = report("mine", "--root", str(root), "--watch")
    assert done.out.strip() == "3 trials finished; ended by its total"
    assert "never reports" not in done.err  # whether it prunes is not known here


def test_a_search_that_was_killed_is_watched_until_nobody_can_be_at_work(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = module.find_one("mine", root)
    kept.study.set_user_attr(attributes.GOALS, {"n_trials": 9, "max_failure_rate": 1.0})
    slept: list[float] = []
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append))
    assert live.watch(kept) == "3 trials finished; nobody has been at work for 10 s"


def test_a_search_that_runs_is_shown_until_it_ends(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = module.find_one("mine", root)
    kept.study.set_user_attr(attributes.GOALS, {"n_trials": 4, "max_failure_rate": 1.0})
    running(kept.study)
    slept: list[float] = []

    def sleep(duration_s: float) -> None:
        slept.append(duration_s)
        if len(slept) == 50:
            other = module.find_one("mine", root).study
            other._storage.set_trial_state_values(other.trials[3]._trial_id, TrialState.COMPLETE, [0.5])

    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: sum(slept), time=time.time, sleep=sleep))
    assert live.watch(kept) == "4 trials finished; ended by its total"
    assert "trial 3: 0.5 (best so far) in " in capsys.readouterr().out
