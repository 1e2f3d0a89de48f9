import dataclasses
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from conftest import Program
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import TrialState, create_trial
from sweeps import App, children, kill
from waiting import HANG_S, wait_until

from iolaus.classifier.run import test_set_log
from iolaus.classifier.run.sweep_callback import SweepCallback
from iolaus.compare import finals
from iolaus.compare.multi_seed import MultiSeedPlan, complete_runs, count_left, enqueue_runs, open_part
from iolaus.errors import InputError
from iolaus.search_space.space import Space
from iolaus.study import catalog
from iolaus.study.attributes import (
    END,
    ENDED,
    FOLDER,
    FORMAT,
    FORMAT_VERSION,
    GOALS,
    GROWN,
    IDENTITY,
    LEASE,
    MADE,
    SURPLUS,
)
from iolaus.study.plan import Plan
from iolaus.study.queue import Goals, TrialQueue
from iolaus.study.storage import open_storage

NOISY = """
import hydra, iolaus
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from waiting import pass_gate

@hydra.main(config_path=None, config_name="config")
def main(cfg):
    with open("ran", "a") as file:
        file.write(f"{cfg.x} {cfg.seed}\\n")
    pass_gate(HydraConfig.get().runtime.output_dir)
    return (cfg.x - 2) ** 2 + 0.01 * (cfg.seed * 7919 % 10)

if __name__ == "__main__":
    ConfigStore.instance().store(name="config", node={"x": 0.0, "seed": 0})
    main()
"""
FINALS = ["hydra/sweeper/finals=seeds", "hydra.sweeper.finals.k=2", "hydra.sweeper.finals.r=3"]


def searched(values: Mapping[float, float], **attrs: Any) -> Study:
    """A study that maximizes, with a complete trial for each x."""
    study = optuna.create_study(direction="maximize")
    for x, value in values.items():
        add(study, x, value, **attrs)
    return study


def add(study: Study, x: float, value: float, seed: int | None = None) -> None:
    params: dict[str, Any] = {"x": float(x)} if seed is None else {"x": float(x), "seed": seed}
    domains = {"x": FloatDistribution(0, 10), "seed": IntDistribution(0, 100)}
    study.add_trial(create_trial(value=value, params=params, distributions={name: domains[name] for name in params}))


def overrides(trial: optuna.trial.FrozenTrial) -> list[str]:
    return [f"{name}={value}" for name, value in trial.params.items()]


def compared(tmp_path: Path, runs: Mapping[float, Mapping[int, tuple[float, float, float]]]) -> dict[str, Any]:
    """What the finals come to where these settings had (value, params, fit_s) by seed."""
    study = searched({x: max(value for value, _, _ in by_seed.values()) + 0.001 for x, by_seed in runs.items()})
    chosen = finals.select(study, len(runs), overrides)
    seeds = sorted({seed for by_seed in runs.values() for seed in by_seed})
    plan, again = listing(tmp_path, listed(*chosen.values()), seeds)
    while any(trial.state == TrialState.WAITING for trial in again.get_trials(deepcopy=False)):
        trial = again.ask()
        (x, seed) = (override.split("=")[1] for override in plan.suggest(trial, OmegaConf.create(), None))
        if int(seed) not in runs[float(x)]:
            again.tell(trial, state=TrialState.FAIL)
            continue
        value, params, fit_s = runs[float(x)][int(seed)]
        trial.set_user_attr("results", {"params": params, "fit_s": fit_s})
        again.tell(trial, value)
    return finals.compare_finalists(study, chosen, seeds, plan, again)


def listed(*settings: list[str]) -> dict[str, list[str]]:
    return {" ".join(setting): setting for setting in settings}


def listing(
    folder: Path, settings: Mapping[str, list[str]], seeds: list[int], made: str = "once"
) -> tuple[MultiSeedPlan, Study]:
    """The finals of a study of this folder that was made once, or anew."""
    whole = optuna.create_study(study_name="study")
    whole.set_user_attr(IDENTITY, {})
    whole.set_user_attr(MADE, made)
    plan, study = open_part(plan_in(folder), whole, "finals", ["maximize"])
    return enqueue_runs(plan, study, settings, seeds), study


