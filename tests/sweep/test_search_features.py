"""What the official sweeper does not have: branches, pruning, repeats, what is tried first, and when it ends."""

import shlex
import statistics
import time
from types import SimpleNamespace

import pytest
from in_process import NewSweep, Sweep
from optuna.trial import TrialState

from iolaus.reporting import page
from iolaus.study import queue
from iolaus.study.attributes import FORMAT, FORMAT_VERSION, GROWN

APP = """
import hydra, iolaus
from hydra.experimental.callback import Callback
from hydra.core.hydra_config import HydraConfig

class Timed(Callback):
    def estimate_s(self, config, threads):
        return 100 * config.x

@hydra.main(config_path="conf", config_name="config", execution_whitelist=("app.Timed",))
def main(cfg):
    if cfg.task == "seeds":
        with open(f"{HydraConfig.get().runtime.output_dir}/ran", "a") as file:
            file.write(str(cfg.seed))
        iolaus.report(1, cfg.x)
        return cfg.x + cfg.seed
    if cfg.task == "constrained":
        iolaus.current_trial().set_constraint("size", cfg.x - 0.5)
        return cfg.x
    for step in range(1, 6) if cfg.task == "reports" else ():
        iolaus.report(step, cfg.x / step)
    return cfg.x

if __name__ == "__main__":
    main()
"""

CONF = {
    "config.yaml": """
defaults:
  - model: cnn
  - optimizer: sgd
  - _self_
  - override hydra/sweeper: iolaus
  - override hydra/sweeper/sampler: random
x: 0.25
seed: 3
task: value
hydra: {sweeper: {sampler: {seed: 0}}}
""",
    "branches.yaml": """
defaults: [config, _self_]
hydra:
  sweeper:
    params: {model: 'choice(mlp, cnn)', optimizer: 'choice(adam, sgd)', x: 'interval(0, 1)'}
    when:
      model=cnn:
        model.channels: choice([16], [16,32])
        optimizer=sgd:
          model.norm: choice(true, false)
      model=mlp: {model.width: 'tag(log, int(interval(1, 100)))'}
      optimizer=sgd: {optimizer.momentum: 'interval(0.5, 0.9)', optimizer.nesterov: true}
""",
    "misspelt.yaml": """
defaults: [branches, _self_]
hydra: {sweeper: {when: {model=cnn: {model.chanels: '1,2'}}}}
""",
    "no_option.yaml": """
defaults: [config, _self_]
hydra: {sweeper: {params: {x: '1,2'}, when: {model=tiny: {y: '1,2'}}}}
""",
    "no_parent.yaml": """
defaults: [config, _self_]
hydra: {sweeper: {params: {x: '1,2'}, when: {modle=cnn: {y: '1,2'}}}}
""",
    "no_value.yaml": """
defaults: [config, _self_]
hydra: {sweeper: {params: {x: '1,2'}, when: {x=3: {y: '1,2'}}}}
""",
    "cycle.yaml": """
defaults: [config, _self_]
hydra: {sweeper: {when: {model.norm=true: {x: '1,2'}, x=1: {model.norm: 'true,false'}}}}
""",
    "layers.yaml": """
defaults: [config, {override model: layers}, _self_]
hydra: {sweeper: {params: {'~model.layers.conv': 'choice(true, false)', model.layers.drop: 'null,0.5'}}}
""",
    "ranges.yaml": """
defaults: [config, _self_]
hydra:
  sweeper:
    params: {optimizer: 'choice(adam, sgd)'}
    when:
      optimizer=adam: {optimizer.lr: 'tag(log, interval(0.001, 0.01))', x: 'choice(1, 2)'}
      optimizer=sgd: {optimizer.lr: 'interval(0.1, 1)', x: 'choice(3, 4)'}
""",
    "chain.yaml": """
defaults: [config, _self_]
hydra:
  sweeper:
    params: {model: 'choice(mlp, cnn)', x: 'interval(0, 1)'}
    when:
      model=cnn: {+depth: '1,2'}
      depth=2: {+width: '3,4'}
""",
    "settled.yaml": """
defaults: [config, _self_]
hydra:
  sweeper:
    params: {model: choice(mlp), model.width: 3, x: 'interval(0, 1)'}
    when: {optimizer=sgd: {optimizer.momentum: 'interval(0.5, 0.9)'}}
""",
    "known.yaml": """
defaults: [branches, _self_]
hydra: {sweeper: {enqueue: [{model: cnn, model.channels: '[16]', x: 0.125}, {model: mlp, model.width: 9, x: 0.5}]}}
""",
    "timed.yaml": """
defaults: [config, _self_]
hydra: {callbacks: {timed: {_target_: app.Timed}}}
""",
    "misspelt_layer.yaml": """
defaults: [config, {override model: layers}, _self_]
hydra: {sweeper: {params: {'~model.layers.cnv': 'choice(false, true)'}}}
""",
    "searchable.yaml": "defaults: [config, {hparams_search: null}, _self_]",
    "hparams_search/mine.yaml": """
# @package _global_
defaults: [{override /optimizer: adam}, {override /model: mlp}, _self_]
hydra: {sweeper: {params: {model.width: 'choice(10, 20)'}}}
""",
    "model/cnn.yaml": "{channels: [16], norm: true}",
    "model/mlp.yaml": "{width: 10}",
    "model/layers.yaml": "{layers: {conv: 1, drop: 2}}",
    "optimizer/adam.yaml": "{lr: 0.1}",
    "optimizer/sgd.yaml": "{lr: 0.1, momentum: 0.8, nesterov: false}",
}


