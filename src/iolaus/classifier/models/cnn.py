"""``model=cnn``: blocks of convolutions, then fully connected layers."""

from collections.abc import Sequence

from torch import nn

from iolaus.classifier.data.batches import Shape
from iolaus.classifier.models.mlp import check_dropout, check_sizes, dense
from iolaus.errors import InputError, require


class CNN(nn.Sequential):
    """Blocks of convolution, max pooling, batch norm and ReLU, then fully connected layers.

    Pooling comes after a block's last convolution and before its batch norm, which then has fewer pixels to process.

    Args:
        input_shape: Channels, height and width of an image.
        num_classes: Number of logits.
        channels: Output channels of each block.
        convs: Number of convolutions in a block: the same in all, or a list with one for each.
        kernel_size: Side of the convolutions' kernels, odd: the image keeps its size.
        pool_size: Side and stride of each block's max pooling; 1 pools nothing.
        batch_norm: Add batch norm after each convolution.
        global_pool: Reduce each channel of the last block to one feature, its mean over the image.
        hidden_sizes: Width of each hidden layer after the blocks.
        dropout: Probability of dropping a hidden activation, and a feature of the last block, in [0, 1).
        crop: Pixels cut off each side of the images first, less than half of the shorter side.

    Raises:
        InputError: for a value out of range, and for blocks that leave nothing of the image.
    """

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        channels: Sequence[int] = (16, 32, 64),
        convs: int | Sequence[int] = 1,
        kernel_size: int = 3,
        pool_size: int = 2,
        batch_norm: bool = True,
        global_pool: bool = False,
        hidden_sizes: Sequence[int] = (128,),
        dropout: float = 0.0,
        crop: int = 0,
    ) -> None:
        """Build the layers."""
        check_sizes("model.channels", channels)
        if not channels:
            raise InputError("model.channels must name at least one block, but got []: model=mlp has no convolutions")
        if type(kernel_size) is not int or kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"model.kernel_size must be odd and at least 1, but got {kernel_size}")
        if type(pool_size) is not int or pool_size < 1:
            raise InputError(f"model.pool_size must be at least 1, but got {pool_size}")
        depths: Sequence[int] = [convs] * len(channels) if isinstance(convs, int) else convs
        listed = isinstance(depths, Sequence) and len(depths) == len(channels)
        if not listed or not all(type(depth) is int and depth >= 1 for depth in depths):
            raise InputError(
                "model.convs must be a whole number of at least 1, or a list of one for each of "
                f"model.channels={channels}, but got {convs}"
            )
        in_channels, height, width = input_shape
        largest = (min(height, width) - 1) // 2
        require(type(crop) is int and 0 <= crop <= largest, "model.crop", f"a whole number in 0..{largest}", crop)
        height, width = height - 2 * crop, width - 2 * crop
        cropped = f"{height}x{width}"
        blocks: list[nn.Module] = [nn.ZeroPad2d(-crop)] if crop else []  # negative padding cuts off
        for block, (out_channels, depth) in enumerate(zip(channels, depths, strict=True), start=1):
            if min(height, width) < pool_size:
                left = f"{cropped}{f' (after model.crop={crop})' if crop else ''}"
                raise InputError(
                    f"model.pool_size={pool_size} in {len(channels)} blocks shrinks images of {left} to nothing: "
                    f"block {block} is left {height}x{width}; pool less or drop blocks"
                )
            height, width = height // pool_size, width // pool_size
            for conv in range(1, depth + 1):
                # batch norm would subtract a bias again
                blocks.append(nn.Conv2d(in_channels, out_channels, kernel_size, padding="same", bias=not batch_norm))
                blocks += [nn.MaxPool2d(pool_size)] if pool_size > 1 and conv == depth else []
                blocks += [nn.BatchNorm2d(out_channels)] if batch_norm else []
                blocks.append(nn.ReLU())
                in_channels = out_channels
        if global_pool:
            blocks.append(nn.AdaptiveAvgPool2d(1))
            height = width = 1
        features: list[nn.Module] = [nn.Flatten()]
        features += [nn.Dropout(dropout)] if check_dropout(dropout) else []
        super().__init__(*blocks, *features, *dense(in_channels * height * width, num_classes, hidden_sizes, dropout))
