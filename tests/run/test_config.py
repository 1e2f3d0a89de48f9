import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from iolaus.classifier.run import config
from iolaus.classifier.run.objective import monitored, objectives
from iolaus.errors import InputError


def composed(*overrides: str) -> DictConfig:
    config.register()
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("config", list(overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=0", "epochs must be at least 1, but got 0"),
        ("seed=-1", r"seed must be in 0\.\.4294967295, but got -1"),
        ("device=gpu", "device must be one of auto, cpu, cuda, cuda:<index>, mps, but got gpu"),
        ("precision=fp16", "precision must be one of auto, fp32, bf16, but got fp16"),
        ("threads=0", "threads must be auto or at least 1, but got 0"),
        ("threads=many", "threads must be auto or at least 1, but got many"),
        ("loss.label_smoothing=1", r"loss.label_smoothing must be in \[0, 1\), but got 1"),
        ("early_stopping.patience=0", "early_stopping.patience must be null or at least 1, but got 0"),
        ("optimizer.lr=-1", "optimizer.lr must be a number above 0, but got -1"),
        ("optimizer.lr=fast", "optimizer.lr must be a number above 0, but got fast"),
        ("optimizer.lr=nan", "optimizer.lr must be a number above 0, but got nan"),
        ("objective=accuracy", "objective must be one of val/accuracy, .* but got accuracy"),
        ("objective=[]", "objective must be one of"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_rule(override: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        config.check(composed(override))


def test_the_defaults_are_in_range() -> None:
    cfg = composed()
    config.check(cfg)
    assert objectives(cfg) == ["val/accuracy"]


@pytest.mark.parametrize("metric", ["test/accuracy", "test/loss", "train/accuracy"])
def test_what_selects_may_not_look_at_train_or_test(metric: str) -> None:
    with pytest.raises(InputError, match=f"but got {metric}"):
        config.check(composed(f"objective=[val/accuracy,{metric}]"))


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("val/loss", "val/loss"),
        ("[params,val/loss]", "val/loss"),
        ("fit_s", "val/accuracy"),
    ],
)
def test_the_kept_epoch_is_the_best_by_the_first_objective_that_each_epoch_has(objective: str, expected: str) -> None:
    assert monitored(composed(f"objective={objective}")) == expected


def test_settings_leave_out_what_may_differ_between_a_run_and_its_resumption() -> None:
    here = config.settings(composed("tracking=none", "root=here", "resume=x"))
    there = config.settings(composed("root=there", "data.root=elsewhere"))
    assert here == there
    assert here["optimizer"]["lr"] == here["scheduler"]["max_lr"] == 0.005


def test_other_settings_than_the_checkpoints_are_refused_by_name() -> None:
    with pytest.raises(
        InputError, match=r"x\.pt was made with other settings: a\.b was 1, now 2; c was \(absent\), now 3"
    ):
        config.check_same_settings({"a": {"b": 2}, "c": 3}, {"a": {"b": 1}}, "x.pt")
