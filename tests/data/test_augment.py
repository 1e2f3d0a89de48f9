import math

import pytest
import torch
from torch import Tensor

from iolaus.classifier.data.augment import Affine, Elastic
from iolaus.errors import InputError


def dots(row: int, column: int, height: int, width: int, count: int = 200) -> Tensor:
    """The same image many times: black, with a blurred dot, so that its place can be told to a part of a pixel."""
    y, x = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
    image = torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 2.0)
    return image.expand(count, 1, height, width).contiguous()


def places(images: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each image's centre of mass."""
    weight = images[:, 0] / images[:, 0].sum((1, 2), keepdim=True)
    y, x = torch.arange(weight.shape[1]), torch.arange(weight.shape[2])
    return (weight.sum(2) * y).sum(1), (weight.sum(1) * x).sum(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 3, 12, 20), (1, 1, 8, 8)])
def test_shape_and_dtype_are_kept(shape: tuple[int, ...]) -> None:
    images = Affine()(torch.rand(shape))

    assert (images.shape, images.dtype) == (shape, torch.float32)


def test_pixels_stay_in_0_to_1() -> None:
    images = Affine(degrees=45, translate=0.3, scale=(0.5, 2))(torch.rand(50, 1, 28, 28))

    assert 0 <= images.min() <= images.max() <= 1 + 1e-6


def test_the_images_given_are_left_as_they_were() -> None:
    images = torch.rand(4, 1, 8, 8)
    before = images.clone()
    Affine()(images)

    assert torch.equal(images, before)


def test_each_image_of_a_batch_is_jittered_differently() -> None:
    images = Affine()(dots(10, 18, 28, 28, count=50))

    assert len(torch.unique(images.flatten(1), dim=0)) == 50


def test_channels_of_an_image_move_together() -> None:
    grey = torch.rand(8, 1, 16, 16)
    images = Affine()(grey.expand(-1, 3, -1, -1))

    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])


def test_ranges_of_nothing_change_nothing() -> None:
    images = torch.rand(6, 2, 9, 14)

    torch.testing.assert_close(Affine(degrees=0, translate=0, scale=(1, 1))(images), images, atol=1e-5, rtol=0)


def test_a_shift_is_within_its_share_of_each_side_and_uses_it() -> None:
    images = Affine(degrees=0, translate=0.1, scale=(1, 1))(dots(15, 20, 30, 40))
    rows, columns = places(images)

    for moved, bound in ((rows - 15, 3.0), (columns - 20, 4.0)):
        assert 0.9 * bound < moved.max() <= bound + 0.01
        assert -0.9 * bound > moved.min() >= -bound - 0.01


def test_a_rotation_keeps_a_dot_in_the_centre() -> None:
    rows, columns = places(Affine(degrees=180, translate=0, scale=(1, 1))(dots(10, 10, 21, 21)))

    torch.testing.assert_close(rows, torch.full_like(rows, 10.0), atol=0.01, rtol=0)
    torch.testing.assert_close(columns, torch.full_like(columns, 10.0), atol=0.01, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(31, 31), (31, 45), (45, 31)])
def test_a_rotation_keeps_the_distance_from_the_centre_whatever_the_proportions(height: int, width: int) -> None:
    y, x = height // 2, width // 2
    rows, columns = places(Affine(degrees=180, translate=0, scale=(1, 1))(dots(y + 8, x, height, width)))

    distances = torch.hypot(rows - y, columns - x)
    torch.testing.assert_close(distances, torch.full_like(distances, 8.0), atol=0.1, rtol=0)


def test_a_rotation_is_within_its_degrees_and_uses_them_either_way() -> None:
    rows, columns = places(Affine(degrees=30, translate=0, scale=(1, 1))(dots(15, 25, 31, 31)))

    angles = torch.rad2deg(torch.atan2(rows - 15, columns - 15))
    assert -30.5 < angles.min() < -27
    assert 27 < angles.max() < 30.5


def test_a_scale_of_two_doubles_the_distance_from_the_centre() -> None:
    rows, _ = places(Affine(degrees=0, translate=0, scale=(2, 2))(dots(20, 15, 31, 31, count=1)))

    assert rows.item() - 15 == pytest.approx(10, abs=0.1)


def test_a_scale_is_between_its_bounds_and_uses_them() -> None:
    rows, _ = places(Affine(degrees=0, translate=0, scale=(0.8, 1.25))(dots(23, 15, 31, 31)))

    factors = (rows - 15) / 8
    assert 0.79 < factors.min() < 0.83
    assert 1.22 < factors.max() < 1.26


