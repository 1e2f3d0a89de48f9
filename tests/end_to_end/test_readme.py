"""The README and the page of the sweeper are a promise: their code and their commands are run as they stand there."""

import re
import shlex
from pathlib import Path

import numpy as np
import optuna
import pytest
from conftest import ROOT, Program
from in_process import NewSweep
from omegaconf import OmegaConf
from PIL import Image

from iolaus.classifier.training import checkpoint
from iolaus.study import attributes
from iolaus.study.storage import open_storage

README, SWEEPER = (ROOT / "README.md").read_text(), (ROOT / "docs" / "sweeper.md").read_text()


def block(language: str, containing: str, page: str = README) -> str:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    found = [text for kind, text in blocks if kind == language and containing in text]
    assert len(found) == 1
    return str(found[0])


def test_the_lines_from_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    canvas = np.full((90, 90), 240, dtype=np.uint8)
    canvas[20:70, 40:48] = 20
    Image.fromarray(canvas).save("photo.png")
    code = block("python", "loop.fit")
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert float(re.match(r"(0\.\d+|1\.0) ", out)[1]) > 0.9  # type: ignore[index]
    assert "photo.png" in out


def test_the_readmes_own_model_trains_and_can_be_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Program
) -> None:
    mine = tmp_path / "mine"
    (mine / "model").mkdir(parents=True)
    (mine / "tiny.py").write_text(block("python", "class Tiny"))
    (mine / "model" / "tiny.yaml").write_text(block("yaml", "tiny.Tiny"))
    monkeypatch.syspath_prepend(mine)
    done = program("--config-dir", str(mine), "model=tiny", "model.width=32")
    assert done.code == 0, done.err
    classifier = checkpoint.load_model(done.output / "model.pt")
    assert type(classifier.model).__name__ == "Tiny"
    assert classifier.spec["width"] == 32


def commands() -> list[str]:
    lines = re.findall(r"^    (?:PYTHONPATH=\S+ )?(python src/train\.py .*?)(?:  +#.*)?$", README, re.MULTILINE)
    elsewhere = ("DATE", "RUN_ID", "my/photos", "--help", "=ablation")
    return [line for line in lines if not any(word in line for word in elsewhere)]


@pytest.mark.parametrize("command", commands())
def test_the_readmes_training_commands_run_on_digits(command: str, program: Program) -> None:
    arguments = shlex.split(command)[2:]
    shorter = ["hydra.sweeper.n_trials=2"] if "hparams_search=optuna" in arguments else []
    if any("finals=" in argument for argument in arguments):
        shorter += ["hydra.sweeper.finals.k=1", "hydra.sweeper.finals.r=3", "hydra.sweeper.n_jobs=1"]
    if any(argument.startswith("model=") for argument in arguments):
        shorter.append("model.hidden_sizes=[16]")
    if "experiment=udacity" in arguments:
        arguments = [argument for argument in arguments if argument != "model=mlp"]
    given = {argument.split("=")[0] for argument in arguments}
    model = ["model=layers"] if "experiment" in given else []
    done = program(*arguments, *shorter, *model, "epochs=1")
    assert done.code == 0, done.err


def test_the_folder_command_trains_on_a_users_images(tmp_path: Path, program: Program) -> None:
    (command,) = re.findall(r"^    (python src/train\.py data=folder .*)$", README, re.MULTILINE)
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            noise = rng.integers(0, 40, (30 + number, 40, 3))
            Image.fromarray((level + noise).astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.png")
    arguments = [a.replace("my/photos", str(tmp_path / "photos")) for a in shlex.split(command)[2:]]
    done = program(*arguments, "model=cnn", "epochs=3")
    assert done.code == 0, done.err
    assert checkpoint.load_model(done.output / "model.pt").classes == ["dark", "light"]


def test_the_readmes_verbs_work_on_a_study_in_their_order(program: Program, tmp_path: Path) -> None:
    root = tmp_path / "multirun"
    study = optuna.create_study(study_name="mine", storage=open_storage(str(root / "mine" / "journal.log")))
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study.set_user_attr(attributes.GOALS, {"n_trials": 1, "max_failure_rate": 0.0})
    lines = re.findall(r"^ *python src/studies\.py (.*?)(?:  +#.*)?$", README, re.MULTILINE)
    verbs = [line.split()[0] for line in lines]
    assert verbs == ["list", "show", "watch", "stop", "grow", "report", "export", "free", "delete"]
    for line in lines:
        words = {"NAME": "mine", "FILE": str(tmp_path / "results.json")}
        arguments = [words.get(word, word) for word in line.split()]
        done = program(*arguments, "--root", str(root), entry="studies", defaults=False)
        assert done.code == 0, done.err
    assert not (root / "mine").exists()
    named = re.findall(r"python src/studies\.py\s+(\w+)", SWEEPER)
    assert named
    assert set(named) <= set(verbs)


def test_the_pages_app_is_swept_by_its_command_and_once_more(new_sweep: NewSweep) -> None:
    sweep = new_sweep(block("python", "config_path=None", SWEEPER), {})
    command = block("", "python app.py -m", SWEEPER)
    done = sweep(*shlex.split(command)[3:])
    assert done.code == 0, done.err
    assert len(sweep.trials()) == 20
    shown = block("", "study app-", SWEEPER)
    for line in ("trials finished; ", "(best so far) in ", "best trial ", "  once more:  python app.py +x="):
        assert line in shown
        assert line in done.out


def test_the_pages_conditional_space_is_searched(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine" / "hparams_search").mkdir(parents=True)
    head = "# @package _global_\ndefaults: [{override /hydra/sweeper: iolaus}]\n"
    (tmp_path / "mine" / "hparams_search" / "page.yaml").write_text(head + block("yaml", "when:", SWEEPER))
    here = ["-m", "--config-dir", str(tmp_path / "mine"), "hparams_search=page", "model=choice(mlp,cnn)", "epochs=1"]
    seeded = ["hydra.sweeper.sampler.seed=0", "hydra.sweeper.n_jobs=1"]
    done = program(*here, *seeded, "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=8")
    assert done.code == 0, done.err
    trials = optuna.load_study(study_name=None, storage=open_storage(str(done.output / "journal.log"))).trials
    assert {(trial.params["model"], trial.params["optimizer"]) for trial in trials} >= {("mlp", "sgd"), ("cnn", "adam")}
    for trial in trials:
        assert ("model.hidden_sizes" in trial.params) == (trial.params["model"] == "mlp")
        assert ("optimizer.momentum" in trial.params) == (trial.params["optimizer"] == "sgd")


@pytest.mark.parametrize("layer", ["'~model.layers.conv2=choice(true,false)'", "model.layers.dropout1=null,{}"])
def test_a_layer_is_switched_off_and_on(program: Program, layer: str) -> None:
    assert layer.strip("'").partition("=")[0] in SWEEPER
    kept = "{_target_: torch.nn.Dropout, p: 0.5}"
    done = program(
        "-m", "hydra/sweeper=iolaus", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0", "model=layers",
        layer.strip("'").format(kept), "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=4", "epochs=1",
        "hydra.sweeper.n_jobs=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    name = layer.partition("layers.")[2].partition("=")[0]
    layers = [OmegaConf.load(done.output / str(number) / ".hydra" / "config.yaml").model.layers for number in range(4)]
    assert {bool(layer.get(name)) for layer in layers} == {True, False}


def test_every_file_that_the_readme_names_is_there() -> None:
    for path in re.findall(r"\]\(([^)h][^)]*)\)", README) + re.findall(r"python (benchmarks/\S+)", README):
        assert (ROOT / path).exists(), path
