"""Photos and drawings, converted to images like those that a model was trained on.

For digits the steps are those of MNIST's makers (LeCun, Cortes, Burges, «The MNIST database of handwritten digits»):
the digit is scaled to fit a box of 20x20 pixels, with its proportions, and placed in 28x28 pixels with its centre of
mass in the middle. Their scans were clean; from a photo uneven light, polarity and noise are removed first.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage
from torch import Tensor

from iolaus.classifier.data.batches import Shape
from iolaus.errors import InputError

LONGEST = 400  # pixels; more detail would be lost in a digit of 20 pixels anyway


def prepare(path: str | Path, input_shape: Shape, digit_box: int | None) -> Tensor:
    """Read an image file of any size, and return a model's input before normalisation.

    Args:
        path: A file of any format that Pillow reads.
        input_shape: Channels, height and width of the model's input.
        digit_box: Side in pixels of the box that the digit fills; None only resizes the image.

    Returns:
        Pixels float32 (C, H, W) in [0, 1].

    Raises:
        InputError: if the file cannot be read, or shows nothing.
    """
    image = open_image(path)
    channels, height, width = input_shape
    if digit_box is None:
        resized = (
            flattened(image).convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.LANCZOS)
        )
        pixels = np.asarray(resized, dtype=np.float32).reshape(height, width, channels) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)
    try:
        return torch.from_numpy(centred(ink(grey(image)), height, digit_box))[None]
    except InputError as error:
        raise InputError(f"{path} {error}") from error


def open_image(path: str | Path) -> Image.Image:
    """Read an image file upright, as 8 bits grey or colour, with or without transparency.

    Raises:
        InputError: if it does not exist, or is not an image.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
            return _eight_bits(image)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder: name the images in it, as in {path}/*.png") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a readable image: Pillow does not know its format") from error
    except (OSError, SyntaxError, ValueError, NotImplementedError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a readable image: {error}") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the same image as L, LA, RGB or RGBA."""
    if image.mode[0] in "IF":  # 16 bits, integers, floats: Pillow's own conversion would clip them
        values = np.asarray(image, dtype=float)
        largest = next((limit for limit in (1, 255, 65535) if values.max() <= limit), values.max())
        return Image.fromarray((values.clip(0) * (255 / largest)).astype(np.uint8))
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def flattened(image: Image.Image) -> Image.Image:
    """Return an image without transparency: on white or, where the drawing is light, on black."""
    if not image.has_transparency_data:
        return image
    light, opacity = (np.asarray(channel, dtype=float) for channel in image.convert("LA").split())
    drawn = (light * opacity).sum() / max(opacity.sum(), 1e-9)
    paper = Image.new("RGBA", image.size, "white" if drawn < 128 else "black")
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB" if image.mode == "RGBA" else "L")


def grey(image: Image.Image) -> np.ndarray:
    """Return the luminance, float64 (H, W) in [0, 1], with at most `LONGEST` pixels per side."""
    image = flattened(image).convert("L")
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    return np.asarray(image, dtype=float) / 255


def ink(light: np.ndarray) -> np.ndarray:
    """Return the amount of ink, float64 (H, W) in [0, 1], for dark ink on light paper and the reverse.

    Args:
        light: Luminance float64 (H, W) in [0, 1].

    Raises:
        InputError: if nothing stands out from the background.
    """
    smooth = ndimage.gaussian_filter(light, max(light.shape) / 130)
    difference = smooth - background(smooth)
    # a fifth of normal noise is below 0.253 standard deviations; the median would be ink where the digit is bold
    noise = np.quantile(np.abs(difference), 0.2) / 0.253
    outstanding = np.where(np.abs(difference) > 3 * noise, difference, 0.0)
    difference *= np.sign(outstanding.sum()) or 1.0
    threshold = otsu(difference.clip(0))
    mask = difference > threshold
    if threshold < 0.02 or not mask.any():
        raise InputError("shows no digit: nothing stands out from its background")
    mask = strokes(mask)
    full = np.median(difference[mask])  # the grey of a stroke's middle
    soft = ((difference - 0.25 * full) / (0.6 * full)).clip(0, 1)
    return soft * ndimage.binary_dilation(mask, iterations=max(1, round(max(light.shape) / 100)))


def background(light: np.ndarray) -> np.ndarray:
    """Return the paper's brightness at each pixel: a quadratic surface, fitted to the paper and not to the ink.

    The fit is by iteratively reweighted least squares with Tukey's biweight (Beaton and Tukey, 1974). It starts from
    the frame of the picture, which is mostly paper: the ink of a bold digit can be the majority of all pixels.

    Args:
        light: Luminance float64 (H, W) in [0, 1].
    """
    height, width = light.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)  # (H, W, 6)
    step = max(1, max(height, width) // 64)
    sample, values = terms[::step, ::step].reshape(-1, 6), light[::step, ::step].reshape(-1)
    frame = (np.maximum(abs(x), abs(y)) > 0.85)[::step, ::step].reshape(-1)
    surface = np.full_like(values, np.median(values[frame]))
    for used in [frame] * 10 + [np.ones_like(frame)] * 5:
        residual = values - surface
        scale = 4.685 * max(1.4826 * np.median(np.abs(residual[frame])), 0.01)
        weight = (1 - (residual / scale) ** 2).clip(0) * used
        weighted = sample * (weight**2)[:, None]
        # by the normal equations of 6 unknowns: an SVD of thousands of rows would take ten times as long
        solution, *_ = np.linalg.lstsq(weighted.T @ sample, weighted.T @ values, rcond=None)
        surface = sample @ solution
    return terms @ solution


def otsu(values: np.ndarray) -> float:
    """Return the threshold that best splits values into two classes (Otsu, 1979)."""
    if values.min() == values.max():
        return float(values.max())
    counts, edges = np.histogram(values, bins=128)
    centres = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    sums = (counts * centres).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(centres[np.nanargmax(spread)])


def strokes(mask: np.ndarray) -> np.ndarray:
    """Return a mask of the largest connected piece and those of at least a twelfth of its area, without specks.

    Args:
        mask: bool (H, W), True for ink.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = ndimage.sum_labels(mask, labels, range(1, count + 1))
    return np.isin(labels, 1 + np.flatnonzero(areas >= areas.max() / 12))


def centred(ink: np.ndarray, side: int, box: int) -> np.ndarray:
    """Scale ink to fit a box, and place its centre of mass in the middle of a square.

    Args:
        ink: float (H, W) in [0, 1], not all 0.
        side: Side of the square, in pixels.
        box: Length of the digit's longer side, in pixels; where it equals `side`, the digit's box is centred instead.

    Returns:
        float32 (side, side) in [0, 1].
    """
    rows, columns = np.flatnonzero((ink > 0).any(1)), np.flatnonzero((ink > 0).any(0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = box / max(digit.shape)
    size = tuple(max(1, round(length * scale)) for length in digit.shape)
    image = Image.fromarray(digit.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    small = np.asarray(image).clip(0, 1)
    if box < side:
        # MNIST's own images are reproduced exactly with the centre of mass at pixel 14 of 0..27
        wanted = [round(side / 2 - middle) for middle in ndimage.center_of_mass(small)]
    else:  # as in scikit-learn's digits, which fill their 8x8 pixels
        wanted = [round((side - length) / 2) for length in size]
    top, left = (min(max(offset, 0), side - length) for offset, length in zip(wanted, size, strict=True))
    placed = np.zeros((side, side), dtype=np.float32)
    placed[top : top + size[0], left : left + size[1]] = small
    return placed