def test_a_part_study_of_another_version_is_refused_and_stays(tmp_path: Path) -> None:
    _, runs = listing(tmp_path, listed(["x=1"]), [1])
    runs.set_user_attr(FORMAT, FORMAT_VERSION - 1)
    for made in ("once", "anew"):
        with pytest.raises(InputError, match=r"^study study-finals was made by an older version of Iolaus"):
            listing(tmp_path, listed(["x=1"]), [1], made)
    assert len(runs.get_trials()) == 1


def plan_in(folder: Path) -> Plan:
    return Plan(
        storage=str(folder / "journal.log"), study_name="study", folder=str(folder), goals=Goals(1), space=Space(),
        fixed={}, deletions=(), custom_search_space=None, sampler={"_target_": "optuna.samplers.RandomSampler"},
        pruner={"_target_": "optuna.pruners.NopPruner"}, repeats=1, seed=0,
    )  # fmt: skip


def test_the_best_settings_are_chosen_and_a_seed_makes_no_other_setting() -> None:
    study = optuna.create_study(direction="maximize")
    for x, value, seed in ((1, 0.9, 0), (2, 0.95, 0), (1, 0.99, 1), (3, 0.8, 0)):
        add(study, x, value, seed)
    assert finals.select(study, 2, overrides) == {2: ["x=1.0"], 1: ["x=2.0"]}


def test_a_trial_that_breaks_a_constraint_is_no_finalist() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_constraint("params", 1.0)
    study.tell(trial, 1.0)
    add(study, 2, 0.5)
    assert list(finals.select(study, 1, overrides)) == [1]


def test_fewer_settings_than_finalists_are_a_mistake() -> None:
    with pytest.raises(InputError, match=r"finals\.k=3, but only 2 settings of .* have a value: .*finals\.k=2"):
        finals.select(searched({1: 0.5, 2: 0.6}), 3, overrides)


def test_the_seeds_are_new_and_the_same_each_time() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, 1, 0.5, 17)
    assert finals.new_seeds(study, 3, 3, repeats=1) == [18, 19, 20]
    assert finals.new_seeds(searched({1: 0.5}), 2, 3, repeats=4) == [7, 8]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": -1, "r": 5}, "finals.k must be at least 1, or 0 for none, but got -1"),
        ({"k": 3, "r": 2}, "finals.r must be at least 3"),
        ({"k": 30, "r": 5}, "finals.k must be at most hydra.sweeper.n_trials=20"),
        ({"k": 3}, "finals must be such as {k: 3, r: 5, n_test: null}"),
        ({"k": 3, "r": 5, "n_test": 0}, "finals.n_test must be at least 1, or null for as many as r, but got 0"),
    ],
)
def test_finals_that_cannot_be_are_refused_before_the_search(given: dict[str, int], message: str) -> None:
    whole = {"n_test": None, **given} if "r" in given else given
    with pytest.raises(InputError, match=message):
        finals.read(whole, ["maximize"], 20, OmegaConf.create({"seed": 0}))


def test_finals_need_one_objective_and_a_seed() -> None:
    with pytest.raises(InputError, match="needs one objective, but there are 2"):
        finals.read({"k": 1, "r": 3, "n_test": None}, ["maximize", "minimize"], 20, OmegaConf.create({"seed": 0}))
    with pytest.raises(InputError, match="seed must be a whole number"):
        finals.read({"k": 1, "r": 3, "n_test": None}, ["maximize"], 20, OmegaConf.create({}))
    assert finals.read({"k": 0, "r": 0, "n_test": None}, ["maximize"], 20, OmegaConf.create({})) is None


def test_of_those_not_told_apart_the_smallest_wins_and_of_equals_the_fastest(tmp_path: Path) -> None:
    noise = [0.0, 0.004, -0.003, 0.002, -0.002]
    large = {seed: (0.990 + noise[seed], 90.0, 1.0) for seed in range(5)}
    small = {seed: (0.989 + noise[-seed], 10.0, 2.0) for seed in range(5)}
    fast = {seed: (0.9885 + noise[seed - 2], 10.0, 1.0 + seed / 100) for seed in range(5)}
    worse = {seed: (0.900 + noise[seed - 1], 1.0, 0.1) for seed in range(5)}
    found = compared(tmp_path, {1.0: large, 2.0: small, 3.0: fast, 4.0: worse})
    rows = {row["trial"]: row for row in found["finalists"]}
    assert found["best"] == 0
    assert found["winner"] == 2
    assert [rows[number].get("significant") for number in range(4)] == [None, False, False, True]
    first = found["finalists"][0]
    assert found["optimism"] == pytest.approx(first["best"] - first["mean"])


