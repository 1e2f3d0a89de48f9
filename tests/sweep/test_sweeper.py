"""A drop-in for the official sweeper: each of its keys and forms, and one clear line for what cannot be."""

import importlib.util
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from in_process import NewSweep, Sweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from iolaus.errors import InputError
from iolaus.search_space.overrides import element, parse
from iolaus.study.attributes import END, INTERRUPTED
from iolaus.sweep.worker import Worker

APP = """
import os, hydra

def custom(cfg, trial):
    trial.suggest_float("+w", trial.params["x"], trial.params["x"] + cfg.width)

def overlapping(cfg, trial):
    trial.suggest_float("y", 0, 1)

@hydra.main(config_path="conf", config_name="config")
def main(cfg):
    if cfg.task == "raise":
        raise RuntimeError("broken\\nin two lines")
    if cfg.task == "exit":
        raise SystemExit(3)
    if cfg.task == "not a number":
        return float("nan")
    if cfg.task == "none":
        return None
    if cfg.task in ("two", "list"):
        return [cfg.x ** 2, (cfg.x - 2) ** 2][: 2 if cfg.task == "two" else 1]
    if cfg.task == "cwd":
        open("here", "w").close()
    return cfg.x ** 2 + (cfg.y or 0) ** 2

if __name__ == "__main__":
    main()
"""

pytestmark = [
    # Hydra's advice to apps, and Optuna's to those who choose these samplers
    pytest.mark.filterwarnings("ignore:hydra.utils.instantiate.. resolved"),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

CONF = {
    "config.yaml": """
defaults: [{model: small}, _self_, {override hydra/sweeper: optuna}]
x: 1
y: 1
z: 1
task: value
width: 0.5
list: [1, 2]
""",
    "needy.yaml": """
defaults:
  - config
  - solver: ???
  - _self_
needed: ???
""",
    "official.yaml": """
defaults: [config, {override hydra/sweeper/sampler: random}, _self_]
hydra:
  sweeper:
    sampler: {seed: 1}
    direction: maximize
    study_name: official
    storage: null
    n_trials: 3
    n_jobs: 1
    max_failure_rate: 0.5
    params:
      x: range(-4, 4, step=0.5)
      y: choice(-5, 0, 5)
      z: 7
""",
    "broken.yaml": """
defaults: [config, _self_]
hydra: {sweeper: {params: {y: choice(}}}
""",
    "model/small.yaml": "size: 1",
    "model/big.yaml": "size: 9",
    "solver/fast.yaml": "steps: 1",
    "solver/slow.yaml": "steps: 9",
}


@pytest.fixture
def sweep(new_sweep: NewSweep) -> Sweep:
    return new_sweep(APP, CONF)


# Forms of the search space


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("choice(1, 2)", CategoricalDistribution([1, 2])),
        ("1,2.5,a", CategoricalDistribution([1, 2.5, "a"])),
        ("choice(true,false)", CategoricalDistribution([True, False])),
        ("a,null", CategoricalDistribution(["a", "null"])),
        ("choice('a b', \"c,d\", 'it\\'s')", CategoricalDistribution(["a b", "c,d", "it's"])),
        ("choice([1,2],[3],{a:1})", CategoricalDistribution(["[1,2]", "[3]", "{a:1}"])),
        ("choice(${y},1)", CategoricalDistribution(["${y}", 1])),
        ("sort(3,1,2)", CategoricalDistribution([1, 2, 3])),
        ("range(3)", IntDistribution(0, 2)),
        ("range(2,9,step=3)", IntDistribution(2, 8, step=3)),
        ("range(-3,3)", IntDistribution(-3, 2)),
        ("range(5,1,-2)", IntDistribution(3, 5, step=2)),
        ("range(0.5,5.5,step=1)", FloatDistribution(0.5, 4.5, step=1)),
        ("range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("float(range(1,4))", CategoricalDistribution([1.0, 2.0, 3.0])),
        ("interval(1,5)", FloatDistribution(1, 5)),
        ("interval(1e-4,1e-1)", FloatDistribution(1e-4, 1e-1)),
        ("int(interval(1,5))", IntDistribution(1, 5)),
        ("tag(log,interval(1,5))", FloatDistribution(1, 5, log=True)),
        ("tag(log,int(interval(1,5)))", IntDistribution(1, 5, log=True)),
        ("int(tag(log,interval(1,5)))", IntDistribution(1, 5, log=True)),
    ],
)
def test_a_form_of_the_official_sweeper_is_this_space(form: str, expected: BaseDistribution) -> None:
    assert parse(f"key={form}") == {"key": expected}


