"""The README is a promise: its code and its commands are run as they stand there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Program
from PIL import Image

from iolaus import checkpoint

README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in text]
    assert len(found) == 1
    return str(found[0])


def test_the_lines_from_python_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    canvas = np.full((90, 90), 240, dtype=np.uint8)
    canvas[20:70, 40:48] = 20
    Image.fromarray(canvas).save("photo.png")
    code = block("python", "engine.fit")
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
    return [line for line in lines if "DATE" not in line and "my/photos" not in line and "--help" not in line]


@pytest.mark.parametrize("command", commands())
def test_the_readmes_training_commands_run_on_digits(command: str, program: Program) -> None:
    arguments = shlex.split(command)[2:]
    shorter = ["hydra.sweeper.n_trials=2"] if "hparams_search=optuna" in arguments else []
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


def test_every_file_that_the_readme_names_is_there() -> None:
    for path in re.findall(r"\]\(([^)h][^)]*)\)", README) + re.findall(r"python (benchmarks/\S+)", README):
        assert (ROOT / path).exists(), path
