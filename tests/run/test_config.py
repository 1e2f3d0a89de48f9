import errno
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from iolaus import command_line
from iolaus.classifier.run import config
from iolaus.classifier.run.objective import monitored, objectives
from iolaus.errors import InputError
from iolaus.search_space.keys import flatten


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


def test_flatten_joins_keys_with_dots_and_keeps_lists_whole() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}}) == {"a.b": 1, "a.c.d": [1, 2], "e": {}}


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


def saved_overrides(folder: Path, *overrides: str) -> str:
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
    return f"resume={folder}/checkpoint.pt"


def test_resume_brings_the_overrides_of_the_run_and_those_beside_it_win(tmp_path: Path) -> None:
    resume = saved_overrides(tmp_path, "model=mlp", "epochs=3")
    assert command_line.expand_resume(["epochs=4", resume]) == ["model=mlp", "epochs=4", resume]


def test_resume_takes_no_code_to_run_from_a_file(tmp_path: Path) -> None:
    resume = saved_overrides(tmp_path, "model._target_=os.system", "'+x={_target_: os.system}'", "seed=1")
    assert command_line.expand_resume([resume]) == ["seed=1", resume]


def test_resume_takes_no_options_and_no_search_path_from_a_file(tmp_path: Path) -> None:
    resume = saved_overrides(
        tmp_path,
        "hydra.searchpath=[/elsewhere]",
        "+hydra.searchpath=[/elsewhere]",
        "--config-dir=/elsewhere",
        "-m",
        "seed=1",
    )
    assert command_line.expand_resume([resume]) == ["seed=1", resume]


def test_the_command_that_resumes_keeps_options_and_quotes_what_hydra_would_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["src/train.py", "--config-dir", "mine", "-cn=other", "model=tiny", "resume=old"])
    command = command_line.resume_command(["model=tiny", "resume=old"], Path("/a,b/checkpoint.pt"))
    assert shlex.split(command) == [
        "python", "src/train.py", "--config-dir", "mine", "-cn=other", "model=tiny", "resume='/a,b/checkpoint.pt'"
    ]  # fmt: skip


def test_without_resume_the_command_line_stays_as_it_is() -> None:
    assert command_line.expand_resume(["model=mlp", "-m"]) == ["model=mlp", "-m"]


def test_a_mistake_is_found_below_the_exceptions_that_wrap_it() -> None:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = InputError("epochs must be at least 1, but got 0")
    assert command_line.explain(wrapped) == "epochs must be at least 1, but got 0"


def test_a_full_disk_is_a_line_that_names_the_file() -> None:
    line = command_line.explain(OSError(errno.ENOSPC, "No space left on device", "/somewhere/model.pt"))
    assert line is not None
    assert "no space left on the disk of /somewhere/model.pt" in line


def test_what_is_not_the_users_mistake_keeps_its_traceback() -> None:
    assert command_line.explain(ValueError("a bug")) is None


@pytest.mark.parametrize("arguments", [["--help"], ["epoch=3"], ["model=cn"], ["epochs=0"]])
def test_help_and_mistakes_import_neither_torch_nor_mlflow(arguments: list[str]) -> None:
    code = f"""
import sys, atexit
def report():
    heavy = sorted({{"torch", "mlflow", "torchvision", "sklearn", "matplotlib", "optuna"}} & set(sys.modules))
    print("imported:", heavy)
atexit.register(report)
sys.argv = ["src/train.py", *{arguments!r}]
import runpy
runpy.run_path("src/train.py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "imported: []" in done.stdout, done.stdout + done.stderr
    assert (done.returncode == 0) == (arguments == ["--help"])