@pytest.mark.parametrize(
    "form", ["shuffle(range(1,9))", "shuffle(1,2,3,4,5,6,7,8)", "shuffle(choice(8,7,6,5,4,3,2,1))"]
)
def test_shuffled_choices_are_the_same_space_in_every_command(form: str) -> None:
    assert parse(f"key={form}") == {"key": CategoricalDistribution([1, 2, 3, 4, 5, 6, 7, 8])}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("key=5", {"key": "5"}),
        ("key='a,b'", {"key": "'a,b'"}),
        ("key=null", {"key": "null"}),
        ("+key=[1,2]", {"+key": "[1,2]"}),
        ("group@package=a", {"group@package": "a"}),
        ("++key=choice(1,2)", {"++key": CategoricalDistribution([1, 2])}),
        ("~key", {}),
        ("~key=1", {}),
        ("~key=true,false", {"~key": CategoricalDistribution([True, False])}),
        ("~key=choice(false,true)", {"~key": CategoricalDistribution([False, True])}),
    ],
)
def test_what_is_fixed_added_or_deleted_keeps_its_form(override: str, expected: dict[str, Any]) -> None:
    assert parse(override) == expected


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("interval(5,1)", "`low <= high` must hold"),
        ("tag(log,interval(0,1))", "`low > 0` must hold"),
        ("range(5,1)", "at least one value"),
        ("choice()", "empty choice is not legal"),
        ("choice(a", "no viable alternative"),
        ("choice(true,1)", "true for 1"),
    ],
)
def test_a_form_that_cannot_be_is_refused_in_one_line(form: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        parse(f"key={form}")
    assert str(caught.value).startswith(f"key={form} cannot be parsed as a search space: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a,b", "it's", "interval(1,2)", "a: b", "back\\slash,", "(", "é ü"])
def test_a_choice_that_hydra_would_misread_is_quoted(text: str) -> None:
    assert OverridesParser.create().parse_override(f"key={element(text)}").value() == text


@pytest.mark.parametrize(("choice", "value"), [("[1,'x y']", [1, "x y"]), ("{a:1}", {"a": 1}), ("null", None)])
def test_a_choice_that_is_no_string_stays_what_it_is(choice: str, value: object) -> None:
    assert OverridesParser.create().parse_override(f"key={element(choice)}").value() == value


# Keys of the configuration


def test_a_config_of_the_official_sweeper_runs_as_it_is(sweep: Sweep) -> None:
    outcome = sweep("--config-name=official", "hydra.sweeper.study_name=official", n_trials=None)
    assert outcome.code == 0, outcome.err
    study = sweep.study("official")
    assert len(study.trials) == 3
    assert study.direction.name == "MAXIMIZE"
    assert study.trials[0].params.keys() == {"x", "y"}
    assert sweep.config().z == 7
    best = study.best_trial
    assert sweep.results() == {"name": "optuna", "best_params": best.params, "best_value": best.value}


def test_of_params_and_command_line_the_later_holds(sweep: Sweep) -> None:
    outcome = sweep("--config-name=official", "x=2", "++y=interval(0,1)", "z=choice(3,4)")
    assert outcome.code == 0, outcome.err
    assert sweep.trials()[0].params.keys() == {"++y", "z"}
    assert sweep.config().x == 2


def test_additions_deletions_groups_and_lists_reach_the_task(sweep: Sweep) -> None:
    space = ["model=choice(big)", "+extra=choice('a,b')", "~z", "list=[5,6],[7]", "y=null,null", "width='1'"]
    outcome = sweep("x=int(interval(0,3))", *space)
    assert outcome.code == 0, outcome.err
    config = sweep.config()
    assert config.model.size == 9
    assert config.extra == "a,b"
    assert "z" not in config
    assert config.list in ([5, 6], [7])
    assert config.y is None
    assert config.width == "1"
    assert isinstance(config.x, int)


def test_glob_searches_the_options_of_a_group(sweep: Sweep) -> None:
    outcome = sweep("x=interval(0,1)", "model=glob(*)")
    assert outcome.code == 0, outcome.err
    assert sweep.trials()[0].distributions["model"] == CategoricalDistribution(["big", "small"])