def test_what_comes_in_from_outside_is_black() -> None:
    images = Affine(degrees=0, translate=0.5, scale=(1, 1))(torch.ones(20, 1, 16, 16))

    assert (images.flatten(1).min(1).values == 0).all()
    assert images.max() == 1


def test_the_same_torch_seed_gives_the_same_images() -> None:
    images, augmented = torch.rand(5, 1, 12, 12), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        augmented.append(Affine()(images))

    assert torch.equal(augmented[0], augmented[1])
    assert not torch.equal(augmented[0], augmented[2])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"degrees": -1}, r"^augment\.degrees must be in \[0, 180\], but got -1$"),
        ({"degrees": 181}, r"^augment\.degrees must be in \[0, 180\], but got 181$"),
        ({"degrees": float("nan")}, r"^augment\.degrees must be in \[0, 180\], but got nan$"),
        ({"translate": -0.1}, r"^augment\.translate must be in \[0, 1\), but got -0\.1$"),
        ({"translate": 1}, r"^augment\.translate must be in \[0, 1\), but got 1$"),
        ({"scale": (0, 1)}, r"^augment\.scale must be \[low, high\] with 0 < low <= high, but got \[0, 1\]$"),
        ({"scale": (1.1, 0.9)}, r"^augment\.scale must be .* but got \[1\.1, 0\.9\]$"),
        ({"scale": (1.0,)}, r"^augment\.scale must be .* but got \[1\.0\]$"),
    ],
)
def test_a_range_that_is_none_is_an_error(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Affine(**keywords)


def test_a_scale_that_is_one_number_is_an_error() -> None:
    with pytest.raises(InputError, match=r"augment\.scale"):
        Affine(scale=0.9)


def moves(alpha: float, sigma: float, height: int, width: int, count: int = 500) -> Tensor:
    """By how many pixels each pixel is moved: (B, H, W, 2), x and y."""
    images = torch.zeros(count, 1, height, width)
    still = Elastic(degrees=0, translate=0, scale=(1, 1), alpha=0, sigma=sigma).grid(images)
    grid = Elastic(degrees=0, translate=0, scale=(1, 1), alpha=alpha, sigma=sigma).grid(images)
    return (grid - still) * torch.tensor([width, height]) / 2


@pytest.mark.parametrize(("height", "width"), [(28, 28), (24, 40)])
def test_pixels_go_as_far_as_smoothed_noise_does_along_either_axis(height: int, width: int) -> None:
    spread = moves(34, 4, height, width).std(0)
    expected = 34 * math.sqrt(1 / 3) / (2 * math.sqrt(math.pi) * 4)  # of uniform noise, averaged over 4 pi sigma²

    torch.testing.assert_close(spread, torch.full_like(spread, expected), rtol=0.15, atol=0)


def test_neighbours_go_almost_as_far_and_far_ones_elsewhere() -> None:
    """Noise smoothed by a Gaussian of width sigma is correlated by exp(-(d / 2 sigma)²)."""
    columns = moves(34, 4, 28, 28)[:, 14, :, 0]
    for distance in (1, 4, 12):
        found = torch.corrcoef(columns[:, [4, 4 + distance]].T)[0, 1].item()
        assert found == pytest.approx(math.exp(-((distance / 8) ** 2)), abs=0.13)


def test_images_are_bent_after_the_same_jitter() -> None:
    images, given = torch.rand(4, 2, 12, 18), {"degrees": 20.0, "translate": 0.2, "scale": (0.8, 1.2)}
    torch.manual_seed(3)
    affine = Affine(**given)(images)
    torch.manual_seed(3)
    straight = Elastic(**given, alpha=0)(images)
    torch.manual_seed(3)
    bent = Elastic(**given)(images)

    assert torch.equal(affine, straight)
    assert bent.shape == images.shape
    assert not torch.allclose(affine, bent, atol=0.1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"alpha": -1}, r"^augment\.alpha must be a finite number of at least 0, but got -1$"),
        ({"alpha": float("inf")}, r"^augment\.alpha must be a finite number of at least 0, but got inf$"),
        ({"sigma": 0}, r"^augment\.sigma must be a finite number above 0, but got 0$"),
        ({"sigma": "4"}, r"^augment\.sigma must be a finite number above 0, but got 4$"),
    ],
)
def test_a_strength_or_a_smoothness_that_is_none_is_an_error(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Elastic(**keywords)
