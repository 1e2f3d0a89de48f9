"""Augmentations: callables on a batch of pixels (B, C, H, W) in [0, 1], run on the batch's device."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from iolaus.errors import InputError


class Affine:
    """Turn, shift and scale each image by an amount of its own; what comes in from outside is black.

    Draws from torch's global generator.

    Args:
        degrees: Largest rotation either way, in degrees.
        translate: Largest shift along either axis, as a share of the image's side.
        scale: Smallest and largest factor of size.
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
        """Give images of the same shape and dtype as float32 (B, C, H, W)."""
        size, (height, width) = len(images), images.shape[2:]
        draw = torch.rand(4, size).to(images.device)  # drawn on the CPU: the same on every device
        angle = (draw[0] * 2 - 1) * math.radians(self.degrees)
        low, high = self.scale
        factor = 1 / (low + draw[1] * (high - low))  # from output to input, so sizes go the other way
        shift = (draw[2:] * 2 - 1) * (2 * self.translate)  # the grid spans [-1, 1]: two units a side
        cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
        # where each pixel comes from, in units of half a side; in those the rotation of a non-square image is a shear,
        # unless it is scaled back
        x = ((torch.arange(width, device=images.device) * 2 + 1) / width - 1).view(1, 1, width)
        y = ((torch.arange(height, device=images.device) * 2 + 1) / height - 1).view(1, height, 1)
        cos, sin, shift = cos.view(-1, 1, 1), sin.view(-1, 1, 1), shift[..., None, None]
        from_x = cos * x - (sin * (height / width)) * y + shift[0]
        from_y = (sin * (width / height)) * x + cos * y + shift[1]
        grid = torch.stack([from_x, from_y], dim=-1)  # (B, H, W, 2)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