def test_what_is_mandatory_may_be_left_to_the_search(sweep: Sweep) -> None:
    outcome = sweep("--config-name=needy", "needed=interval(0,1)", "solver=choice(fast,slow)")
    assert outcome.code == 0, outcome.err
    assert sweep.config().solver.steps in (1, 9)
    assert 0 <= sweep.config().needed <= 1


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "nsgaii", "nsgaiii", "grid", "gp", "qmc"])
def test_each_sampler_of_the_group_comes_to_the_total(sweep: Sweep, sampler: str) -> None:
    needs = {"cmaes": "cmaes", "gp": "torch", "qmc": "scipy"}.get(sampler)
    if needs is not None and importlib.util.find_spec(needs) is None:
        pytest.skip(f"needs the package {needs}")
    outcome = sweep(
        f"hydra/sweeper/sampler={sampler}",
        "hydra.sweeper.sampler.seed=1",
        "x=range(0,3)",
        "y=range(0,1,0.5)",
        n_trials=4,
    )
    assert outcome.code == 0, outcome.err
    assert len(sweep.trials()) == 4


def test_a_grid_ends_when_each_of_its_points_has_been_tried(sweep: Sweep) -> None:
    sweep("hydra/sweeper/sampler=grid", "x=1,2", "y=range(0,1,0.5)", "model=choice(big)", n_trials=50)
    points = [tuple(trial.params.values()) for trial in sweep.trials()]
    assert sorted(points) == [(1, 0.0, "big"), (1, 0.5, "big"), (2, 0.0, "big"), (2, 0.5, "big")]


def test_two_directions_give_the_trials_that_no_other_beats(sweep: Sweep) -> None:
    outcome = sweep("task=two", "x=interval(0,2)", "hydra.sweeper.direction=[minimize,maximize]", n_trials=3)
    assert outcome.code == 0, outcome.err
    study = sweep.study()
    best = [{"params": trial.params, "values": trial.values} for trial in study.best_trials]
    assert sweep.results() == {"name": "optuna", "solutions": best}


def test_a_list_of_one_direction_is_one_objective(sweep: Sweep) -> None:
    outcome = sweep("x=interval(0,2)", "hydra.sweeper.direction=[maximize]")
    assert outcome.code == 0, outcome.err
    assert "best_value" in sweep.results()


def test_a_custom_search_space_adds_parameters_that_depend_on_others(sweep: Sweep) -> None:
    outcome = sweep("x=interval(0,1)", "width=0.25", "hydra.sweeper.custom_search_space=app.custom")
    assert outcome.code == 0, outcome.err
    params = sweep.trials()[0].params
    assert 0 <= params["+w"] - params["x"] <= 0.25
    assert sweep.config().w == params["+w"]
    assert sweep.trials()[0].user_attrs["width"] == "0.25"


def test_a_custom_search_space_must_not_search_what_is_fixed(sweep: Sweep) -> None:
    error = sweep.refused("x=interval(0,1)", "++y=1", "hydra.sweeper.custom_search_space=app.overlapping")
    assert "both fixed and searched for: y; remove one" in error
    assert not any(trial.state.name == "COMPLETE" for trial in sweep.trials())


@pytest.mark.parametrize("place", ["sqlite:///study.db", "sqlite:///{folder}/study.db", "studies/study.log"])
def test_the_storage_is_a_url_or_the_path_of_a_journal(sweep: Sweep, place: str) -> None:
    place = place.format(folder=sweep.folder)
    outcome = sweep("x=interval(0,1)", f"hydra.sweeper.storage={place}", "hydra.job.chdir=true", "task=cwd")
    assert outcome.code == 0, outcome.err
    assert len(sweep.study(storage=place).trials) == 2
    assert not (sweep.folder / "study" / "journal.log").exists()


def test_the_same_command_goes_on_to_its_total_and_then_only_reports(sweep: Sweep) -> None:
    for n_trials, ran in ((2, 2), (3, 3), (3, 3), (1, 3)):
        outcome = sweep("x=interval(0,1)", n_trials=n_trials)
        assert outcome.code == 0, outcome.err
        assert len(sweep.trials()) == ran
    assert "3 of 1 trials finished; 0 workers" in outcome.out
    assert "best trial" in outcome.out


def test_without_a_name_the_study_is_that_of_the_search(sweep: Sweep) -> None:
    command = ["hydra.sweeper.study_name=null", "hydra.sweep.dir=runs/${now:%Y}/${now:%H}", "x=interval(0,1)"]
    for _ in range(2):
        assert sweep(*command).code == 0
    sweep(*command, "y=3")
    first, second = sorted(path.name for path in (sweep.folder / "runs").iterdir())
    assert first.startswith("app-")
    assert {first, second} != {first}
    assert all((sweep.folder / "runs" / name / "1").is_dir() for name in (first, second))


