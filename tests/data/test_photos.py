import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor, nn

from iolaus.classifier.data import dataset, photos
from iolaus.classifier.data.batches import Shape
from iolaus.classifier.models import build, cnn
from iolaus.classifier.training import device, loop, metrics
from iolaus.errors import InputError

SHAPE = (1, 28, 28)


def seven(width: int = 160, height: int = 200, left: float = 0.35, top: float = 0.3) -> Image.Image:
    """A dark 7 on white, mode L: its box has the upper left corner (left, top), in shares of the picture."""
    points = [(left, top), (left + 0.37, top), (left + 0.1, top + 0.5)]
    large = Image.new("L", (width * 4, height * 4), 255)
    at = [(x * width * 4, y * height * 4) for x, y in points]
    ImageDraw.Draw(large).line(at, fill=0, width=round(0.06 * 4 * min(width, height)), joint="curve")
    return large.resize((width, height), Image.Resampling.BOX)


def prepared(image: Image.Image, folder: Path, name: str = "photo.png", **options: object) -> Tensor:
    image.save(folder / name, **options)
    return photos.prepare(folder / name, SHAPE, 20)


def difference(one: Tensor, other: Tensor) -> float:
    """Of two prepared digits, as a share of the ink of one; a digit turned upside down differs by more than 1.

    A centre of mass halfway between two pixels may come to either, so that a shift by one does not count.
    """
    shifted = [other.roll((down, right), (1, 2)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return min(((one - shift).abs().sum() / one.sum()).item() for shift in shifted)


@pytest.fixture
def reference(tmp_path: Path) -> Tensor:
    return prepared(seven(), tmp_path, "reference.png")


# what comes out


def test_the_difference_that_these_tests_measure_sees_a_turned_digit(reference: Tensor) -> None:
    assert difference(reference, reference.flip(1)) > 0.8
    assert difference(reference, reference.flip(2)) > 0.8
    assert difference(reference, reference.flip(1, 2)) > 0.8


def test_a_prepared_photo_is_light_ink_on_black(reference: Tensor) -> None:
    assert (reference.shape, reference.dtype) == (SHAPE, torch.float32)
    assert 0 <= reference.min() <= reference.max() <= 1
    assert reference.max() > 0.95
    assert (reference == 0).float().mean() > 0.5


def test_a_digit_fills_a_box_of_20_pixels(reference: Tensor) -> None:
    rows, columns = (reference[0] > 0.05).any(1).nonzero(), (reference[0] > 0.05).any(0).nonzero()

    assert rows[-1] - rows[0] + 1 in (19, 20)
    assert columns[-1] - columns[0] + 1 < 20


def test_the_centre_of_mass_is_in_the_middle(reference: Tensor) -> None:
    weight = reference[0] / reference.sum()

    assert (weight.sum(1) @ torch.arange(28.0)).item() == pytest.approx(14, abs=0.51)
    assert (weight.sum(0) @ torch.arange(28.0)).item() == pytest.approx(14, abs=0.51)


def test_a_digit_is_not_mirrored_or_turned(reference: Tensor) -> None:
    upper, lower = reference[0, :14], reference[0, 14:]

    assert upper.sum() > lower.sum()  # the bar of the 7 is above
    assert (lower.sum(0) @ torch.arange(28.0)) / lower.sum() < 14  # its foot is left


@pytest.mark.parametrize(("left", "top"), [(0.05, 0.05), (0.6, 0.45), (0.05, 0.45)])
def test_it_does_not_matter_where_in_the_picture_the_digit_is(
    tmp_path: Path, reference: Tensor, left: float, top: float
) -> None:
    assert difference(reference, prepared(seven(left=left, top=top), tmp_path)) < 0.1


@pytest.mark.parametrize("width", [60, 400, 1500])
def test_it_does_not_matter_how_large_the_picture_is(tmp_path: Path, reference: Tensor, width: int) -> None:
    assert difference(reference, prepared(seven(width, width * 5 // 4), tmp_path)) < 0.3


def test_an_image_and_its_inverse_are_prepared_alike(tmp_path: Path, reference: Tensor) -> None:
    assert difference(reference, prepared(ImageOps.invert(seven()), tmp_path)) < 0.02


def test_weak_contrast_is_made_strong(tmp_path: Path, reference: Tensor) -> None:
    pale = seven().point(lambda light: 120 + light // 4)

    assert difference(reference, prepared(pale, tmp_path)) < 0.1


def test_uneven_light_is_taken_away(tmp_path: Path, reference: Tensor) -> None:
    pixels = np.asarray(seven(), dtype=float)
    light = np.linspace(0.5, 1, pixels.shape[1]) * np.linspace(1, 0.7, pixels.shape[0])[:, None]

    assert difference(reference, prepared(Image.fromarray((pixels * light).astype(np.uint8)), tmp_path)) < 0.15


def test_specks_are_taken_away(tmp_path: Path, reference: Tensor) -> None:
    speckled = seven()
    for x, y in ((5, 5), (150, 190), (20, 150)):
        speckled.paste(0, (x, y, x + 4, y + 4))

    assert difference(reference, prepared(speckled, tmp_path)) < 0.05


def test_a_digit_of_two_pieces_keeps_both(tmp_path: Path, reference: Tensor) -> None:
    parted = seven()
    parted.paste(255, (0, 100, 160, 108))

    assert difference(reference, prepared(parted, tmp_path)) < 0.3
    assert prepared(parted, tmp_path)[0, 18:].sum() > 0.5 * reference[0, 18:].sum()


# file formats


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_the_mode_of_an_image_does_not_matter(tmp_path: Path, reference: Tensor, mode: str) -> None:
    deep = Image.fromarray(np.asarray(seven()).astype(np.uint16) * 257)
    image = deep if mode == "I;16" else seven().convert(mode)
    assert image.mode == mode

    # a bilevel image has no soft edges
    assert difference(reference, prepared(image, tmp_path, "photo.tif")) < (0.2 if mode == "1" else 0.02)


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_grey_is_the_share_of_white_in_any_mode(mode: str) -> None:
    pixels = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    deep = Image.fromarray(pixels.astype(np.uint16) * 257)
    image = deep if mode == "I;16" else Image.fromarray(pixels).convert(mode)

    assert photos.grey(image) == pytest.approx(pixels / 255)


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp", "photo.bmp", "photo.gif"])
def test_the_format_of_a_file_does_not_matter(tmp_path: Path, reference: Tensor, name: str) -> None:
    assert difference(reference, prepared(seven(), tmp_path, name)) < 0.05


@pytest.mark.parametrize("colour", [(200, 30, 30), (20, 40, 160), (0, 90, 0)])
def test_coloured_ink_is_ink(tmp_path: Path, reference: Tensor, colour: tuple[int, int, int]) -> None:
    image = ImageOps.colorize(seven(), colour, "white")

    assert difference(reference, prepared(image, tmp_path)) < 0.1


@pytest.mark.parametrize("light", [0, 255])
def test_strokes_on_a_transparent_background_are_ink(tmp_path: Path, reference: Tensor, light: int) -> None:
    image = Image.new("RGBA", seven().size, (light, light, light, 0))
    image.putalpha(ImageOps.invert(seven()))

    assert difference(reference, prepared(image, tmp_path)) < 0.05


def test_a_palette_with_a_transparent_colour_is_read_without_warning(tmp_path: Path, reference: Tensor) -> None:
    image = seven().point(lambda light: 255 * (light > 127)).convert("P")
    image.save(tmp_path / "palette.png", transparency=bytes([255] * 200 + [0] * 56))

    assert difference(reference, photos.prepare(tmp_path / "palette.png", SHAPE, 20)) < 0.2


@pytest.mark.parametrize(("orientation", "degrees"), [(3, 180), (6, 90), (8, 270)])
def test_a_photo_is_turned_as_its_camera_was_held(
    tmp_path: Path, reference: Tensor, orientation: int, degrees: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = seven().rotate(degrees, expand=True)

    assert difference(reference, prepared(turned, tmp_path, "photo.jpg", exif=exif)) < 0.05


def test_preparing_leaves_no_file_open(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        prepared(seven(), tmp_path, "photo.gif")
        (tmp_path / "short.png").write_bytes((tmp_path / "photo.gif").read_bytes()[:200])
        with pytest.raises(InputError):
            photos.prepare(tmp_path / "short.png", SHAPE, 20)

    assert [str(warning.message) for warning in caught] == []


# what cannot be prepared


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/nothing\.png does not exist$"):
        photos.prepare(tmp_path / "nothing.png", SHAPE, 20)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)

    with pytest.raises(InputError, match=r"/bad\.png is not a readable image: "):
        photos.prepare(tmp_path / "bad.png", SHAPE, 20)


@pytest.mark.parametrize("digit_box", [20, None])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, digit_box: int | None) -> None:
    seven().save(tmp_path / "bad.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "bad.png").read_bytes()[:400])

    with pytest.raises(InputError, match=r"/bad\.png is not a readable image: .*truncated"):
        photos.prepare(tmp_path / "bad.png", SHAPE, digit_box)


def test_a_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r" is a folder: name the images in it, as in .*/\*\.png$"):
        photos.prepare(tmp_path, SHAPE, 20)


def blank(light: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    return Image.new("L", size, light)


def test_paper_with_a_little_noise_shows_no_digit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(200, 3, (120, 150))

    with pytest.raises(InputError, match=r"/photo\.png shows no digit: nothing stands out from its background$"):
        prepared(Image.fromarray(noise.astype(np.uint8)), tmp_path)


def test_uneven_light_alone_shows_no_digit(tmp_path: Path) -> None:
    light = np.linspace(90, 220, 150) * np.ones((120, 1))

    with pytest.raises(InputError, match="shows no digit"):
        prepared(Image.fromarray(light.astype(np.uint8)), tmp_path)


@pytest.mark.parametrize("light", [0, 127, 254])
def test_a_blank_image_shows_no_digit(tmp_path: Path, light: int) -> None:
    with pytest.raises(InputError, match="shows no digit"):
        prepared(blank(light), tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 50)])
def test_an_image_of_few_pixels_shows_no_digit(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="shows no digit"):
        prepared(blank(200, size), tmp_path)


# without a digit box


def test_without_a_digit_box_a_grey_image_is_only_resized(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")

    assert torch.equal(photos.prepare(tmp_path / "grey.png", SHAPE, None), torch.from_numpy(pixels)[None] / 255)


def test_without_a_digit_box_a_colour_image_keeps_its_channels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")

    expected = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    assert torch.equal(photos.prepare(tmp_path / "colour.png", (3, 9, 14), None), expected)


@pytest.mark.parametrize("shape", [(1, 12, 20), (3, 12, 20), (1, 200, 100)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1"])
def test_without_a_digit_box_any_image_takes_the_models_shape(tmp_path: Path, shape: Shape, mode: str) -> None:
    seven().convert(mode).save(tmp_path / "photo.png")
    pixels = photos.prepare(tmp_path / "photo.png", shape, None)

    assert (pixels.shape, pixels.dtype) == (shape, torch.float32)
    assert 0 <= pixels.min() < pixels.max() <= 1


def test_without_a_digit_box_an_image_is_prepared_as_its_folder_was_read(tmp_path: Path) -> None:
    from iolaus.classifier.data.sources import Folder

    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        seven(50, 40).save(tmp_path / name / "0.png")
    read = Folder(image_size=(16, 12)).read(tmp_path, train=True).images[0]

    pixels = photos.prepare(tmp_path / "train/a/0.png", (1, 16, 12), None)
    assert torch.equal(pixels, torch.from_numpy(read) / 255)


def test_without_a_digit_box_16_bits_keep_their_greys(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "deep.png")

    found = photos.prepare(tmp_path / "deep.png", SHAPE, None)
    torch.testing.assert_close(found, torch.from_numpy(pixels)[None] / 255, atol=1 / 255, rtol=0)


def test_without_a_digit_box_a_transparent_palette_is_read_without_warning(tmp_path: Path) -> None:
    seven().convert("P").save(tmp_path / "palette.png", transparency=bytes([255] * 200 + [0] * 56))

    assert photos.prepare(tmp_path / "palette.png", SHAPE, None).shape == SHAPE


# centred


@pytest.mark.parametrize("shape", [(5, 5), (100, 3), (3, 100), (1, 1), (400, 400)])
def test_ink_of_any_shape_is_placed_within_the_square(shape: tuple[int, int]) -> None:
    placed = photos.centred(np.ones(shape), 28, 20)

    assert (placed.shape, placed.dtype) == ((28, 28), np.float32)
    assert placed.any(1).sum() == max(1, round(20 * shape[0] / max(shape)))
    assert placed.any(0).sum() == max(1, round(20 * shape[1] / max(shape)))


def test_ink_whose_box_is_as_large_as_the_square_is_centred_by_its_box() -> None:
    ink = np.zeros((8, 4))
    ink[:, 0] = 1  # its centre of mass is at the left
    ink[0, 3] = 1

    placed = photos.centred(ink, 8, 8)
    assert np.flatnonzero(placed.any(0)).tolist() == [2, 5]


def test_lopsided_ink_is_not_cut_off_by_centring_it() -> None:
    ink = np.full((20, 20), 0.3)
    ink[0] = 1
    ink[:, 0] = 1
    placed = photos.centred(ink, 22, 20)

    assert placed.sum() == pytest.approx(ink.sum(), rel=1e-5)


@pytest.mark.mnist
def test_mnists_own_images_are_centred_to_themselves(mnist: dataset.Data) -> None:
    images = mnist.test.images[:500, 0].numpy() / 255
    errors = np.array([np.abs(photos.centred(image, 28, 20) - image).max() for image in images])

    assert (errors < 1e-3).all(), f"{(errors >= 1e-3).sum()} of 500 differ, by at most {errors.max():.3f}"


# the criterion


@pytest.fixture(scope="module")
def network(mnist: dataset.Data) -> nn.Module:
    """A small CNN after one epoch, which takes pixels."""
    torch.manual_seed(0)
    model = build.build(partial(cnn.CNN, channels=[16, 32]), mnist.input_shape, mnist.num_classes)
    model = device.place(model, torch.device("cpu"))
    loop.fit(
        model,
        mnist.loader("train"),
        mnist.loader("val"),
        torch.optim.Adam(model.parameters(), lr=0.003),
        epochs=1,
        scheduler=partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.003, cycle_momentum=False),
    )
    return build.WithNormalization(model, mnist.mean, mnist.std).eval()


def photo(digit: np.ndarray, generator: np.random.Generator) -> Image.Image:
    """A digit of 28x28 as a photo of 60 to 400 pixels: off-centre, either polarity, in uneven light, with noise."""
    side = int(generator.integers(60, 401))
    rows, columns = np.nonzero(digit > 30)
    crop = digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = side * generator.uniform(0.6, 0.98) / max(crop.shape)
    height, width = (max(1, round(length * scale)) for length in crop.shape)
    large = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BICUBIC)) / 255
    ink = np.zeros((side, side))
    top, left = generator.integers(0, side - height + 1), generator.integers(0, side - width + 1)
    ink[top : top + height, left : left + width] = large
    paper, pen = generator.uniform(0.6, 0.95), generator.uniform(0.05, 0.35)
    light = paper + (pen - paper) * ink
    if generator.random() < 0.5:
        light = 1 - light
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    angle = generator.uniform(0, 2 * np.pi)
    light *= 1 + generator.uniform(0.09, 0.3) * (x * np.cos(angle) + y * np.sin(angle))
    light += generator.normal(0, generator.uniform(0.01, 0.06), light.shape)
    return Image.fromarray((light.clip(0, 1) * 255).astype(np.uint8))


@pytest.mark.mnist
def test_photos_of_1000_digits_cost_at_most_one_point_of_accuracy(
    mnist: dataset.Data, network: nn.Module, tmp_path: Path
) -> None:
    generator = np.random.default_rng(1)
    chosen = generator.choice(10_000, 1000, replace=False)
    images, labels = mnist.test.images[chosen], mnist.test.labels[chosen]
    made = []
    for image in images:
        photo(image[0].numpy(), generator).save(tmp_path / "photo.bmp")
        made.append(photos.prepare(tmp_path / "photo.bmp", mnist.input_shape, mnist.digit_box))

    with torch.inference_mode():
        untouched = metrics.accuracy(network(images / 255), labels)
        photographed = metrics.accuracy(network(torch.stack(made)), labels)

    assert untouched > 0.97
    assert photographed >= untouched - 0.01


@pytest.mark.parametrize(("mode", "scale"), [("F", 1.0), ("F", 255.0), ("I", 255), ("1", 1), ("LAB", 255)])
def test_unusual_modes_show_the_same_digit(tmp_path: Path, mode: str, scale: float) -> None:
    light = np.full((60, 60), 0.9)
    light[10:50, 25:35] = 0.1
    plain = Image.fromarray((light * 255).astype(np.uint8))
    if mode in "FI":
        dtype = np.float32 if mode == "F" else np.int32
        unusual = Image.fromarray((light * scale).astype(dtype))
    elif mode == "LAB":
        unusual = Image.merge("LAB", [plain, Image.new("L", (60, 60), 128), Image.new("L", (60, 60), 128)])
    else:
        unusual = plain.convert(mode, dither=Image.Dither.NONE)
    plain.save(tmp_path / "plain.png")
    unusual.save(tmp_path / "unusual.tif")

    expected = photos.prepare(tmp_path / "plain.png", (1, 28, 28), 20)
    got = photos.prepare(tmp_path / "unusual.tif", (1, 28, 28), 20)

    assert (got - expected).abs().max() < 0.2


@pytest.mark.parametrize("ink", ["black", "white"])
def test_transparency_without_a_box_becomes_paper(tmp_path: Path, ink: str) -> None:
    image = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    image.paste(ink, (10, 5, 16, 23))
    image.save(tmp_path / "stroke.png")

    pixels = photos.prepare(tmp_path / "stroke.png", (1, 28, 28), None)

    assert (pixels[0, 14, 13] - pixels[0, 2, 2]).abs() > 0.9