@pytest.fixture
def sweep(new_sweep: NewSweep) -> Sweep:
    return new_sweep(APP, CONF)


# Branches


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_trial_has_the_parameters_of_its_branch_and_no_others(sweep: Sweep, sampler: str) -> None:
    done = sweep(
        "--config-name=branches", f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.sampler.seed=1", n_trials=16
    )
    assert done.code == 0, done.err
    seen = set()
    for trial in sweep.trials():
        model, optimizer = trial.params["model"], trial.params["optimizer"]
        expected = {"model", "optimizer", "x"}
        expected |= {"model.channels"} if model == "cnn" else {"model.width"}
        expected |= {"optimizer.momentum"} if optimizer == "sgd" else set()
        expected |= {"model.norm"} if (model, optimizer) == ("cnn", "sgd") else set()
        assert trial.params.keys() == expected
        config = sweep.config(trial.number)
        assert config.optimizer.get("nesterov") == (True if optimizer == "sgd" else None)
        if model == "cnn":
            assert str(list(config.model.channels)).replace(" ", "") == trial.params["model.channels"]
        seen.add((model, optimizer))
    assert len(seen) == 4


def test_what_is_fixed_leaves_only_its_own_branches(sweep: Sweep) -> None:
    sweep("--config-name=branches", "model=mlp", n_trials=8)
    assert {tuple(sorted(trial.params)) for trial in sweep.trials()} == {
        ("model.width", "optimizer", "x"),
        ("model.width", "optimizer", "optimizer.momentum", "x"),
    }


def test_a_key_of_a_branch_that_the_command_line_sets_is_set_there_only(sweep: Sweep) -> None:
    sweep("--config-name=branches", "optimizer.momentum=0.7", "model.width=5,6", n_trials=12)
    for trial in sweep.trials():
        config = sweep.config(trial.number)
        assert config.optimizer.get("momentum") == (0.7 if trial.params["optimizer"] == "sgd" else None)
        assert trial.params.get("model.width") in ((5, 6) if trial.params["model"] == "mlp" else (None,))


def test_an_override_of_a_key_none_of_whose_branches_is_left_holds_like_any_other(sweep: Sweep) -> None:
    done = sweep("--config-name=branches", "optimizer=adam", "+optimizer.momentum=0.7", "model=cnn", n_trials=1)
    assert done.code == 0, done.err
    assert sweep.config().optimizer.momentum == 0.7
    assert "momentum" in sweep.refused("--config-name=branches", "optimizer=adam", "optimizer.momentum=0.7")


