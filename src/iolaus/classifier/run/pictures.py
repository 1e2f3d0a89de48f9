"""Pictures of a run as Pillow images, which a notebook shows directly.

They are drawn without matplotlib, which spends a millisecond on each text, of which a run's pictures have hundreds, and
0.15 s on the curves; only its font and its choice of ticks are used.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from iolaus import metric_table
from iolaus.classifier.data.dataset import Data
from iolaus.classifier.training import metrics
from iolaus.classifier.training.loop import State

BLUE, ORANGE, GREY, PALE = "#3366aa", "#dd7722", "#888888", "#e4e4e4"
CELL = 84  # side of an image in a grid, in pixels
LINE = 15  # height of a line of text, in pixels
PANEL = 495, 374  # width and height of a diagram, in pixels
SMOOTH = 3  # factor by which its lines are drawn larger than shown


def sample_grid(images: Tensor, captions: Sequence[str], columns: int = 10, title: str = "") -> Image.Image:
    """Draw images in rows, each above its caption of one or more lines.

    Args:
        images: Pixels float (N, C, H, W) in [0, 1], of one or three channels; shown grey or in colour.
        captions: N texts.
        columns: Images per row.
        title: The text above all images.
    """
    count, channels, height, width = images.shape
    columns = min(columns, max(count, 4))
    scale = CELL / max(height, width)
    size = round(width * scale), round(height * scale)
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    across, down = CELL + 16, size[1] + LINE * lines + 12
    whole = max(across * columns, round(font(13).getlength(title)) + 16), 30 + down * -(-count // columns)
    canvas = Image.new("L" if channels == 1 else "RGB", whole, "white")  # a grey picture is written three times as fast
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 8), title, "black", font(13))
    pixels = images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).squeeze(3).cpu()  # (N, H, W[, 3])
    for i, (image, caption) in enumerate(zip(pixels.numpy(), captions, strict=True)):
        left, top = i % columns * across + 8, i // columns * down + 30
        canvas.paste(Image.fromarray(image).resize(size, Image.Resampling.NEAREST), (left, top))
        draw.multiline_text(
            (left + size[0] / 2, top + size[1] + 2), caption, "black", font(11), anchor="ma", align="center", spacing=2
        )
    return canvas


def curves(history: Sequence[dict[str, float]], best_epoch: int) -> Image.Image:
    """Draw loss and accuracy of train, and of val if there is one, over the epochs; the kept epoch is marked."""
    canvas = Image.new("RGB", (2 * PANEL[0], PANEL[1]), "white")
    splits = [split for split in ("train", "val") if f"{split}/loss" in history[0]]
    for i, name in enumerate(("loss", "accuracy")):
        form = metric_table.of(name).shown
        lines = {split: [form.factor * epoch[f"{split}/{name}"] for epoch in history] for split in splits}
        canvas.paste(_panel(form.axis(name), lines, best_epoch), (i * PANEL[0], 0))
    return canvas


def _panel(title: str, lines: dict[str, list[float]], best_epoch: int) -> Image.Image:
    """Draw values over epochs counted from 1, with axes, a mark at the kept epoch, and a legend at the upper right."""
    left, top, right, bottom = 48, 40, PANEL[0] - 16, PANEL[1] - 46
    epochs = len(next(iter(lines.values())))
    values = [value for line in lines.values() for value in line if math.isfinite(value)] or [0.0]
    margin = 0.05 * (max(values) - min(values)) if max(values) > min(values) else 0.5
    low, high = min(values) - margin, max(values) + margin

    def place(epoch: float, value: float) -> tuple[float, float]:
        across = (epoch - 0.8) / (epochs - 0.6)
        return left + across * (right - left), bottom - (value - low) / (high - low) * (bottom - top)

    # Pillow's lines have hard edges: drawn larger and reduced, they are smooth
    large = Image.new("RGB", (PANEL[0] * SMOOTH, PANEL[1] * SMOOTH), "white")
    draw = ImageDraw.Draw(large)

    def line(points: Sequence[tuple[float, float]], color: str, width: float) -> None:
        draw.line([(x * SMOOTH, y * SMOOTH) for x, y in points], color, round(width * SMOOTH))

    ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    shown = [round(tick) for tick in MaxNLocator(6, integer=True).tick_values(1, epochs) if 1 <= tick <= epochs]
    for tick in ticks:
        y = place(1, tick)[1]
        line([(left, y), (right, y)], PALE, 1)
    line([(left, top), (left, bottom), (right, bottom)], GREY, 1)
    x = place(best_epoch, low)[0]
    for y in range(top, bottom, 8):
        line([(x, y), (x, y + 4)], GREY, 1.5)
    for values, color in zip(lines.values(), (ORANGE, BLUE), strict=False):
        points = [place(epoch, value) for epoch, value in enumerate(values, start=1) if math.isfinite(value)]
        for segment in itertools.pairwise(points):
            line(segment, color, 2)
        for x, y in points:
            draw.circle((x * SMOOTH, y * SMOOTH), 3 * SMOOTH, color)

    panel = large.reduce(SMOOTH)
    draw = ImageDraw.Draw(panel)
    draw.text((left, 12), title, "black", font(13))
    for tick in ticks:
        draw.text((left - 7, place(1, tick)[1]), f"{tick:.6g}", "black", font(11), anchor="rm")
    for epoch in shown:
        draw.text((place(epoch, low)[0], bottom + 6), str(epoch), "black", font(11), anchor="ma")
    draw.text(((left + right) / 2, bottom + 24), "epoch", "black", font(11), anchor="ma")
    end: float = right
    for label, color in ((f"kept: epoch {best_epoch}", GREY), *reversed([*zip(lines, (ORANGE, BLUE), strict=False)])):
        draw.text((end, 13), label, color, font(11), anchor="ra")
        end -= font(11).getlength(label) + 16
    return panel


def confusion(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Image.Image:
    """Draw the confusion matrix in counts, with mistakes in colour and the accuracy of each class at the right.

    Args:
        logits: float (N, K).
        labels: int64 (N,).
        classes: K names.
    """
    matrix = metrics.confusion_matrix(logits, labels)
    accuracies = metrics.per_class_accuracy(logits, labels).tolist()
    shares_right = ["\u2013" if math.isnan(accuracy) else f"{100 * accuracy:.1f} %" for accuracy in accuracies]
    mistakes = matrix.clone().fill_diagonal_(0).double()
    shares = (mistakes / max(1.0, float(mistakes.max()))).tolist()
    cell = 46 if len(classes) <= 30 else 12
    names = [short(name, 16) for name in classes]
    margin = round(max(font(12).getlength(name) for name in names)) + 34
    side = cell * len(classes)
    canvas = Image.new("RGB", (max(margin + side + 70, 460), 34 + side + margin), "white")
    draw = ImageDraw.Draw(canvas)
    overall = metrics.accuracy(logits, labels)
    form, (low, high) = metric_table.of("accuracy").shown, metrics.accuracy_interval(overall, len(labels))
    title = f"accuracy {form(overall)}, 95 % interval {form.number(low)} to {form(high)}, n = {len(labels):,}"
    draw.text((8, 9), title, "black", font(13))
    for row, counts in enumerate(matrix.tolist()):
        top = 34 + row * cell
        for column, count in enumerate(counts):
            left = margin + column * cell
            paleness = 1 - 0.75 * shares[row][column]
            color = (255, round(150 + 100 * paleness), round(60 + 185 * paleness))
            draw.rectangle((left, top, left + cell - 2, top + cell - 2), color)
            if count and cell > 20:
                weight = font(12, bold=row == column)
                draw.text((left + cell / 2, top + cell / 2), str(count), "black", weight, anchor="mm")
        if cell > 20 or row % 5 == 0:
            draw.text((margin - 8, top + cell / 2), names[row], "black", font(12), anchor="rm")
            draw.text((margin + side + 8, top + cell / 2), shares_right[row], "black", font(12), anchor="lm")
            down = Image.new("L", (round(font(12).getlength(names[row])) + 2, 16), 0)
            ImageDraw.Draw(down).text((1, 1), names[row], 255, font(12))
            turned = down.rotate(90, expand=True) if len(names[row]) > 3 else down
            canvas.paste("black", (margin + row * cell + (cell - turned.width) // 2, 34 + side + 4), turned)
    draw.text((margin + side / 2, canvas.height - 8), "predicted", "black", font(12), anchor="ms")
    draw.text((8, 34 + side + 6), "label", "black", font(12))
    return canvas


def mistakes(logits: Tensor, labels: Tensor, images: Tensor, classes: Sequence[str], most: int = 30) -> Image.Image:
    """Draw the most confident mistakes, each with its label, its prediction and the probability of the latter.

    Args:
        logits: float (N, K).
        labels: int64 (N,).
        images: uint8 (N, C, H, W).
        classes: K names.
        most: The largest number of images.
    """
    wrong = metrics.mistakes(logits, labels, most)
    probs, preds = logits[wrong].softmax(1).max(1)
    captions = [
        f"{short(classes[label])} \u2192 {short(classes[pred])}\n{prob:.1%}"
        for label, pred, prob in zip(labels[wrong].tolist(), preds.tolist(), probs.tolist(), strict=True)
    ]
    total = int((logits.argmax(1) != labels).sum())
    title = (
        f"the {len(wrong)} most confident of {total} mistakes: label \u2192 prediction" if total > 0 else "no mistakes"
    )
    return sample_grid(images[wrong].float() / 255, captions, title=title)


def of_run(folder: Path, data: Data, state: State, logits: Tensor, labels: Tensor) -> list[Path]:
    """Draw and write the pictures of a finished run.

    Args:
        folder: The folder for the files.
        data: The run's data set.
        state: The run's finished training.
        logits: float (N, K), of the test images.
        labels: int64 (N,), of the test images.

    Returns:
        The paths of the PNG files.
    """
    spread = torch.linspace(0, len(data.train.labels) - 1, 40).long()  # the images of a folder are sorted by class
    shown = data.train.images[spread].float() / 255
    captions = [short(data.classes[label], 12) for label in data.train.labels[spread].tolist()]
    pictures = {
        "samples": sample_grid(shown, captions, title=f"{data.name}: training images"),
        "curves": curves(state.history, state.best_epoch),
        "confusion": confusion(logits, labels, data.classes),
        "mistakes": mistakes(logits, labels, data.test.images, data.classes),
    }
    return [save(picture, folder / f"{name}.png") for name, picture in pictures.items()]


def save(picture: Image.Image, path: Path) -> Path:
    """Write a picture as PNG, and return its path."""
    picture.save(path, format="PNG", compress_level=3)
    return path


def short(name: str, most: int = 6) -> str:
    """Shorten a name to at most `most` letters: its beginning and its end, since there may be a number."""
    return name if len(name) <= most else f"{name[: most // 2]}\u2026{name[len(name) - (most - 1) // 2 :]}"


@functools.cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which is part of matplotlib and so the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)