def test_another_search_under_the_same_name_is_refused_unless_it_shall_continue(sweep: Sweep) -> None:
    sweep("x=interval(0,1)")
    error = sweep.refused("x=interval(0,1)", "z=9", n_trials=3)
    assert "z was 1, now 9" in error
    assert sweep("x=interval(0,1)", "z=9", "hydra.sweeper.on_mismatch=continue", n_trials=3).code == 0
    assert len(sweep.trials()) == 3


# Folders, the task, callbacks


def test_folders_follow_their_template_and_none_is_written_twice(sweep: Sweep) -> None:
    outcome = sweep("x=choice(1)", "y=1", "hydra.sweep.subdir=runs/${hydra.job.override_dirname}")
    assert outcome.code == 0, outcome.err
    assert [trial.user_attrs["folder"] for trial in sweep.trials()] == ["runs/x=1,y=1", "runs/x=1,y=1_2"]
    assert sweep.config("runs/x=1,y=1_2").x == 1


def test_with_chdir_a_trial_runs_in_its_folder(sweep: Sweep) -> None:
    sweep("x=interval(0,1)", "task=cwd", "hydra.job.chdir=true")
    assert (sweep.folder / "study" / "1" / "here").is_file()
    assert Path.cwd() == sweep.folder


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("raise", "RuntimeError: broken in two lines"),
        ("exit", "SystemExit: 3"),
        ("not a number", "ValueError: the task returned NaN"),
        ("none", "ValueError: the task must return a number, but returned None"),
        ("two", "ValueError: the task must return a number, but returned"),
    ],
)
def test_a_trial_that_fails_says_why_and_the_sweep_goes_on(sweep: Sweep, task: str, reason: str) -> None:
    outcome = sweep("x=interval(0,1)", f"task={task}", "hydra.sweeper.max_failure_rate=1")
    assert outcome.code == 1
    assert "error: none of 2 trials came to a value" in outcome.err
    assert [trial.user_attrs["reason"].startswith(reason) for trial in sweep.trials()] == [True, True]
    assert sweep.results() == {"name": "optuna"}
    lines = [line for line in outcome.out.splitlines() if line.startswith("trial 0: failed in ")]
    assert reason in lines[0]


def test_two_objectives_need_two_numbers(sweep: Sweep) -> None:
    sweep(
        "x=interval(0,1)",
        "task=list",
        "hydra.sweeper.direction=[minimize,minimize]",
        "hydra.sweeper.max_failure_rate=1",
    )
    assert sweep.trials()[0].user_attrs["reason"] == "ValueError: the task must return 2 numbers, but returned 1"


def test_a_sweep_that_fails_too_often_ends_with_the_reasons(sweep: Sweep) -> None:
    error = sweep.refused("x=interval(0,1)", "task=raise", "hydra.sweeper.max_failure_rate=0.5", n_trials=20)
    assert "5 of 5 trials failed, more than hydra.sweeper.max_failure_rate=0.5 allows" in error
    assert "5 x RuntimeError: broken in two lines" in error


def test_a_task_that_cannot_be_sent_to_other_processes_runs_in_this_one(sweep: Sweep) -> None:
    app = sweep.folder / "app.py"
    app.write_text(
        APP.replace("import os, hydra", "import os, hydra, threading\nlock = threading.Lock()").replace(
            '"raise"', "lock"
        )
    )
    outcome = sweep.launched_by_default("x=interval(0,1)", "hydra.sweeper.n_jobs=2", n_trials=2)
    assert outcome.code == 0, outcome.err
    assert "one worker only, in this process: the task cannot be sent to others: cannot pickle" in outcome.out
    assert len(sweep.trials()) == 2


def test_callbacks_see_the_jobs_of_trials_only(sweep: Sweep) -> None:
    (sweep.folder / "calls.py").write_text(
        "from hydra.experimental.callback import Callback\n"
        "class Calls(Callback):\n"
        "    def on_job_start(self, config, **_):\n"
        "        with open('calls', 'a') as file:\n"
        "            file.write(f'{config.hydra.job.num} ')\n"
    )
    outcome = sweep("x=interval(0,1)", "+hydra.callbacks.calls._target_=calls.Calls")
    assert outcome.code == 0, outcome.err
    assert (sweep.folder / "calls").read_text() == "0 1 "


def test_the_command_once_more_is_one_that_hydra_reads(sweep: Sweep) -> None:
    out = sweep("--config-name", "official", "x=choice(2)", "+extra=choice('a,b')", "~list", n_trials=1).out
    (line,) = [line for line in out.splitlines() if "once more:" in line]
    python, app, *arguments = shlex.split(line.partition("once more:")[2])
    assert [python, app, *arguments[:2]] == ["python", "app.py", "--config-name", "official"]
    assert arguments[2:] == sweep.overrides()


