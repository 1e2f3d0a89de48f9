"""Pictures of a run. Each function gives a matplotlib figure; none touches a global state or opens a window.

Many small images are drawn as one: an axes for each would take seconds.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from iolaus import metrics
from iolaus.data import Data
from iolaus.engine import State

DPI = 110
TITLE = 0.3  # inches above a grid
BLUE, ORANGE, GREY = "#3366aa", "#dd7722", "#888888"


def sample_grid(
    images: Tensor,
    captions: Sequence[str],
    columns: int = 10,
    title: str = "",
    colors: Sequence[str] | None = None,
) -> Figure:
    """Images in rows, each with a caption below it.

    Args:
        images: Pixels float (N, C, H, W) in [0, 1], of one or three channels; shown grey or in colour.
        captions: N texts.
        columns: Images a row.
        title: Above all.
        colors: Of each caption.
    """
    count, channels, height, width = images.shape
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    lines = max(caption.count("\n") + 1 for caption in captions)
    gap, band = max(2, round(width * 0.14)), max(2, round(height * (0.08 + 0.17 * lines)))
    canvas = np.ones((rows * (height + band), columns * (width + gap) - gap, 3))
    pixels = images.clamp(0, 1).expand(-1, 3, -1, -1) if channels == 1 else images[:, :3].clamp(0, 1)
    for i, image in enumerate(pixels.permute(0, 2, 3, 1).cpu().numpy()):  # (N, H, W, 3)
        top, left = (i // columns) * (height + band), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    inches = max(0.95 * columns, 4.0)
    figure = Figure(figsize=(inches, inches * canvas.shape[0] / canvas.shape[1] + TITLE), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1 - TITLE / figure.get_figheight()))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for i, caption in enumerate(captions):
        axes.text(
            (i % columns) * (width + gap) + width / 2,
            (i // columns) * (height + band) + height + band * 0.02,
            caption,
            ha="center",
            va="top",
            fontsize=7.5,
            color=colors[i] if colors else "black",
        )
    figure.text(0.005, 1 - TITLE / 2 / figure.get_figheight(), title, fontsize=10, va="center")
    return figure


def curves(history: Sequence[dict[str, float]], best_epoch: int) -> Figure:
    """Loss and accuracy of train and val over the epochs, the kept epoch marked."""
    figure = Figure(figsize=(9, 3.4), dpi=DPI)
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.14, top=0.91, wspace=0.14)
    epochs = range(1, len(history) + 1)
    for axes, name, scale in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
        for split, color in (("train", ORANGE), ("val", BLUE)):
            values = [scale * epoch[f"{split}/{name}"] for epoch in history]
            axes.plot(epochs, values, "o-", color=color, markersize=3.5, label=split)
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.set_title(name if scale == 1 else f"{name} (%)", fontsize=10, loc="left")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    return figure


def confusion(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """The confusion matrix in counts, its colours showing the mistakes; per-class accuracy at the right."""
    matrix = metrics.confusion_matrix(logits, labels)
    accuracies = metrics.per_class_accuracy(logits, labels)
    count = len(classes)
    side = max(4.5, 0.48 * count)  # inches
    margin = 0.55 + 0.08 * min(longest := max(map(len, classes)), 20)  # inches, for the names
    figure = Figure(figsize=(side + margin + 0.8, side + margin + 0.4), dpi=DPI)
    width, height = figure.get_size_inches()
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    errors = matrix.clone().fill_diagonal_(0)
    axes.imshow(
        errors.numpy(), cmap="Oranges", vmin=0, vmax=1.8 * max(1, int(errors.max()))
    )  # pale enough to read numbers on
    if count <= 30:  # beyond that, numbers are dust
        for row, column in torch.cartesian_prod(torch.arange(count), torch.arange(count)).tolist():
            if number := int(matrix[row, column]):
                weight = "bold" if row == column else "normal"
                axes.text(column, row, str(number), ha="center", va="center", fontsize=7.5, fontweight=weight)
    axes.set_xticks(range(count), classes, fontsize=8, rotation=0 if longest < 4 else 90)
    axes.set_yticks(range(count), classes, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(count), [f"{100 * accuracy:.1f} %" for accuracy in accuracies.tolist()], fontsize=8)
    right.tick_params(length=0)
    overall = metrics.accuracy(logits, labels)
    low, high = metrics.accuracy_interval(overall, len(labels))
    axes.set_title(
        f"accuracy {overall:.2%}, 95 % interval {low:.2%} to {high:.2%}, n = {len(labels):,}",
        fontsize=10,
        loc="left",
    )
    return figure


def mistakes(logits: Tensor, labels: Tensor, images: Tensor, classes: Sequence[str], most: int = 30) -> Figure:
    """The most confident mistakes: label, prediction and its probability below each image.

    Args:
        logits: float (N, K).
        labels: int64 (N,).
        images: uint8 (N, C, H, W).
        classes: K names.
        most: How many to show.
    """
    wrong = metrics.mistakes(logits, labels, most)
    probs, preds = logits[wrong].softmax(1).max(1)
    captions = [
        f"{classes[label]} \u2192 {classes[pred]}\n{prob:.1%}"
        for label, pred, prob in zip(labels[wrong].tolist(), preds.tolist(), probs.tolist(), strict=True)
    ]
    total = int((logits.argmax(1) != labels).sum())
    title = f"the {len(wrong)} most confident of {total} mistakes: label \u2192 prediction" if total else "no mistakes"
    if not len(wrong):
        return sample_grid(torch.ones(1, 1, *images.shape[2:]), [""], title=title)
    return sample_grid(images[wrong].float() / 255, captions, title=title)


def of_run(folder: Path, data: Data, state: State, logits: Tensor, labels: Tensor) -> list[Path]:
    """Write the pictures of a finished run.

    Args:
        folder: Where to.
        data: Its data set.
        state: Of its training.
        logits: float (N, K), of the test images.
        labels: int64 (N,), theirs.

    Returns:
        The paths of the PNG files.
    """
    shown = data.train.images[:40].float() / 255
    captions = [data.classes[label] for label in data.train.labels[:40].tolist()]
    pictures = {
        "samples": sample_grid(shown, captions, title=f"{data.name}: training images"),
        "curves": curves(state.history, state.best_epoch),
        "confusion": confusion(logits, labels, data.classes),
        "mistakes": mistakes(logits, labels, data.test.images, data.classes),
    }
    return [save(figure, folder / f"{name}.png") for name, figure in pictures.items()]


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, straight from the canvas: ``savefig`` would draw everything twice."""
    FigureCanvasAgg(figure).print_png(str(path), pil_kwargs={"compress_level": 3})
    return path
