from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageColor, ImageDraw

from iolaus.classifier.data.dataset import Data
from iolaus.classifier.run import pictures
from iolaus.classifier.training import loop, metrics

CLASSES = ["cat", "dog", "axolotl"]
LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2])
LOGITS = torch.eye(3)[torch.tensor([0, 0, 1, 1, 1, 2, 0])] * torch.tensor([5.0, 4, 3, 2, 2, 2, 9])[:, None]
IMAGES = (torch.arange(7 * 36, dtype=torch.float).view(7, 1, 6, 6) % 256).byte()
HISTORY = [
    {"train/loss": 1.0 / epoch, "val/loss": 1.2 / epoch, "train/accuracy": 0.5 + 0.1 * epoch, "val/accuracy": 0.8}
    for epoch in (1, 2, 3)
]
PICTURES: dict[str, Callable[[], Image.Image]] = {
    "sample_grid": lambda: pictures.sample_grid(IMAGES.float() / 255, CLASSES + CLASSES + ["x"], title="seven"),
    "curves": lambda: pictures.curves(HISTORY, best_epoch=2),
    "confusion": lambda: pictures.confusion(LOGITS, LABELS, CLASSES),
    "mistakes": lambda: pictures.mistakes(LOGITS, LABELS, IMAGES, CLASSES),
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, float]]:
    """Every text that is drawn, with its place."""
    texts: dict[str, tuple[float, float]] = {}
    for name in ("text", "multiline_text"):
        original = getattr(ImageDraw.ImageDraw, name)

        def record(
            draw: ImageDraw.ImageDraw,
            place: tuple[float, float],
            text: str,
            *args: object,
            original: Callable[..., None] = original,
            **kwargs: object,
        ) -> None:
            texts[text] = place
            original(draw, place, text, *args, **kwargs)

        monkeypatch.setattr(ImageDraw.ImageDraw, name, record)
    return texts


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_can_be_saved_and_is_not_empty(name: str, tmp_path: Path) -> None:
    picture = PICTURES[name]()
    path = pictures.save(picture, tmp_path / f"{name}.png")
    with Image.open(path) as again:
        assert again.size == picture.size
        assert len(again.convert("L").getcolors() or []) > 5