# What cannot be


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.sweeper.n_trials=0", "error: hydra.sweeper.n_trials must be at least 1, but got 0"),
        ("hydra.sweeper.n_jobs=0", "error: hydra.sweeper.n_jobs must be at least 1, but got 0"),
        ("hydra.sweeper.max_failure_rate=1.5", "error: hydra.sweeper.max_failure_rate must be in [0, 1], but got 1.5"),
        ("hydra.sweeper.direction=up", "error: hydra.sweeper.direction must be minimize or maximize, but got up"),
        ("hydra.sweeper.direction=[]", "error: hydra.sweeper.direction must be minimize or maximize, for each"),
        (
            "hydra.sweeper.study_name=..",
            "error: hydra.sweeper.study_name must be a name that a folder may have, but got",
        ),
        (
            "hydra.sweeper.study_name=''",
            "error: hydra.sweeper.study_name must be a name that a folder may have, but got",
        ),
        ("model=choice(small,smal)", "error: model has no option smal; available: "),
        ("hydra.sweeper.on_mismatch=ask", "error: hydra.sweeper.on_mismatch must be refuse or continue, but got ask"),
        ("x=interval(5,1)", "error: x=interval(5,1) cannot be parsed as a search space: `low <= high` must hold"),
        ("--config-name=broken", "error: y=choice( cannot be parsed as a search space: "),
        ("lr=interval(0,1)", "lr"),
        ("model=choice(tiny,big)", "tiny"),
        ("model=glob(z*)", "error: model=glob(z*) matches no option of this group"),
        ("hydra/sweeper/sampler=grid", "error: hydra/sweeper/sampler=grid: "),
        ("hydra/sweeper/sampler=motpe", "The 'motpe' sampler was removed in Optuna 4.0."),
        ("hydra.sweeper.custom_search_space=app.missing", "error: hydra.sweeper.custom_search_space cannot be used: "),
        ("hydra.sweeper.storage='sqlite:///:memory:'", "lies in the memory of one process"),
        ("hydra.sweeper.storage='sqlite://'", "lies in the memory of one process"),
        ("hydra.sweeper.storage='nosuch://user:secret@host/db'", "error: storage=nosuch://host/db cannot be used: "),
        ("hydra.sweeper.storage=app.py/journal", "error: the study cannot be kept in"),
        ("hydra.sweeper.n_trial=3", "n_trial"),
    ],
)
def test_a_mistake_is_answered_before_any_trial(sweep: Sweep, override: str, message: str) -> None:
    space = ["x=interval(0,1)"] if not override.startswith("x=") else []
    error = sweep.refused(*space, override)
    assert message in error
    if message.startswith("error: "):
        assert len(error.splitlines()) == 1
    assert "secret" not in error
    assert not (sweep.folder / "study" / "0").exists()


def test_ctrl_c_that_a_clean_up_has_covered_up_is_an_interruption(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def covered_up(self: Worker, number: int, overrides: Any) -> Any:
        try:
            raise KeyboardInterrupt
        finally:
            raise UnboundLocalError("as Hydra's reading of a file does")

    monkeypatch.setattr(Worker, "compose", covered_up)
    assert sweep("x=interval(0,1)").code == 130
    assert [trial.system_attrs[END] for trial in sweep.trials()] == [INTERRUPTED]


def test_the_command_for_the_best_has_the_settings_that_it_had(sweep: Sweep) -> None:
    sweep("x=interval(0,1)", "y=0", "hydra.sweeper.n_trials=2")
    went_on = "hydra.sweeper.on_mismatch=continue"
    out = sweep("x=interval(0,1)", "y=3", "hydra.sweeper.n_trials=3", went_on).out
    assert "y=0" in next(line for line in out.splitlines() if "once more" in line)


def test_a_search_without_a_range_says_so(sweep: Sweep) -> None:
    assert "nothing is searched: all trials are the same" in sweep("y=2").out


def test_failures_within_the_rate_are_listed_at_the_end(sweep: Sweep) -> None:
    grid = ["hydra/sweeper/sampler=grid", "x=1,2,3", "task=value,raise"]
    out = sweep(*grid, "hydra.sweeper.n_trials=6", "hydra.sweeper.max_failure_rate=1").out
    assert "3 of 6 trials failed:\n  3 x RuntimeError: broken in two lines" in out