def test_seconds_that_differ_by_chance_decide_nothing(tmp_path: Path) -> None:
    noise = [0.0, 0.004, -0.003, 0.002, -0.002]
    better = {seed: (0.990 + noise[seed], 10.0, 1.0 + 0.1 * (seed % 2)) for seed in range(5)}
    other = {seed: (0.9895 + noise[seed - 2], 10.0, 1.0 + 0.08 * (seed % 3)) for seed in range(5)}
    assert compared(tmp_path, {1.0: better, 2.0: other})["winner"] == 0


def test_a_finalist_that_failed_with_a_seed_cannot_win(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        {1.0: {0: (0.99, 1.0, 1.0)}, 2.0: {seed: (0.9 + seed / 1000, 1.0, 1.0) for seed in range(3)}},
    )
    assert found["winner"] == 1
    assert found["finalists"][0]["failed"] == 2
    assert any("2 failed" in line for line in finals.lines(found))


def test_where_all_have_failed_nobody_wins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finalist has a value for each of its seeds"):
        compared(tmp_path, {1.0: {0: (0.99, 1.0, 1.0)}, 2.0: {1: (0.99, 1.0, 1.0)}})


def test_a_search_that_its_time_has_ended_may_be_followed_until_more_is_asked_for(tmp_path: Path) -> None:
    asked = {"timeout_s": 60, "target": None, "patience": None}
    study = searched({1: 0.5, 2: 0.6})

    def may_follow(n_trials: int = 5, **more: Any) -> bool:
        return finals.has_ended(TrialQueue(study, Goals(n_trials), 0, tmp_path), {**asked, **more})

    assert not may_follow()
    study.set_user_attr(ENDED, finals.describe_end(TrialQueue(study, Goals(5), 0, tmp_path), asked, "timeout"))
    assert may_follow()
    assert not may_follow(9)
    assert not may_follow(timeout_s=90)
    study.set_user_attr(GROWN, 7)
    assert not may_follow()
    study.set_user_attr(GROWN, 0)
    study.enqueue_trial({"x": 1.0})
    assert not may_follow()
    add(study, 3, 0.7)
    assert not may_follow()


def test_each_setting_is_queued_once_with_each_seed_also_when_the_list_grows(tmp_path: Path) -> None:
    plan, study = listing(tmp_path, listed(["x=1"], ["x=2", "seed=7"]), [1, 2])
    assert plan.goals.n_trials == 4
    listing(tmp_path, listed(["x=1"], ["x=2"]), [1, 2])
    plan, study = listing(tmp_path, listed(["x=3"], ["x=1"]), [1, 2, 3])
    assert plan.goals.n_trials == len(study.trials) == 4 + 3 + 1
    assert plan.settings == [["x=1"], ["x=2"], ["x=3"]]
    trial = study.ask()
    assert plan.suggest(trial, OmegaConf.create(), None) == ["x=1", "seed=1"]
    study.tell(trial, 0.5)
    assert {seed: trial.value for seed, trial in complete_runs(plan, study, ["x=1", "seed=9"], [1, 2]).items()} == {
        1: 0.5
    }


def test_the_order_of_overrides_makes_no_other_setting_and_a_plus_is_kept(tmp_path: Path) -> None:
    listing(tmp_path, listed(["a=1", "+b=2", "+seed=0"]), [1])
    plan, study = listing(tmp_path, listed(["+b=2", "a=1", "+seed=0"]), [1])
    assert len(study.trials) == 1
    assert plan.suggest(study.ask(), OmegaConf.create(), None) == ["a=1", "+b=2", "+seed=1"]


