"""A description of a data set: what is on disk, how it is preprocessed, and what reaches the model."""

import torch
from PIL import Image
from torch import Tensor, nn

from iolaus.classifier.data.batches import Batches
from iolaus.classifier.data.dataset import Data
from iolaus.classifier.run import pictures
from iolaus.classifier.training.loop import Loader


def describe(data: Data, loader: Loader, model: nn.Module) -> str:
    """Return counts, shapes, dtypes, ranges, mean and std, class balance, and the preprocessing with its reasons.

    Args:
        data: The data set.
        loader: Its training loader, from which one batch is drawn.
        model: The model, which may flatten images.
    """
    images, labels = next(iter(loader))
    channels, height, width = data.input_shape
    raw = data.train.images
    lines = [
        f"{data.name} in {data.root}: {data.num_classes} classes, images of {height}x{width} pixels, "
        f"{'grey' if channels == 1 else f'{channels} channels'}",
        f"  train {len(data.train.labels):,}, val {len(data.val.labels):,} (stratified, the same for every seed), "
        f"test {data.num_test:,} (not looked at before the end of a run)",
        "",
        f"before   {_statistics(raw)}",
        f"after    {_statistics(images)}   (one batch of the training loader)",
        f"labels   {labels.dtype}, batch {tuple(labels.shape)}",
        "",
        "preprocessing, for each batch, on the device that trains:",
        "  1. to float32 in [0, 1]: layers compute in floats",
    ]
    augment = loader.dataset.augment if isinstance(getattr(loader, "dataset", None), Batches) else None  # type: ignore[attr-defined]
    if augment is not None and not isinstance(augment, nn.Identity):
        settings = ", ".join(f"{name}={value}" for name, value in vars(augment).items() if not name.startswith("_"))
        lines.append(f"  -  augmented by {type(augment).__name__}({settings}): no epoch shows the same image twice")
    if data.std == [1.0] * channels and data.mean == [0.0] * channels:
        lines.append("  2. not normalised (data.normalize=false)")
    else:
        mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (data.mean, data.std))
        lines.append(
            f"  2. minus the training split's mean ({mean}), divided by its std ({std}): "
            "inputs around 0 of size 1 are what the layers' initial weights are made for"
        )
    if flattens(model):
        lines.append(f"  3. flattened to {channels * height * width} numbers: linear layers have no rows and columns")
    lines += ["", "class balance        train            val"]
    share = [torch.bincount(split.labels, minlength=data.num_classes) for split in (data.train, data.val)]
    for name, train, val in zip(data.classes, share[0].tolist(), share[1].tolist(), strict=True):
        total = len(data.train.labels), len(data.val.labels)
        bar = "#" * round(20 * train / max(share[0].tolist()))
        lines.append(f"  {name[:14]:14} {train:7,} {train / total[0]:6.1%} {val:6,} {val / total[1]:6.1%}  {bar}")
    return "\n".join(lines)


def flattens(model: nn.Module) -> bool:
    """Return True if the first layer flattens images."""
    first = next((layer for layer in model.modules() if not list(layer.children())), None)
    return isinstance(first, nn.Flatten)


def before_and_after(data: Data, loader: Loader, model: nn.Module, count: int = 20) -> Image.Image:
    """Draw samples as they are on disk and, below, others recovered from the training loader.

    They are recovered by undoing the flattening, where the model flattens, and the normalisation. That they look like
    images shows that nothing was mixed up on the way.

    Args:
        data: The data set.
        loader: Its training loader, from which one batch is drawn.
        model: The model, which may flatten images.
        count: Number of samples of each kind.
    """
    images, labels = next(iter(loader))
    images, labels = images[:count], labels[:count]
    if flattens(model):
        vectors = images.flatten(1)  # (B, C*H*W), the input of the first linear layer
        images = vectors.unflatten(1, data.input_shape)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    recovered = images.cpu() * std + mean
    raw: Tensor = data.train.images[:count].float() / 255
    captions = [data.classes[label] for label in [*data.train.labels[:count].tolist(), *labels.tolist()]]
    undone = "flattening and normalisation" if flattens(model) else "normalisation"
    return pictures.sample_grid(
        torch.cat([raw, recovered]),
        [name[:12] for name in captions],
        title=f"{data.name}: first {len(raw)} raw, then {len(recovered)} from the training loader with {undone} undone",
    )


def _statistics(images: Tensor) -> str:
    values = images.float() / (255 if images.dtype == torch.uint8 else 1)
    scale = " of [0, 1]" if images.dtype == torch.uint8 else ""
    dtype = str(images.dtype).removeprefix("torch.")
    return (
        f"{dtype:8} {tuple(images.shape)}, values {images.min():.4g} to {images.max():.4g}, "
        f"mean {values.mean():.4f}, std {values.std():.4f}{scale}"
    )