def test_no_picture_touches_matplotlibs_global_state() -> None:
    import subprocess
    import sys

    code = "import sys, iolaus.classifier.run.pictures; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_grid_shows_each_image_over_its_caption(written: dict[str, tuple[float, float]]) -> None:
    images = torch.zeros(5, 1, 4, 4)
    for i in range(5):
        images[i] = i / 4
    captions = [f"number {i}" for i in range(5)]
    picture = pictures.sample_grid(images, captions, columns=4, title="five")
    for i, caption in enumerate(captions):
        x, y = written[caption]
        level = picture.getpixel((round(x), round(y) - pictures.CELL // 2))
        assert level == round(255 * i / 4)
        assert (y > 120) == (i == 4)  # the fifth is in the second row
    assert "five" in written


def test_colour_images_keep_their_colours(written: dict[str, tuple[float, float]]) -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0] = 1.0
    picture = pictures.sample_grid(images, ["red"])
    x, y = written["red"]
    assert picture.getpixel((round(x), round(y) - 40)) == (255, 0, 0)


def test_images_that_are_not_square_keep_their_proportions(written: dict[str, tuple[float, float]]) -> None:
    picture = pictures.sample_grid(torch.zeros(1, 1, 10, 20), ["wide"])
    black = sum(count for count, color in picture.getcolors(100_000) if color == 0)
    assert black >= pictures.CELL * pictures.CELL // 2
    assert black < pictures.CELL * pictures.CELL * 0.6


def test_captions_of_two_lines_do_not_run_into_the_next_row(written: dict[str, tuple[float, float]]) -> None:
    captions = [f"{i}\nmore" for i in range(8)]
    pictures.sample_grid(torch.zeros(8, 1, 4, 4), captions, columns=4)
    assert written["4\nmore"][1] - pictures.CELL > written["0\nmore"][1] + 2 * 11


def test_the_confusion_matrix_states_counts_accuracies_and_interval(
    written: dict[str, tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, logits = LABELS.repeat(7), LOGITS.repeat(7, 1)
    logits[0] = torch.tensor([0.0, 0.0, 3.0])  # one cat as axolotl
    pictures.confusion(logits, labels, CLASSES)
    matrix = metrics.confusion_matrix(logits, labels)
    assert matrix.tolist() == [[13, 7, 1], [0, 14, 0], [7, 0, 7]]
    assert {"13", "7", "1", "14"} <= written.keys()
    assert "0" not in written
    assert {"61.9 %", "100.0 %", "50.0 %"} <= written.keys()
    low, high = metrics.accuracy_interval(34 / 49, 49)
    assert f"accuracy {100 * 34 / 49:.2f} %, 95 % interval {100 * low:.2f} to {100 * high:.2f} %, n = 49" in written
    # rows are labels, columns predictions
    assert written["1"][0] > written["13"][0]
    assert written["1"][1] == written["13"][1]


def test_more_mistakes_make_a_darker_cell(written: dict[str, tuple[float, float]]) -> None:
    labels = torch.tensor([0] * 9 + [1] * 3)
    logits = torch.eye(2)[torch.tensor([0] * 4 + [1] * 5 + [0] + [1] * 2)]
    picture = pictures.confusion(logits, labels, ["a", "b"])
    five, one, right = (
        picture.getpixel((round(written[text][0]) + 18, round(written[text][1]) + 18)) for text in ("5", "1", "4")
    )
    assert sum(five) < sum(one) < sum(right)


def test_many_classes_and_long_names_fit() -> None:
    classes = [f"a class with quite a long name {i}" for i in range(60)]
    labels = torch.arange(60)
    picture = pictures.confusion(torch.eye(60), labels, classes)
    assert picture.width < 1200
    few = pictures.confusion(torch.eye(2), torch.arange(2), classes[:2])
    assert few.height < 500


def test_mistakes_come_with_label_prediction_and_probability(written: dict[str, tuple[float, float]]) -> None:
    pictures.mistakes(LOGITS, LABELS, IMAGES, CLASSES)
    assert "the 2 most confident of 2 mistakes: label \u2192 prediction" in written
    probability = LOGITS[6].softmax(0)[0].item()
    assert f"axo\u2026tl \u2192 cat\n{probability:.1%}" in written
    assert written[f"axo\u2026tl \u2192 cat\n{probability:.1%}"][0] < written["cat \u2192 dog\n90.9%"][0]


def test_a_model_without_mistakes_says_so(written: dict[str, tuple[float, float]]) -> None:
    pictures.mistakes(torch.eye(3)[LABELS], LABELS, IMAGES, CLASSES)
    assert "no mistakes" in written


def test_a_curve_passes_where_its_axes_say(written: dict[str, tuple[float, float]]) -> None:
    history = [
        {"train/loss": loss, "val/loss": 500, "train/accuracy": 0.5, "val/accuracy": 0.6} for loss in (400, 100, 200)
    ]
    panel = pictures.curves(history, best_epoch=2).crop((0, 0, *pictures.PANEL))
    for epoch, loss in (("1", "400"), ("2", "100"), ("3", "200")):
        point = round(written[epoch][0]) - pictures.PANEL[0], round(written[loss][1])  # epochs of the right panel
        assert panel.getpixel(point) == ImageColor.getrgb(pictures.ORANGE)
    assert written["400"][1] < written["200"][1] < written["100"][1]
    assert {"train", "val", "kept: epoch 2"} <= written.keys()


def test_a_value_that_is_not_finite_is_left_out_of_the_curves() -> None:
    broken = [HISTORY[0], {**HISTORY[1], "val/loss": float("nan")}, {**HISTORY[2], "val/loss": float("inf")}]
    assert pictures.curves(broken, 1).tobytes() != pictures.curves(HISTORY, 1).tobytes()
    pictures.curves([{name: float("nan") for name in HISTORY[0]}], 1)


def test_the_curves_mark_the_kept_epoch() -> None:
    assert pictures.curves(HISTORY, 1).tobytes() != pictures.curves(HISTORY, 3).tobytes()
    assert pictures.curves(HISTORY[:1], 1).size == pictures.curves(HISTORY, 3).size


def test_a_run_leaves_four_pictures(tmp_path: Path, digits: Data) -> None:
    state = loop.State(epoch=3, history=HISTORY, best_epoch=2)
    logits = torch.eye(10)[digits.test.labels]
    logits[:12] = logits[:12].roll(1, dims=1)
    paths = pictures.of_run(tmp_path, digits, state, logits, digits.test.labels)
    assert [path.name for path in paths] == ["samples.png", "curves.png", "confusion.png", "mistakes.png"]
    assert all(path.stat().st_size > 1000 for path in paths)