def test_runs_of_an_earlier_study_of_this_name_are_none_of_a_lists(tmp_path: Path) -> None:
    plan, study = listing(tmp_path, listed(["x=1"]), [1])
    plan.suggest(trial := study.ask(), OmegaConf.create(), None)
    study.tell(trial, 0.5)
    assert count_left(study, [["x=1"]], [1]) == 0
    plan, study = listing(tmp_path, listed(["x=1"]), [1], "anew")
    assert count_left(study, [["x=1"]], [1]) == 1
    assert [trial.state for trial in study.trials] == [TrialState.WAITING]


def test_a_list_cannot_be_grown_and_a_surplus_run_is_queued_again(tmp_path: Path) -> None:
    plan, study = listing(tmp_path, listed(["x=1"]), [1, 2])
    study.set_user_attr(GOALS, dataclasses.asdict(plan.goals))
    with pytest.raises(InputError, match="goes through a list of 2 points: it cannot grow beyond"):
        catalog.grow(catalog.StoredStudy(study, tmp_path, True), 10)
    plan.suggest(trial := study.ask(), OmegaConf.create(), None)
    study._storage.set_trial_system_attr(trial._trial_id, END, SURPLUS)
    study.tell(trial, state=TrialState.FAIL)
    plan, study = listing(tmp_path, listed(["x=1"]), [1, 2])
    assert len(study.trials) == 3
    assert plan.goals.n_trials == 2


def test_a_mean_that_lies_outside_the_best_ones_interval_does_not_win_by_its_size(tmp_path: Path) -> None:
    exact = {seed: (0.990 + seed / 10_000, 90.0, 1.0) for seed in range(3)}
    wild = {seed: (0.85 + seed * 0.06, 1.0, 1.0) for seed in range(3)}
    found = compared(tmp_path, {1.0: exact, 2.0: wild})
    assert not found["finalists"][1]["significant"]
    assert found["winner"] == 0


def pairs(app: App) -> list[tuple[int, int]]:
    study = optuna.load_study(study_name="study-finals", storage=open_storage(f"{app.study_folder}/finals/journal.log"))
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    return sorted((trial.params["setting"], trial.params["seed"]) for trial in complete)