def test_the_command_line_may_leave_only_some_of_the_values_that_conditions_name(sweep: Sweep) -> None:
    done = sweep("--config-name=branches", "model=mlp,layers", "optimizer=choice(sgd)", n_trials=8)
    assert done.code == 0, done.err
    seen = {(trial.params["model"], "model.width" in trial.params) for trial in sweep.trials()}
    assert seen == {("mlp", True), ("layers", False)}
    assert all("optimizer.momentum" in trial.params for trial in sweep.trials())


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_one_key_has_a_range_of_its_own_in_each_branch(sweep: Sweep, sampler: str) -> None:
    more = [f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.sampler.seed=2", "hydra.sweeper.report=true"]
    done = sweep("--config-name=ranges", *more, n_trials=24)
    assert done.code == 0, done.err
    for trial in sweep.trials():
        config = sweep.config(trial.number)
        low, high, xs = (0.001, 0.01, (1, 2)) if trial.params["optimizer"] == "adam" else (0.1, 1, (3, 4))
        assert low <= config.optimizer.lr <= high
        assert config.x in xs
    assert {trial.params["optimizer"] for trial in sweep.trials()} == {"adam", "sgd"}
    assert " optimizer.lr=0.0" in done.out
    assert sweep.results()["best_params"].keys() == {"optimizer", "optimizer.lr", "x"}
    assert " when " not in next(line for line in done.out.splitlines() if "once more:" in line)


def test_a_range_for_all_branches_is_one_parameter(sweep: Sweep) -> None:
    sweep("--config-name=ranges", "optimizer.lr=interval(0.5,1)", "x=7", n_trials=6)
    assert all(trial.params.keys() == {"optimizer", "optimizer.lr"} for trial in sweep.trials())
    assert {sweep.config(trial.number).x for trial in sweep.trials()} == {7}


def test_what_is_fixed_may_exist_only_with_what_is_searched(sweep: Sweep) -> None:
    done = sweep("--config-name=settled", "hydra.sweeper.enqueue=[defaults]", n_trials=2)
    assert done.code == 0, done.err
    assert done.out.count("the defaults cannot be combined with what is fixed: ") == 1
    assert all(sweep.config(number).model.width == 3 for number in range(2))


def test_a_condition_on_what_is_left_out_never_holds(sweep: Sweep) -> None:
    done = sweep("--config-name=chain", "model=mlp")
    assert done.code == 0, done.err
    assert all(trial.params.keys() == {"x"} for trial in sweep.trials())
    done = sweep("--config-name=chain", "hydra.sweeper.study_name=whole", "hydra.sweep.dir=whole", n_trials=16)
    assert done.code == 0, done.err
    for trial in sweep.study("whole", "whole/journal.log").trials:
        assert ("+width" in trial.params) == (trial.params.get("+depth") == 2)


def test_a_layer_is_deleted_or_null_in_some_of_the_trials(sweep: Sweep) -> None:
    sweep("--config-name=layers", n_trials=12)
    layers = [sweep.config(number).model.layers for number in range(12)]
    assert {"conv" in layer for layer in layers} == {True, False}
    assert {layer["drop"] for layer in layers} == {None, 0.5}


def test_another_condition_is_another_study(sweep: Sweep) -> None:
    sweep("--config-name=branches", n_trials=1)
    refused = sweep.refused("--config-name=branches", "model=cnn", n_trials=2)
    assert "study study was made with other settings" in refused
    assert "space.model was mlp | cnn, now (absent)" in refused


def test_a_dry_run_shows_the_space_and_each_branch_and_runs_nothing(sweep: Sweep) -> None:
    out = sweep("--config-name=branches", "hydra.sweeper.dry_run=true", n_trials=20).out.splitlines()
    assert out[0].startswith("study study: 20 trials, 1 workers; ")
    assert "  when model=cnn" in out
    assert "      model.norm        True | False" in out
    branches = [line for line in out if line.startswith("  model=")]
    assert f"{len(branches)} branches, a trial of each composed:" in out
    assert any("model=cnn optimizer=sgd" in line and "model.norm=True" in line for line in branches)
    assert out[-1] == "no trial has run yet from which the time could be estimated"
    assert not (sweep.folder / "study").exists()
    sweep("--config-name=branches", n_trials=4)
    assert "(h:mm:ss) for 4 trials of" in sweep("--config-name=branches", "hydra.sweeper.dry_run=true", n_trials=8).out


def test_a_dry_run_refuses_a_study_of_another_version_as_the_search_would(sweep: Sweep) -> None:
    sweep("x=interval(0,1)")
    sweep.study().set_user_attr(FORMAT, FORMAT_VERSION + 1)
    refused = sweep.refused("x=interval(0,1)", "hydra.sweeper.dry_run=true")
    assert refused.startswith("error: study study was made by a newer version of Iolaus")
    assert sweep.refused("x=interval(0,1)") == refused


def test_a_dry_run_counts_repeats_and_what_is_done_already(sweep: Sweep) -> None:
    timed = ["--config-name=timed", "x=range(1,2)", "hydra.sweeper.repeats=3"]
    said = sweep(*timed, "hydra.sweeper.dry_run=true", n_trials=4).out
    assert "about 0:20:00 (h:mm:ss) for 4 trials of 300.0 s, the mean of 24 random ones" in said
    sweep(*timed, n_trials=1)
    said = sweep(*timed, "hydra.sweeper.dry_run=true", n_trials=4).out
    assert "about 0:15:00 (h:mm:ss) for 3 trials of 300.0 s" in said


def test_a_dry_run_says_when_the_time_ends_a_search(sweep: Sweep) -> None:
    timed = ["--config-name=timed", "x=range(1,2)", "hydra.sweeper.repeats=3", "hydra.sweeper.timeout_s=600"]
    said = sweep(*timed, "hydra.sweeper.dry_run=true", n_trials=4).out
    assert "hydra.sweeper.timeout_s ends it after about 0:12:30 (h:mm:ss), with about 2 trials" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config-name=misspelt"],
            "error: the configuration with model=cnn optimizer=adam has no model.chanels; did you mean model.channels?",
        ),
        (["--config-name=branches", "optmizer.lr=1,2"], "has no optmizer.lr; did you mean optimizer.lr?"),
        (["--config-name=misspelt_layer"], "has no model.layers.cnv; did you mean model.layers.conv?"),
        (["model=mlp,cnn", "model.width=1,2"], "error: the configuration with model=cnn has no model.width"),
        (["--config-name=cycle"], "error: hydra.sweeper.when has a cycle: "),
        (["--config-name=no_option"], "error: model has no option tiny; available: cnn, layers, mlp"),
        (["--config-name=no_parent"], "error: the configuration has no modle"),
        (["--config-name=no_value"], "error: hydra.sweeper.when names x=3, which it cannot be"),
        (["x=1,2", "hydra.sweeper.repeats=0"], "error: hydra.sweeper.repeats must be at least 1, but got 0"),
        (["x=1,2", "hydra/sweeper/pruner=wilcoxon"], "error: hydra/sweeper/pruner=wilcoxon prunes between repeats"),
        (["seed=1,2", "hydra.sweeper.repeats=2"], "error: hydra.sweeper.repeats gives each repeat a seed"),
        (["x=1,2", "~seed", "hydra.sweeper.repeats=2"], "error: hydra.sweeper.repeats gives each repeat a seed"),
        (["x=1,2", "hydra/sweeper/pruner=threshold"], "error: hydra.sweeper.pruner cannot be used: "),
        (["x=1,2", "hydra/sweeper/pruner=mediam"], "mediam"),
        (
            ["x=1,2", "hydra.sweeper.target=inf"],
            "error: hydra.sweeper.target must be null or a number that a value can pass",
        ),
        (["x=1,2", "hydra.sweeper.at_target=go"], "error: hydra.sweeper.at_target must be stop or report, but got go"),
        (["x=1,2", "hydra.sweeper.patience=0"], "error: hydra.sweeper.patience must be at least 1, but got 0"),
        (["x=1,2", "hydra.sweeper.timeout_s=0"], "error: hydra.sweeper.timeout_s must be null or above 0, but got 0"),
        (
            ["x=1,2", "hydra.sweeper.direction=[minimize,minimize]", "hydra.sweeper.target=1"],
            "error: hydra.sweeper.target needs one objective",
        ),
        (
            ["x=1,2", "hydra.sweeper.direction=[minimize,minimize]", "hydra/sweeper/pruner=median"],
            "error: hydra/sweeper/pruner needs one objective",
        ),
        (
            ["x=1,2", "hydra.sweeper.enqueue=[{xx: 1}]"],
            "error: hydra.sweeper.enqueue: xx is not searched; did you mean x?",
        ),
        (["x=1,2", "hydra.sweeper.enqueue=[{x: 3}]"], "error: hydra.sweeper.enqueue: x=3 is not in its range: 1 | 2"),
        (["x=1,2", "hydra.sweeper.enqueue=[default]"], "error: hydra.sweeper.enqueue must list defaults and mappings"),
        (
            ["--config-name=branches", "hydra.sweeper.enqueue=[{model: mlp, model.norm: true}]"],
            "error: hydra.sweeper.enqueue: model.norm exists only when model=cnn and optimizer=sgd, not with mlp",
        ),
        (
            ["--config-name=ranges", "hydra.sweeper.enqueue=[{optimizer.lr: 0.5}]"],
            "error: hydra.sweeper.enqueue: optimizer.lr has a range of its own when optimizer=adam or when",
        ),
        (
            ["--config-name=ranges", "hydra.sweeper.enqueue=[{optimizer: adam, optimizer.lr: 0.5}]"],
            "error: hydra.sweeper.enqueue: optimizer.lr=0.5 is not in its range: 0.001 to 0.01, logarithmic",
        ),
        (
            ["x=1,2", "hydra/sweeper/sampler=grid", "hydra.sweeper.enqueue=[defaults]"],
            "error: hydra.sweeper.enqueue and hydra/sweeper/sampler=grid are mutually exclusive: a grid",
        ),
    ],
)
def test_a_mistake_is_answered_in_one_line_before_any_trial(sweep: Sweep, arguments: list[str], message: str) -> None:
    error = sweep.refused(*arguments)
    assert message in error
    if message.startswith("error: "):
        assert len(error.splitlines()) == 1
    assert not (sweep.folder / "study" / "0").exists()


