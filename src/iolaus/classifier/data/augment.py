"""Augmentations: callables on a batch of pixels (B, C, H, W) in [0, 1], run on the batch's device."""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from iolaus.classifier.data.batches import send
from iolaus.errors import InputError, is_number, require


class Affine:
    """Rotate, shift and scale each image at random; what comes in from outside is black.

    The amounts are drawn from torch's global generator.

    Args:
        degrees: Largest rotation in either direction, in degrees, in [0, 180].
        translate: Largest shift along either axis, as a fraction of the image's side, in [0, 1).
        scale: Smallest and largest factor by which the size changes.

    Raises:
        InputError: for a value out of range.
    """

    def __init__(self, degrees: float = 10.0, translate: float = 0.1, scale: tuple[float, float] = (0.9, 1.1)) -> None:
        """Check the ranges."""
        if not 0 <= degrees <= 180:
            raise InputError(f"augment.degrees must be in [0, 180], but got {degrees}")
        if not 0 <= translate < 1:
            raise InputError(f"augment.translate must be in [0, 1), but got {translate}")
        if not isinstance(scale, Sequence) or len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            given = list(scale) if isinstance(scale, Sequence) else scale
            raise InputError(f"augment.scale must be [low, high] with 0 < low <= high, but got {given}")
        self.degrees, self.translate, self.scale = degrees, translate, (scale[0], scale[1])

    def __call__(self, images: Tensor) -> Tensor:
        """Return the transformed images, float32 (B, C, H, W) as those given."""
        return F.grid_sample(images, self.grid(images), padding_mode="zeros", align_corners=False)

    def grid(self, images: Tensor) -> Tensor:
        """Return the origin of each pixel as x and y, float32 (B, H, W, 2), in [-1, 1] within the image."""
        size, (height, width) = len(images), images.shape[2:]
        draw = torch.rand(4, size)  # on the CPU: the same for every device
        angle = (draw[0] * 2 - 1) * math.radians(self.degrees)
        low, high = self.scale
        factor = 1 / (low + draw[1] * (high - low))  # from output to input, therefore inverted
        shift = (draw[2:] * 2 - 1) * (2 * self.translate)  # the grid spans [-1, 1]: two units a side
        cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
        # coordinates are in units of half a side, in which a rotation of a non-square image needs these factors
        coefficients = torch.stack([cos, sin * (height / width), sin * (width / height), *shift])  # (5, B)
        along, sin_x, sin_y, shift_x, shift_y = send(coefficients, images.device).view(5, -1, 1, 1)
        x, y = _positions(width, images.device).view(1, 1, -1), _positions(height, images.device).view(1, -1, 1)
        return torch.stack([along * x - sin_x * y + shift_x, sin_y * x + along * y + shift_y], dim=-1)


@functools.lru_cache(maxsize=8)
def _positions(side: int, device: torch.device) -> Tensor:
    """Return the centres of the pixels along a side, in [-1, 1]: float32 (side,)."""
    return send((torch.arange(side) * 2 + 1) / side - 1, device)


class Elastic(Affine):
    """Deform each image elastically, besides the transformation of `Affine`.

    Each pixel is displaced by uniform noise of at most `alpha` pixels along either axis, smoothed by a Gaussian with
    standard deviation `sigma`. Simard, Steinkraus and Platt ("Best practices for convolutional neural networks applied
    to visual document analysis", 2003) found 34 and 4 best for MNIST, which displaces a pixel by about 1.4 pixels.

    Args:
        degrees: See `Affine`.
        translate: See `Affine`.
        scale: See `Affine`.
        alpha: Strength, in pixels, at least 0.
        sigma: Smoothness, in pixels, above 0.

    Raises:
        InputError: for a value out of range.
    """

    def __init__(
        self,
        degrees: float = 7.0,
        translate: float = 0.05,
        scale: tuple[float, float] = (0.9, 1.1),
        alpha: float = 34.0,
        sigma: float = 4.0,
    ) -> None:
        """Check the ranges."""
        super().__init__(degrees, translate, scale)
        good = is_number(alpha) and math.isfinite(alpha) and alpha >= 0
        require(good, "augment.alpha", "a finite number of at least 0", alpha)
        good = is_number(sigma) and math.isfinite(sigma) and sigma > 0
        require(good, "augment.sigma", "a finite number above 0", sigma)
        self.alpha, self.sigma = alpha, sigma

    def grid(self, images: Tensor) -> Tensor:
        """Return the origin of each pixel as x and y, float32 (B, H, W, 2), in [-1, 1] within the image."""
        grid = super().grid(images)
        size, (height, width) = len(images), images.shape[2:]
        noise = send(torch.rand(size, 2, width, height) * 2 - 1, images.device)
        along_y, along_x = (_smoothing(side, self.sigma, images.device) for side in (height, width))
        moves = (noise @ along_y).mT @ along_x
        sides = send(torch.tensor([width, height]), images.device)
        return grid + moves.permute(0, 2, 3, 1) * (2 * self.alpha / sides)


@functools.lru_cache(maxsize=8)
def _smoothing(side: int, sigma: float, device: torch.device) -> Tensor:
    """Return the weights (side, side) that smooth a line of pixels; it is continued periodically."""
    distances = (torch.arange(side).view(-1, 1) - torch.arange(side)).abs()
    weights = torch.exp(-((torch.minimum(distances, side - distances) / sigma) ** 2) / 2)
    return send(weights / weights.sum(0), device)