def test_finals_follow_a_search_of_any_app_and_the_same_command_only_says_so_again(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_trials=6", *FINALS, source=NOISY)
    out = app.run()
    assert pairs(app) == [(setting, seed) for setting in (0, 1) for seed in (1, 2, 3)]
    assert "finals: 2 settings with 3 new seeds each" in out
    assert "winner: trial" in out
    assert "the search" in out
    again = app.run()
    assert "study-finals: 6 of 6 trials finished; 0 workers" in again
    assert len(app.trials()) == 6
    assert not (app.study_folder / "test").exists()  # the app has not said how a winner is trained


def test_a_dry_run_says_what_would_follow(tmp_path: Path) -> None:
    out = App(tmp_path, "hydra.sweeper.n_trials=6", *FINALS, "hydra.sweeper.dry_run=true", source=NOISY).run()
    assert "then the best 2 settings with 3 new seeds each, and the winner with 3 seeds on test" in out


def test_a_search_with_fewer_complete_settings_than_finalists_ends_with_a_line_and_keeps_what_it_has(
    tmp_path: Path,
) -> None:
    grid = ["hydra/sweeper/sampler=grid", "x=choice(1.0,2.0,3.0)", "hydra.sweeper.n_trials=3"]
    app = App(tmp_path, *grid, *FINALS, source=NOISY.replace("pass_gate(", "1 / (cfg.x == 2); pass_gate("))
    out = app.run(code=1).splitlines()[-1]
    assert "error: hydra.sweeper.finals.k=2, but only 1 settings of study have a value" in out
    assert len(app.trials()) == 3
    assert "winner: trial" in app.run("hydra.sweeper.finals.k=1")


def test_what_followed_a_search_is_found_by_its_name_and_goes_with_it(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_trials=3", *FINALS, source=NOISY)
    app.run()
    assert [kept.study.study_name for kept in catalog.find(tmp_path)] == ["study"]
    assert catalog.find_one("study-finals", tmp_path).study.trials
    catalog.delete(catalog.find_one("study", tmp_path))
    assert not app.study_folder.exists()


def test_kills_in_the_finals_lose_and_repeat_nothing(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", *FINALS, source=NOISY)
    app.hold("finals/1")
    journal = app.study_folder / "finals" / "journal.log"
    with app.start() as process:
        wait_until(lambda: '"state":1' in (journal.read_text() if journal.exists() else ""))  # one is complete
        kill([process.pid, *children(process.pid)])
        process.communicate(timeout=HANG_S)
    before = len(pairs(app))
    assert before == 1

    def at_work() -> list[int]:
        """The processes that hold a run of the finals, which has begun."""
        study = optuna.load_study(study_name="study-finals", storage=open_storage(str(journal)))
        running = study.get_trials(states=(TrialState.RUNNING,))
        held = {int(trial.system_attrs[LEASE]["pid"]) for trial in running if FOLDER in trial.user_attrs}
        return sorted(held & set(children(process.pid)))

    with app.start() as process:
        wait_until(at_work)
        kill(at_work()[:1])
        app.go()
        assert process.wait(HANG_S) == 0
    assert "lost" in journal.read_text()
    assert pairs(app) == [(setting, seed) for setting in (0, 1) for seed in (1, 2, 3)]
    assert len([trial for trial in app.trials() if trial.state == TrialState.COMPLETE]) == 4


def test_two_commands_at_once_run_each_of_the_finals_once_and_name_one_winner(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1", *FINALS, source=NOISY)
    app.meet(2)
    processes = [app.start(out=tmp_path / f"{i}.out") for i in range(2)]
    assert [process.wait(HANG_S) for process in processes] == [0, 0]
    assert pairs(app) == [(setting, seed) for setting in (0, 1) for seed in (1, 2, 3)]
    winners = [line for i in range(2) for line in (tmp_path / f"{i}.out").read_text().splitlines() if "winner:" in line]
    assert len(winners) == 2
    assert winners[0] == winners[1]


def test_finals_that_were_asked_to_stop_name_no_winner_and_the_same_command_goes_on(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", *FINALS, source=NOISY)
    app.hold("finals/0")
    with app.start() as process:
        wait_until((app.study_folder / "finals" / "0" / ".hydra").exists)
        catalog.stop(catalog.find_one("study-finals", tmp_path))
        app.go()
        out = process.communicate(timeout=HANG_S)[0]
    assert process.returncode == 1
    assert "the workers ended early" in out
    assert "winner:" not in out
    assert "winner:" in app.run()
    assert len(pairs(app)) == 6


def test_in_a_database_what_follows_a_search_lies_beside_it_and_goes_with_it(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/studies.db"
    app = App(tmp_path, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", f"hydra.sweeper.storage={storage}",
              *FINALS, source=NOISY)  # fmt: skip
    assert "winner:" in app.run()
    assert sorted(optuna.get_all_study_names(storage)) == ["study", "study-finals"]
    assert not (app.study_folder / "finals" / "journal.log").exists()
    catalog.delete(catalog.find_one("study", tmp_path, storage))
    assert optuna.get_all_study_names(storage) == []
    assert not list((app.study_folder / "finals").glob("[0-9]"))


def test_ctrl_c_in_the_finals_ends_the_command_and_the_same_one_goes_on(tmp_path: Path) -> None:
    app = App(tmp_path, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", *FINALS, source=NOISY)
    app.hold("finals/1")
    with app.start() as process:
        wait_until((app.study_folder / "finals" / "1" / ".hydra").exists)
        process.send_signal(signal.SIGINT)
        out = process.communicate(timeout=HANG_S)[0]
    app.go()
    assert process.returncode == 130
    assert "of study-finals finished; the same command goes on" in out
    app.run()
    assert len(pairs(app)) == 6


def test_the_winner_of_a_search_is_tested_once_for_each_seed_and_only_then_is_test_looked_at(
    program: Program, tmp_path: Path
) -> None:
    def command(*more: str) -> str:
        done = program(
            "-m", "hydra/sweeper=iolaus", "hydra.sweeper.direction=maximize", "hydra.sweeper.study_name=s",
            "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2", "hydra/sweeper/sampler=grid",
            "optimizer.lr=choice(0.001,0.01)", *FINALS,
            f"hydra.sweep.dir={tmp_path}/s", *more,
        )  # fmt: skip
        assert done.code == 0, done.err
        return done.out

    out = command()
    looked = list(test_set_log.looks(tmp_path, "digits"))
    assert [Path(look["run"]).parent.name for look in looked] == ["test"] * 3
    for number in range(3):
        metrics = json.loads((tmp_path / "s" / "test" / str(number) / "metrics.json").read_text())
        assert metrics["test/accuracy"] > 0.5
        assert "val/accuracy" not in metrics
        config = OmegaConf.load(tmp_path / "s" / "test" / str(number) / "config.yaml")
        assert config.train_on_val
        assert config.epochs in (1, 2)
    assert not list((tmp_path / "s").glob("[0-9]/confusion.png"))
    assert not list((tmp_path / "s" / "finals").glob("*/confusion.png"))
    assert "test accuracy of the winner, trained on train and val: " in out
    page = (tmp_path / "s" / "report.html").read_text()
    assert "Winner of the finals" in page
    assert "looked at the test images of digits 3 times" in page
    assert (tmp_path / "s" / "report" / "finals.png").exists()
    command()
    assert len(list(test_set_log.looks(tmp_path, "digits"))) == 3
    assert "(n = 4)" in command("hydra.sweeper.finals.n_test=4")
    assert len(list(test_set_log.looks(tmp_path, "digits"))) == 4

    kept = tmp_path / "s.json"
    done = program("export", "s", str(kept), "--root", str(tmp_path), entry="studies", defaults=False)
    assert (done.code, done.err) == (0, "")
    figures = json.loads(kept.read_text())
    assert figures["command"].startswith("python ")
    assert "hydra.sweeper.finals.n_test=4" in figures["command"]
    assert figures["environment"]["resolved.device"] == "cpu"
    assert {name: part["trials"]["complete"] for name, part in figures["parts"].items()} == {
        "search": 2, "finals": 6, "test": 4,
    }  # fmt: skip
    assert all(part["busy_s"] >= part["trials_s"] > 0 for part in figures["parts"].values())  # of one worker
    assert "train_on_val=true" in figures["environment"]["overrides"]
    assert len(figures["test"]["values"]) == 4
    assert [len(row["values"]) for row in figures["finals"]["finalists"]] == [3, 3]
    assert set(figures["search"]["trials"]) == {"0", "1"}


def test_in_mlflow_finals_and_test_lie_in_the_sweeps_run_which_has_their_means_and_a_champion(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = program(
        "-m", "hydra/sweeper=iolaus", "hydra.sweeper.direction=maximize", "hydra.sweeper.study_name=mine",
        "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=1", "seed=choice(0,1)", "hydra/sweeper/finals=seeds",
        "hydra.sweeper.finals.k=1", "hydra.sweeper.finals.r=3", "hydra.sweeper.report=false", "tracking=mlflow",
        "epochs=1", f"hydra.sweep.dir={tmp_path}/s",
    )  # fmt: skip
    assert done.code == 0, done.err
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    named = {run.info.run_name: run for run in runs if "trial" not in run.data.tags}
    whole = named["mine"]
    assert named["mine-finals"].data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert named["mine-test"].data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert {run.info.status for run in runs} == {"FINISHED"}
    winners = [run for run in runs if run.data.tags.get("study") == "mine-test" and "trial" in run.data.tags]
    accuracies = [run.data.metrics["test/accuracy"] for run in winners]
    assert len(accuracies) == 3
    assert whole.data.metrics["test/mean"] == pytest.approx(sum(accuracies) / 3)
    assert whole.data.metrics["test/n"] == 3
    assert {"finals/mean", "finals/interval", "finals/optimism", "test/interval"} <= whole.data.metrics.keys()
    champion = mlflow.MlflowClient().get_model_version_by_alias("iolaus-digits", "champion")
    assert champion.run_id in [run.info.run_id for run in winners]
    assert champion.tags["study"] == "mine"


def test_the_winner_is_trained_for_the_median_of_its_best_epochs() -> None:
    results = [{"best_epoch": epoch} for epoch in (9, 1, 4, 3)]
    found = SweepCallback().final_overrides(OmegaConf.create(), results)
    assert found == ["train_on_val=true", "epochs=3", "early_stopping.patience=null"]
