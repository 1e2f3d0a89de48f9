import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Program
from PIL import Image

from iolaus.classifier.data.dataset import Data
from iolaus.classifier.models import mlp
from iolaus.classifier.run import predictor
from iolaus.classifier.training import checkpoint, loop
from iolaus.errors import InputError


@pytest.fixture(scope="module")
def model_file(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = mlp.MLP(digits.input_shape, digits.num_classes, hidden_sizes=[128])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loop.fit(model, digits.loader("train"), digits.loader("val"), optimizer, epochs=8)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    spec = {"_target_": "iolaus.classifier.models.MLP", "hidden_sizes": [128]}
    checkpoint.save_model(path, checkpoint.Classifier.of(model, spec, digits))
    return path


def drawing(digits: Data, index: int, path: Path, side: int = 120) -> int:
    """A test digit as a dark drawing on light paper, off-centre; gives its label."""
    split = digits.test
    digit = Image.fromarray(split.images[index, 0].numpy()).resize((side // 2, side // 2), Image.Resampling.BICUBIC)
    paper = np.full((side, side), 230, dtype=np.uint8)
    paper[side // 3 : side // 3 + side // 2, 10 : 10 + side // 2] -= (np.asarray(digit) * 0.8).astype(np.uint8)
    Image.fromarray(paper).save(path)
    return int(split.labels[index])


def test_drawings_are_told_apart_in_the_order_given(digits: Data, model_file: Path, tmp_path: Path) -> None:
    labels = [drawing(digits, index, tmp_path / f"{index}.png") for index in range(40)]
    said = list(predictor.Predictor.load(model_file).images([tmp_path / f"{index}.png" for index in range(40)]))
    assert [path for path, _, _ in said] == [str(tmp_path / f"{index}.png") for index in range(40)]
    right = sum(name == str(label) for (_, name, _), label in zip(said, labels, strict=True))
    assert right >= 34
    assert all(0.1 <= prob <= 1 for _, _, prob in said)


def test_the_program_prints_file_digit_and_probability_and_draws_a_sheet(
    digits: Data, model_file: Path, tmp_path: Path, program: Program
) -> None:
    odd = tmp_path / "a (1) = ~odd.png"
    label = drawing(digits, 3, odd)
    sheet = tmp_path / "sheet.png"
    done = program(str(odd), "--model", str(model_file), "--sheet", str(sheet), entry="predict", defaults=False)
    assert done.code == 0, done.err
    path, name, prob = done.out.strip().split("\t")
    assert path == str(odd)
    assert name == str(label)
    assert prob.endswith("%")
    with Image.open(sheet) as picture:
        assert picture.width > 300


def test_a_sheet_that_cannot_be_written_is_one_clear_line_after_the_answers(
    digits: Data, model_file: Path, tmp_path: Path, program: Program
) -> None:
    drawing(digits, 3, tmp_path / "3.png")
    arguments = [str(tmp_path / "3.png"), "--model", str(model_file), "--sheet"]
    done = program(*arguments, str(tmp_path / "no" / "folder"), entry="predict", defaults=False)
    assert done.code == 1
    assert "the contact sheet cannot be written" in done.message
    assert done.out.startswith(str(tmp_path / "3.png"))
    assert program(*arguments, str(tmp_path / "no_suffix"), entry="predict", defaults=False).code == 0
    with Image.open(tmp_path / "no_suffix") as picture:
        assert picture.format == "PNG"


def test_an_unreadable_file_is_named_and_the_others_are_done(
    digits: Data, model_file: Path, tmp_path: Path, program: Program
) -> None:
    drawing(digits, 0, tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    paths = [str(tmp_path / name) for name in ("bad.png", "good.png", "missing.png")]
    sheet = tmp_path / "sheet.png"
    done = program(*paths, "--model", str(model_file), "--sheet", str(sheet), entry="predict", defaults=False)
    assert done.code == 1
    assert [line.split("\t")[0] for line in done.out.splitlines()] == [paths[1]]
    assert f"error: {paths[0]} is not a readable image" in done.err
    assert f"error: {paths[2]} does not exist" in done.err
    assert sheet.exists()


def test_a_process_of_its_own_ends_with_the_same_code(digits: Data, model_file: Path, tmp_path: Path) -> None:
    drawing(digits, 0, tmp_path / "good.png")
    command = [sys.executable, "src/predict.py", "--model", str(model_file), "--sheet", str(tmp_path / "sheet.png")]
    for paths, code in ((["good.png"], 0), (["good.png", "missing.png"], 1)):
        done = subprocess.run(
            [*command, *(tmp_path / path for path in paths)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert len(done.stdout.splitlines()) == 1


def test_a_pickle_as_model_is_one_clear_line(tmp_path: Path, program: Program) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")  # the module itself, pickled
    done = program("x.png", "--model", str(tmp_path / "whole.pt"), entry="predict", defaults=False)
    assert done.code == 1
    assert "pickled objects, which could run code" in done.message


def test_a_model_of_an_earlier_version_is_one_clear_line(tmp_path: Path, program: Program) -> None:
    checkpoint.save(tmp_path / "model.pt", {"format": "iolaus-model-1", "model": {"_target_": "iolaus.models.CNN"}})
    done = program("x.png", "--model", str(tmp_path), entry="predict", defaults=False)
    assert done.code == 1
    assert f"{tmp_path}/model.pt was made by an earlier version of Iolaus: use that version, or" in done.message


def test_a_runs_folder_stands_for_its_model(model_file: Path) -> None:
    assert predictor.Predictor.load(model_file.parent).classes == [str(digit) for digit in range(10)]


def test_the_newest_model_is_the_default(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no model in .*: train one"):
        predictor.newest_model(tmp_path)
    import os

    for name, age in (("10-00-00", 50), ("09-00-00", 10)):
        (tmp_path / "2026-01-01" / name).mkdir(parents=True)
        copy = shutil.copy(model_file, tmp_path / "2026-01-01" / name / "model.pt")
        os.utime(copy, (1_000_000 - age, 1_000_000 - age))
    assert predictor.newest_model(tmp_path) == tmp_path / "2026-01-01" / "09-00-00" / "model.pt"
