import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Program
from PIL import Image
from torch import Tensor, nn

from iolaus.classifier.data import batches, dataset
from iolaus.classifier.data.augment import Affine
from iolaus.classifier.data.sources import Arrays
from iolaus.classifier.models.cnn import CNN
from iolaus.classifier.models.mlp import MLP
from iolaus.classifier.run import inputs, pictures


class Colours:
    """Images of three channels, each of another brightness."""

    def fingerprint(self, root: Path) -> str:
        return ""

    def read(self, root: Path, train: bool) -> Arrays:
        generator = np.random.default_rng(0)
        images = np.stack([generator.integers(0, top, (60, 4, 6)) for top in (50, 150, 250)], axis=1).astype(np.uint8)
        return Arrays(images, np.repeat([0, 0, 0, 1, 1, 2], 10), ["ant", "bee", "cow"])


@pytest.fixture
def colours(tmp_path: Path) -> dataset.Data:
    return dataset.load("colours", Colours(), tmp_path, batch_size=10, val_size=12)


def mlp(loaded: dataset.Data) -> nn.Module:
    return MLP(loaded.input_shape, loaded.num_classes)


def cnn(loaded: dataset.Data) -> nn.Module:
    return CNN(loaded.input_shape, loaded.num_classes, [4])


def described(loaded: dataset.Data, model: nn.Module | None = None, augment: batches.Augment | None = None) -> str:
    return inputs.describe(loaded, loaded.loader("train", augment=augment), model or mlp(loaded))


def line(text: str, start: str) -> str:
    (found,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return found


def test_it_states_the_counts_of_all_splits(digits: dataset.Data) -> None:
    assert re.search(r"train 1,137, val 300 .*, test 360 ", described(digits))


def test_it_states_classes_size_and_colour_of_the_images(digits: dataset.Data, colours: dataset.Data) -> None:
    assert "10 classes, images of 8x8 pixels, grey" in described(digits)
    assert "3 classes, images of 4x6 pixels, 3 channels" in described(colours)


def test_it_states_dtype_shape_range_mean_and_std_before(digits: dataset.Data) -> None:
    before = line(described(digits), "before")

    assert "uint8" in before
    assert "(1137, 1, 8, 8), values 0 to 255," in before
    assert f"mean {digits.mean[0]:.4f}, std {digits.std[0]:.4f} of [0, 1]" in before


def test_it_states_dtype_shape_and_range_after(digits: dataset.Data) -> None:
    after = line(described(digits), "after")
    lowest, highest = -digits.mean[0] / digits.std[0], (1 - digits.mean[0]) / digits.std[0]

    assert "float32  (64, 1, 8, 8)" in after
    assert f"values {lowest:.4g} to {highest:.4g}" in after


def test_mean_and_std_after_are_about_0_and_1(digits: dataset.Data) -> None:
    found = re.search(r"mean (\S+), std (\S+) ", line(described(digits), "after"))

    assert found is not None
    assert [float(value) for value in found.groups()] == pytest.approx([0, 1], abs=0.1)


def test_it_states_dtype_and_shape_of_the_labels(digits: dataset.Data) -> None:
    assert line(described(digits), "labels") == "labels   torch.int64, batch (64,)"


def test_it_states_the_statistics_of_each_channel_that_normalisation_uses(colours: dataset.Data) -> None:
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (colours.mean, colours.std))

    assert f"minus the training split's mean ({mean}), divided by its std ({std})" in described(colours)


def test_it_says_so_where_nothing_is_normalised(tmp_path: Path) -> None:
    text = described(dataset.load("colours", Colours(), tmp_path, val_size=12, normalize=False))

    assert "not normalised (data.normalize=false)" in text
    assert "minus the training split's mean" not in text


def test_flattening_is_listed_for_the_mlp(digits: dataset.Data) -> None:
    assert "3. flattened to 64 numbers" in described(digits, mlp(digits))


def test_flattening_is_not_listed_for_the_cnn(digits: dataset.Data) -> None:
    assert "flattened" not in described(digits, cnn(digits))


def test_augmentation_is_listed_with_its_settings(digits: dataset.Data) -> None:
    text = described(digits, augment=Affine(degrees=7, translate=0.2, scale=(0.8, 1.2)))

    assert "augmented by Affine(degrees=7, translate=0.2, scale=(0.8, 1.2))" in text