# Pruning


def test_a_trial_that_is_worse_at_the_same_step_is_pruned_and_counts(sweep: Sweep) -> None:
    points = "x=choice(0.1,0.2,0.3,0.4,0.5,0.6)"
    done = sweep("hydra/sweeper/sampler=grid", points, "task=reports", "hydra/sweeper/pruner=median",
                 "hydra.sweeper.pruner.n_startup_trials=1", n_trials=6)  # fmt: skip
    trials = sweep.trials()
    complete: list[float] = []
    for trial in trials:
        x = trial.params["x"]
        worse = bool(complete) and x > statistics.median(complete)
        assert trial.state == (TrialState.PRUNED if worse else TrialState.COMPLETE)
        complete += [] if worse else [x]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned
    assert all(trial.last_step == 1 for trial in pruned)
    assert "Traceback" not in done.out + done.err
    assert f"trial {pruned[0].number}: pruned in " in done.out
    assert sum("pruned" in line for line in done.out.splitlines()) == len(pruned)


@pytest.mark.parametrize(
    "pruner", ["none", "median", "asha", "hyperband", "patient", "threshold hydra.sweeper.pruner.upper=0.5"]
)
def test_each_pruner_can_be_chosen(sweep: Sweep, pruner: str) -> None:
    name, *more = pruner.split()
    done = sweep("x=interval(0,1)", "task=reports", f"hydra/sweeper/pruner={name}", *more, n_trials=20)
    assert done.code == 0, done.err
    states = [trial.state for trial in sweep.trials()]
    assert len(states) == 20
    assert (TrialState.PRUNED in states) == (name not in ("none", "patient"))


def test_a_pruner_for_a_task_that_never_reports_is_spoken_of_once(sweep: Sweep) -> None:
    said = "the task never reports a value, so nothing can be pruned: call iolaus.report(step, value)"
    median = ["x=interval(0,1)", "hydra/sweeper/pruner=median"]
    assert sweep(*median, n_trials=4).out.count(said) == 1
    assert said not in sweep(*median, "task=reports", "hydra.sweeper.study_name=other", n_trials=2).out


# Repeats


def test_repeats_run_a_setting_with_seeds_of_their_own_and_report_the_mean(sweep: Sweep) -> None:
    sweep("x=interval(0,1)", "task=seeds", "hydra.sweeper.repeats=3", n_trials=2)
    for trial in sweep.trials():
        assert trial.value == pytest.approx(trial.params["x"] + 4)  # the mean of the seeds 3, 4 and 5
        assert trial.intermediate_values == {1: trial.params["x"]}  # of the first
        for seed in (3, 4, 5):
            assert (sweep.folder / "study" / str(trial.number) / f"seed={seed}" / "ran").read_text() == str(seed)
            assert sweep.config(f"{trial.number}/seed={seed}").seed == seed


def test_wilcoxon_prunes_between_repeats(sweep: Sweep) -> None:
    sweep("x=choice(0,100)", "task=seeds", "hydra.sweeper.repeats=8", "hydra/sweeper/pruner=wilcoxon",
          "hydra.sweeper.enqueue=[{x: 0},{x: 100}]", n_trials=2)  # fmt: skip
    good, bad = sweep.trials()
    assert list(good.intermediate_values.values()) == [float(seed) for seed in range(3, 11)]
    assert (good.state, bad.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert 2 <= len(bad.intermediate_values) < 8


# What is tried first


def test_what_is_enqueued_comes_first_and_once(sweep: Sweep) -> None:
    queue = "hydra.sweeper.enqueue=[defaults,{model: mlp, model.width: 7},{x: 0.5}]"
    sweep("--config-name=branches", queue, n_trials=4)
    trials = sweep.trials()
    assert trials[0].params == {
        "model": "cnn", "optimizer": "sgd", "x": 0.25, "model.channels": "[16]", "model.norm": True,
        "optimizer.momentum": 0.8,
    }  # fmt: skip
    assert (trials[1].params["model"], trials[1].params["model.width"]) == ("mlp", 7)
    assert trials[2].params["x"] == 0.5
    sweep("--config-name=branches", queue.replace("0.5", "0.75"), n_trials=6)
    assert [trial.params["x"] for trial in sweep.trials()].count(0.25) == 1
    assert sweep.trials()[4].params["x"] == 0.75


def test_what_is_enqueued_brings_the_parents_that_it_needs(sweep: Sweep) -> None:
    known = "hydra.sweeper.enqueue=[{model.width: 7},{model.norm: false},{optimizer: sgd, optimizer.momentum: 0.75}]"
    done = sweep("--config-name=branches", known, n_trials=3)
    assert done.code == 0, done.err
    first, second, third = (trial.params for trial in sweep.trials())
    assert (first["model"], first["model.width"]) == ("mlp", 7)
    assert (second["model"], second["optimizer"], second["model.norm"]) == ("cnn", "sgd", False)
    assert (third["optimizer"], third["optimizer.momentum"]) == ("sgd", 0.75)


def test_what_is_enqueued_of_a_key_that_is_set_in_its_branch_must_be_what_it_is_set_to(sweep: Sweep) -> None:
    known = "hydra.sweeper.enqueue=[{model: mlp, model.width: 7, x: 0.5}]"
    assert sweep.refused("--config-name=branches", "+model.width=8", known).endswith("model.width is 8, not 7")
    done = sweep("--config-name=branches", "+model.width=7", known, n_trials=1)
    assert done.code == 0, done.err
    assert sweep.trials()[0].params["x"] == 0.5


def test_what_is_enqueued_but_does_not_go_with_the_command_line_is_left_out(sweep: Sweep) -> None:
    done = sweep("--config-name=known", "model=mlp", n_trials=2)
    assert done.code == 0, done.err
    assert "hydra.sweeper.enqueue: model is mlp, not cnn; these settings are left out" in done.out
    first, second = (trial.params for trial in sweep.trials())
    assert (first["model.width"], first["x"]) == (9, 0.5)
    assert second["x"] != 0.125


def test_a_default_that_the_configuration_lacks_is_left_to_the_sampler(sweep: Sweep) -> None:
    done = sweep("+new=interval(0,1)", "x=interval(0,1)", "hydra.sweeper.enqueue=[defaults]", n_trials=1)
    assert done.code == 0, done.err
    assert "the configuration has no new; among the defaults it is chosen by the sampler" in done.out
    assert sweep.trials()[0].params["x"] == 0.25


def test_a_default_that_is_not_in_its_range_is_left_to_the_sampler(sweep: Sweep) -> None:
    done = sweep("x=1,2", "optimizer.lr=choice(0.1,0.2)", "hydra.sweeper.enqueue=[defaults]", n_trials=2)
    assert done.out.count("x=0.25 is not in its range: 1 | 2; among the defaults it is chosen by the sampler") == 1
    assert sweep.trials()[0].params["optimizer.lr"] == 0.1


# When it ends


def test_a_target_ends_the_search_when_it_is_passed(sweep: Sweep) -> None:
    points = ["hydra/sweeper/sampler=grid", "x=choice(0.1,0.2,0.3,0.4)", "hydra.sweeper.direction=maximize"]
    out = sweep(*points, "hydra.sweeper.target=0.3", n_trials=4).out
    values = [trial.value for trial in sweep.trials()]
    passing = [number for number, value in enumerate(values) if value is not None and value >= 0.3]
    assert passing == [len(values) - 1]
    assert f"target 0.3 passed by trial {passing[0]}, " in out
    assert f"ended by hydra.sweeper.target=0.3: {len(values)} of 4 trials finished" in out
    again = sweep(*points, "hydra.sweeper.target=0.3", n_trials=4)
    assert again.code == 0
    assert len(sweep.trials()) == len(values)


def test_a_target_may_only_be_reported(sweep: Sweep) -> None:
    out = sweep("x=interval(0,1)", "hydra.sweeper.target=1", "hydra.sweeper.at_target=report", n_trials=3).out
    assert "target 1 passed by trial 0, " in out
    assert "ended by its total: 3 of 3 trials finished" in out
    assert "target -1 not passed" in sweep("x=interval(0,1)", "hydra.sweeper.target=-1", n_trials=3).out


def test_patience_ends_the_search_after_so_many_trials_without_a_better_one(sweep: Sweep) -> None:
    out = sweep("x=interval(0,1)", "hydra.sweeper.patience=3", n_trials=200).out
    trials = sweep.trials()
    best = min(trials, key=lambda trial: trial.value or 0.0)
    assert len(trials) - 1 - best.number == 3
    assert "ended by hydra.sweeper.patience=3: so many trials without a better one" in out


def test_the_time_ends_a_command_and_the_next_one_goes_on(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def an_hour_later_after_three_trials() -> float:
        return time.time() + (3600 if (sweep.folder / "study" / "2").exists() else 0)

    with monkeypatch.context() as context:
        context.setattr(queue, "time", SimpleNamespace(time=an_hour_later_after_three_trials))
        first = sweep("x=interval(0,1)", "hydra.sweeper.timeout_s=1800", n_trials=1000)
    assert first.code == 0
    assert "ended by hydra.sweeper.timeout_s=1800.0: 3 of 1000 trials finished" in first.out
    assert len(sweep.trials()) == 3
    sweep("x=interval(0,1)", "hydra.sweeper.timeout_s=1800", n_trials=4)
    assert len(sweep.trials()) == 4


def test_a_total_that_was_raised_is_forgotten_by_a_command_with_another_one(sweep: Sweep) -> None:
    sweep("x=interval(0,1)", n_trials=2)
    sweep.study().set_user_attr(GROWN, 4)
    sweep("x=interval(0,1)", n_trials=2)
    assert len(sweep.trials()) == 4
    sweep.study().set_user_attr(GROWN, 100)
    sweep("x=interval(0,1)", n_trials=5)
    assert len(sweep.trials()) == 5
    assert sweep.study().user_attrs[GROWN] == 5  # commands that run already follow


def test_a_grid_does_not_grow_beyond_its_points(sweep: Sweep) -> None:
    sweep("hydra/sweeper/sampler=grid", "x=1,2,3", n_trials=2)
    sweep.study().set_user_attr(GROWN, 9)
    sweep("hydra/sweeper/sampler=grid", "x=1,2,3", n_trials=2)
    assert sorted(trial.params["x"] for trial in sweep.trials()) == [1, 2, 3]


def test_a_search_all_of_whose_trials_were_pruned_has_failed(sweep: Sweep) -> None:
    prune = ["hydra/sweeper/pruner=threshold", "hydra.sweeper.pruner.upper=-1", "task=reports"]
    done = sweep("x=interval(0,1)", *prune)
    assert done.code == 1
    assert "error: none of 2 trials came to a value (2 were pruned)" in done.err
    done = sweep("x=interval(1,2)", "task=constrained", "hydra.sweeper.study_name=other", "hydra.sweep.dir=other")
    assert "error: none of 2 trials keeps all constraints" in done.err


# Constraints


def test_the_best_trial_keeps_all_constraints(sweep: Sweep) -> None:
    out = sweep("hydra/sweeper/sampler=grid", "x=choice(0.2,0.4,0.6,0.8)", "task=constrained",
                "hydra.sweeper.direction=maximize", n_trials=4).out  # fmt: skip
    best = next(line for line in out.splitlines() if line.startswith("best trial"))
    assert ": 0.4: " in best
    assert sweep.results()["best_value"] == 0.4


# The report


def test_a_report_is_left_at_the_end(sweep: Sweep) -> None:
    out = sweep("x=interval(0,1)", "task=reports", "hydra.sweeper.target=0.01", "hydra.sweeper.at_target=report",
                "hydra.sweeper.report=true", n_trials=3).out  # fmt: skip
    page = sweep.folder / "study" / "report.html"
    assert f"report: {page}" in out
    once_more = next(line.partition("once more:")[2].strip() for line in out.splitlines() if "once more:" in line)
    assert once_more in page.read_text()
    assert (sweep.folder / "study" / "report" / "history.png").exists()


def test_the_command_once_more_says_what_the_search_has_chosen_of_the_groups(sweep: Sweep) -> None:
    out = sweep("--config-name", "searchable", "hparams_search=mine", "optimizer.lr=0.5", n_trials=1).out
    (line,) = [line.partition("once more:")[2].strip() for line in out.splitlines() if "once more:" in line]
    arguments = shlex.split(line)
    assert arguments[:4] == ["python", "app.py", "--config-name", "searchable"]
    assert set(arguments[4:6]) == {"optimizer=adam", "model=mlp"}
    assert set(arguments[6:]) == {f"model.width={sweep.config().model.width}", "optimizer.lr=0.5"}


def test_a_report_that_is_written_again_has_the_command_for_the_best_while_it_is_the_best(sweep: Sweep) -> None:
    sweep("x=interval(0.5,1)", "hydra.sweeper.report=true")
    path, study = sweep.folder / "study" / "report.html", sweep.study()
    written = path.read_text()
    assert "Once more:" in written
    command = written.partition("Once more:</p><pre>")[2].partition("</pre>")[0]
    path.unlink()
    page.write_again(study, path.parent)
    assert command in path.read_text()
    study.enqueue_trial({"x": 0.25})
    study.tell(study.ask(), 0.25)
    page.write_again(study, path.parent)
    assert "Once more:" not in path.read_text()


def test_a_report_that_cannot_be_drawn_costs_nothing_else(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(page, "write", broken)
    done = sweep("x=interval(0,1)", "hydra.sweeper.report=true")
    assert done.code == 0
    assert "the report could not be written: OSError: no space left" in done.out
    assert "best trial" in done.out