@pytest.mark.parametrize("augment", [None, nn.Identity()])
def test_no_augmentation_is_not_listed(digits: dataset.Data, augment: batches.Augment | None) -> None:
    assert "augmented" not in described(digits, augment=augment)


def test_the_balance_has_a_line_for_each_class(colours: dataset.Data) -> None:
    balance = described(colours).split("class balance")[1].splitlines()[1:]

    assert [row.split()[:5] for row in balance] == [
        ["ant", "24", "50.0%", "6", "50.0%"],
        ["bee", "16", "33.3%", "4", "33.3%"],
        ["cow", "8", "16.7%", "2", "16.7%"],
    ]
    assert [row.count("#") for row in balance] == [20, 13, 7]


def test_describing_a_locked_data_set_does_not_look_at_its_test_images(tmp_path: Path) -> None:
    locked = dataset.load("colours", Colours(), tmp_path, val_size=12)
    locked.lock_test("a sweep must not look")

    assert "test 60 " in described(locked)


@pytest.mark.parametrize(
    ("model", "flattens"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), True),
        (nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))), True),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()), False),
        (nn.Sequential(nn.ReLU(), nn.Flatten()), False),
    ],
)
def test_a_model_flattens_if_its_first_layer_does(model: nn.Module, flattens: bool) -> None:
    assert inputs.flattens(model) is flattens


# before_and_after


Drawn = tuple[Tensor, list[str], str]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Drawn]:
    """What each picture was drawn from: images, captions and title."""
    calls: list[Drawn] = []
    draw = pictures.sample_grid

    def record(images: Tensor, captions: list[str], columns: int = 10, title: str = "") -> Image.Image:
        calls.append((images, captions, title))
        return draw(images, captions, columns, title)

    monkeypatch.setattr(pictures, "sample_grid", record)
    return calls


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("name", ["digits", "colours"])
def test_what_the_loader_serves_is_recovered_to_what_is_on_disk(
    name: str, make: type, drawn: list[Drawn], request: pytest.FixtureRequest
) -> None:
    loaded = request.getfixturevalue(name)
    model = make(loaded)
    torch.manual_seed(5)
    served = torch.cat([labels for _, labels in loaded.loader("train")])[:8].tolist()
    torch.manual_seed(5)
    inputs.before_and_after(loaded, loaded.loader("train"), model, count=8)
    images, captions, _ = drawn[0]
    disk = loaded.train.images / 255
    distances = torch.stack([(disk - image).abs().flatten(1).amax(1) for image in images[8:]])  # (8, N)

    assert images.shape == (16, *loaded.input_shape)
    assert distances.amin(1).max() < 1e-5
    assert loaded.train.labels[distances.argmin(1)].tolist() == served
    assert captions[8:] == [loaded.classes[label] for label in served]


def test_the_raw_samples_are_the_first_on_disk_with_their_labels(digits: dataset.Data, drawn: list[Drawn]) -> None:
    inputs.before_and_after(digits, digits.loader("train"), mlp(digits), count=6)
    images, captions, _ = drawn[0]

    assert torch.equal(images[:6], digits.train.images[:6] / 255)
    assert captions[:6] == [str(label) for label in digits.train.labels[:6].tolist()]


@pytest.mark.parametrize(("make", "undone"), [(mlp, "flattening and normalisation"), (cnn, "normalisation")])
def test_the_title_says_what_was_undone(digits: dataset.Data, drawn: list[Drawn], make: type, undone: str) -> None:
    inputs.before_and_after(digits, digits.loader("train"), make(digits), count=6)

    assert drawn[0][2].endswith(f"then 6 from the training loader with {undone} undone")


def test_before_and_after_can_be_saved(digits: dataset.Data, tmp_path: Path) -> None:
    picture = inputs.before_and_after(digits, digits.loader("train"), mlp(digits))

    assert pictures.save(picture, tmp_path / "inputs.png").stat().st_size > 1000


def test_the_program_describes_the_data_and_draws_them(program: Program, digits: dataset.Data) -> None:
    done = program("augment=affine", entry="explore")
    assert done.code == 0, done.err
    assert f"train {len(digits.train.labels):,}, val 300" in done.out
    assert "augmented by Affine" in done.out
    assert "flattened to 64 numbers" in done.out
    with Image.open(done.output / "inputs.png") as picture:
        assert picture.width > 500
