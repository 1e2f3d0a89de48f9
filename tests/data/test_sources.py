import gzip
import hashlib
import os
import re
import struct
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from filelock import FileLock
from PIL import Image

from iolaus.classifier.data.dataset import load
from iolaus.classifier.data.sources import Digits, Folder, Torchvision, stratified
from iolaus.errors import InputError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def idx(array: np.ndarray) -> bytes:
    """MNIST's own format: a magic number, the sizes in big endian, the bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def small_mnist(folder: Path, train: int = 20, test: int = 10) -> dict[str, np.ndarray]:
    """Write the four files of a data set with images of random grey levels."""
    generator = np.random.default_rng(0)
    sizes = {"train": train, "t10k": test}
    arrays = {
        name: generator.integers(0, 256, (sizes[name.split("-")[0]], 28, 28), dtype=np.uint8)
        if "images" in name
        else np.arange(sizes[name.split("-")[0]], dtype=np.uint8) % 10
        for name in NAMES
    }
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        (folder / name).write_bytes(idx(array))
    return arrays


def compress(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put compressed files in the place of the extracted, and let torchvision know their checksums."""
    resources = []
    for name in NAMES:
        packed = gzip.compress((folder / name).read_bytes())
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (8, 6), mode: str = "L") -> np.ndarray:
    """Write an image of random pixels, of (height, width), and give them."""
    shape = (*size, 3) if mode == "RGB" else size
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def pictures(root: Path, each: int = 10, classes: str = "ab", **keywords: object) -> None:
    for number, name in enumerate(classes):
        for i in range(each):
            picture(root / name / f"{i}.png", seed=100 * number + i, **keywords)


# stratified


@pytest.mark.parametrize("count", [0, 1, 7, 100, 499, 500])
def test_stratified_chooses_exactly_as_many_as_asked(count: int) -> None:
    labels = np.random.default_rng(1).choice(7, 500, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.03, 0.02])

    assert stratified(labels, count).sum() == count


@pytest.mark.parametrize("count", [1, 33, 250, 477])
def test_stratified_is_within_one_of_each_class_share(count: int) -> None:
    labels = np.random.default_rng(2).choice(5, 500, p=[0.5, 0.3, 0.1, 0.06, 0.04])

    chosen = np.bincount(labels[stratified(labels, count)], minlength=5)

    assert np.abs(chosen - np.bincount(labels) * count / 500).max() < 1


def test_stratified_is_the_same_whatever_the_global_seed() -> None:
    labels = np.arange(300) % 10
    np.random.seed(1)
    first = stratified(labels, 60)
    np.random.seed(2)

    assert (stratified(labels, 60) == first).all()


def test_stratified_does_not_choose_the_first_of_each_class() -> None:
    labels = np.repeat([0, 1], 100)

    assert not stratified(labels, 20)[[*range(10), *range(100, 110)]].all()


# Digits


def test_digits_are_split_without_overlap_or_loss() -> None:
    train, test = (Digits().read(Path(), train) for train in (True, False))

    assert (len(train.labels), len(test.labels)) == (1437, 360)
    every = np.concatenate([train.images, test.images]).reshape(1797, -1)
    assert len(np.unique(every, axis=0)) == 1797


def test_digits_use_the_whole_grey_range_as_bytes() -> None:
    images = Digits().read(Path(), True).images

    assert (images.shape[1:], images.dtype, images.min(), images.max()) == ((1, 8, 8), np.uint8, 0, 255)


def test_the_test_digits_are_in_proportion() -> None:
    assert set(np.bincount(Digits().read(Path(), False).labels)) <= {35, 36, 37}


# Torchvision


@pytest.mark.parametrize(
    ("dataset", "classes"),
    [
        ("MNIST", [str(digit) for digit in range(10)]),
        ("FashionMNIST", torchvision.datasets.FashionMNIST.classes),
        ("KMNIST", ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]),
    ],
)
def test_extracted_files_are_read_without_network(tmp_path: Path, dataset: str, classes: list[str]) -> None:
    written = small_mnist(tmp_path / dataset / "raw")

    arrays = Torchvision(dataset).read(tmp_path, train=True)

    assert arrays.classes == classes
    assert (arrays.images.shape, arrays.images.dtype) == ((20, 1, 28, 28), np.uint8)
    assert (arrays.labels.shape, arrays.labels.dtype) == ((20,), np.int64)
    assert (arrays.images[:, 0] == written["train-images-idx3-ubyte"]).all()
    assert (arrays.labels == written["train-labels-idx1-ubyte"]).all()


def test_the_test_half_is_read_from_its_own_files(tmp_path: Path) -> None:
    written = small_mnist(tmp_path / "MNIST" / "raw")

    assert (Torchvision("MNIST").read(tmp_path, train=False).images[:, 0] == written["t10k-images-idx3-ubyte"]).all()


def test_compressed_files_with_the_right_checksum_need_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "MNIST" / "raw"
    written = small_mnist(folder)
    compress(folder, monkeypatch)

    arrays = Torchvision("MNIST").read(tmp_path, train=True)

    assert (arrays.images[:, 0] == written["train-images-idx3-ubyte"]).all()


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_single_flipped_bit_is_found_where_the_compressed_files_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "MNIST" / "raw"
    small_mnist(folder)
    compress(folder, monkeypatch)
    Torchvision("MNIST").read(tmp_path, train=True)  # extracts
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(InputError, match=rf"^{name} in .* differs from its \.gz: delete it and run again"):
        Torchvision("MNIST").read(tmp_path, train=True)

    (folder / name).unlink()
    Torchvision("MNIST").read(tmp_path, train=True)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("kept", [0, 2, 10, 25])
def test_a_truncated_file_is_an_error_that_names_its_folder(tmp_path: Path, name: str, kept: int) -> None:
    folder = tmp_path / "MNIST" / "raw"
    small_mnist(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])

    with pytest.raises(InputError, match=f"^the files in {re.escape(str(folder))} are damaged .* delete those without"):
        Torchvision("MNIST").read(tmp_path, train=True)


def test_images_without_their_labels_are_an_error_that_gives_both_counts(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    small_mnist(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(19, np.uint8)))

    with pytest.raises(InputError, match=f"^{re.escape(str(folder))} holds 20 images, but 19 labels: delete"):
        Torchvision("MNIST").read(tmp_path, train=True)


def test_missing_files_without_network_say_what_was_tried_and_that_digits_need_none(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Torchvision("MNIST").read(tmp_path, train=True)

    message = str(caught.value)
    assert message.startswith(f"MNIST is not in {tmp_path / 'MNIST' / 'raw'}, and downloading it from https://")
    assert all(mirror in message for mirror in torchvision.datasets.MNIST.mirrors)
    assert "Name or service not known" in message
    assert "data=digits, which needs no network" in message
    assert "\n" not in message


def test_of_a_misspelt_root_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MNIST is not in"):
        load("mnist", Torchvision("MNIST"), tmp_path / "dtaa" / "mnist")
    (tmp_path / "kept").mkdir()
    with pytest.raises(InputError, match="MNIST is not in"):
        load("mnist", Torchvision("MNIST"), tmp_path / "kept")

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_root_that_another_run_removes_again_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire, removed = FileLock.acquire, list[str]()

    def removed_once(lock: FileLock) -> object:
        folder = Path(lock.lock_file).parent
        if not removed:
            removed.append(folder.name)
            folder.rmdir()
            raise FileNotFoundError
        return acquire(lock)

    monkeypatch.setattr(FileLock, "acquire", removed_once)
    with pytest.raises(InputError, match="MNIST is not in"):
        load("mnist", Torchvision("MNIST"), tmp_path / "dtaa")
    assert removed == ["dtaa"]
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_compressed_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"not gzip")

    with pytest.raises(InputError, match=r"^t10k-images-idx3-ubyte\.gz in .* is not what its checksum says.* delete"):
        Torchvision("MNIST").read(tmp_path, train=True)


def test_a_folder_that_cannot_be_written_is_an_error_that_says_to_copy_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torchvision.datasets.mnist.os, "makedirs", refuse)

    with pytest.raises(InputError, match="cannot be written, where MNIST would be unpacked: copy the folder"):
        Torchvision("MNIST").read(tmp_path, train=True)


def test_an_unknown_torchvision_data_set_is_an_error_that_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^data\.source\.dataset must be .* but got MINST; for another write a class"):
        Torchvision("MINST").read(tmp_path, train=True)


def test_a_torchvision_data_set_unlike_mnist_is_an_error_that_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.source\.dataset .* CIFAR10"):
        Torchvision("CIFAR10").read(tmp_path, train=True)


# Folder


def test_a_folder_of_grey_images_is_read_as_it_is(tmp_path: Path) -> None:
    pictures(tmp_path)
    arrays = Folder().read(tmp_path, train=True)
    expected = np.random.default_rng(arrays.labels[0]).integers(0, 256, (8, 6), dtype=np.uint8)

    assert arrays.classes == ["a", "b"]
    assert (arrays.images.shape, arrays.images.dtype, arrays.labels.dtype) == ((16, 1, 8, 6), np.uint8, np.int64)
    assert any((image[0] == expected).all() for image in arrays.images)


def test_a_folder_of_colour_images_keeps_its_channels_apart(tmp_path: Path) -> None:
    written = [picture(tmp_path / "train" / name / "0.png", seed, mode="RGB") for seed, name in enumerate("ab")]
    for name in "ab":
        picture(tmp_path / "test" / name / "0.png", mode="RGB")

    images = Folder("RGB").read(tmp_path, train=True).images

    assert images.shape == (2, 3, 8, 6)
    assert (images.transpose(0, 2, 3, 1) == written).all()


def test_folders_train_and_test_are_used_where_both_are_there(tmp_path: Path) -> None:
    pictures(tmp_path / "train", each=5)
    pictures(tmp_path / "test", each=3)

    counts = [np.bincount(Folder().read(tmp_path, train).labels).tolist() for train in (True, False)]

    assert counts == [[5, 5], [3, 3]]


def test_a_test_set_is_carved_from_a_folder_that_has_none(tmp_path: Path) -> None:
    pictures(tmp_path, each=10)

    train, test = (Folder(test_size=0.3).read(tmp_path, train) for train in (True, False))

    assert [np.bincount(half.labels).tolist() for half in (train, test)] == [[7, 7], [3, 3]]
    assert len(np.unique(np.concatenate([train.images, test.images]).reshape(20, -1), axis=0)) == 20


def test_images_of_any_format_and_mode_become_grey(tmp_path: Path) -> None:
    grey = picture(tmp_path / "train" / "a" / "0.png")
    for folder, name in (("train/a", "1.bmp"), ("train/a", "2.tif"), ("train/b", "0.webp")):
        picture(tmp_path / folder / name)
    Image.fromarray(grey).convert("RGB").save(tmp_path / "train" / "b" / "1.png")
    for name in "ab":
        picture(tmp_path / "test" / name / "0.png")

    images = Folder().read(tmp_path, train=True).images

    assert images.shape == (5, 1, 8, 6)
    assert all((images[i, 0] == grey).all() for i in (0, 1, 2, 4))


def test_image_size_is_height_then_width(tmp_path: Path) -> None:
    pictures(tmp_path, each=2, size=(20, 12))
    picture(tmp_path / "a" / "other.png", size=(7, 9))

    assert Folder(image_size=(10, 5)).read(tmp_path, train=True).images.shape[1:] == (1, 10, 5)


def test_images_of_mixed_sizes_are_an_error_that_names_two_and_the_option(tmp_path: Path) -> None:
    pictures(tmp_path, each=2)
    for i in range(4):
        picture(tmp_path / "b" / f"z{i}.png", size=(9, 6))

    with pytest.raises(InputError, match=r"has 6x8 and .*z\d\.png has 6x9 pixels: .*data\.source\.image_size="):
        Folder().read(tmp_path, train=True)


@pytest.mark.parametrize(("classes", "found"), [("a", r"1 \(a\)"), ("", r"0 \(no folders\)")])
def test_a_folder_with_fewer_than_two_classes_is_an_error(tmp_path: Path, classes: str, found: str) -> None:
    pictures(tmp_path, classes=classes)

    with pytest.raises(InputError, match=f"^data.root must hold .* at least 2 classes, but .* has {found}"):
        Folder().read(tmp_path, train=True)


def test_a_class_without_images_is_an_error_that_names_it(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "void").mkdir()

    with pytest.raises(InputError, match=r"must hold images: .*void"):
        Folder().read(tmp_path, train=True)


def test_a_class_missing_from_the_test_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    pictures(tmp_path / "train", classes="abc")
    pictures(tmp_path / "test", classes="ab")

    with pytest.raises(InputError, match=r"must have the same classes, but have \['a', 'b', 'c'\] and \['a', 'b'\]$"):
        Folder().read(tmp_path, train=False)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n"])
def test_an_unreadable_image_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    pictures(tmp_path / "train")
    pictures(tmp_path / "test")
    (tmp_path / "train" / "b" / "bad.png").write_bytes(content)

    with pytest.raises(InputError, match=r"b/bad\.png is not a readable image: .*: replace or delete it$"):
        Folder().read(tmp_path, train=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sources.py:201 leaves the file open
def test_a_truncated_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    pictures(tmp_path / "train", size=(32, 32))
    pictures(tmp_path / "test", size=(32, 32))
    path = tmp_path / "train" / "a" / "3.png"
    path.write_bytes(path.read_bytes()[:500])

    with pytest.raises(
        InputError, match=r"a/3\.png is not a readable image: image file is truncated.*: replace or delete it$"
    ):
        Folder().read(tmp_path, train=True)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mode": "CMYK"}, r"^data\.source\.mode must be L \(grey\) or RGB, but got CMYK"),
        ({"image_size": (8,)}, r"^data\.source\.image_size must be \[height, width\]"),
        ({"image_size": (0, 8)}, r"^data\.source\.image_size must be \[height, width\]"),
        ({"test_size": 0}, r"^data\.source\.test_size must be in \(0, 1\), but got 0"),
        ({"test_size": 1}, r"^data\.source\.test_size must be in \(0, 1\), but got 1"),
    ],
)
def test_a_folder_checks_its_settings(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Folder(**keywords)


def test_the_fingerprint_changes_when_a_file_is_added(tmp_path: Path) -> None:
    pictures(tmp_path)
    before = Folder().fingerprint(tmp_path)
    picture(tmp_path / "a" / "new.png")

    assert Folder().fingerprint(tmp_path) != before


def test_the_fingerprint_changes_when_a_file_is_removed(tmp_path: Path) -> None:
    pictures(tmp_path)
    before = Folder().fingerprint(tmp_path)
    (tmp_path / "a" / "0.png").unlink()

    assert Folder().fingerprint(tmp_path) != before


def test_the_fingerprint_changes_when_a_file_changes_and_keeps_its_size(tmp_path: Path) -> None:
    pictures(tmp_path)
    path = tmp_path / "a" / "0.png"
    before = Folder().fingerprint(tmp_path)
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))

    assert Folder().fingerprint(tmp_path) != before


@pytest.mark.parametrize("keywords", [{"mode": "RGB"}, {"image_size": (4, 4)}, {"test_size": 0.5}])
def test_the_fingerprint_changes_with_each_setting(tmp_path: Path, keywords: dict[str, object]) -> None:
    pictures(tmp_path, each=1)

    assert Folder(**keywords).fingerprint(tmp_path) != Folder().fingerprint(tmp_path)


def test_the_fingerprint_does_not_see_the_cache_beside_the_images(tmp_path: Path) -> None:
    pictures(tmp_path)
    before = Folder().fingerprint(tmp_path)
    loaded = load("folder", Folder(), tmp_path, val_size=4)

    assert loaded.num_test == 4
    assert Folder().fingerprint(tmp_path) == before


def test_an_image_added_to_a_folder_is_there_at_the_next_load(tmp_path: Path) -> None:
    pictures(tmp_path / "train")
    pictures(tmp_path / "test")
    assert len(load("folder", Folder(), tmp_path, val_size=4).train.labels) == 16
    picture(tmp_path / "train" / "a" / "new.png")

    assert len(load("folder", Folder(), tmp_path, val_size=4).train.labels) == 17


def test_a_misspelt_root_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root must "):
        load("folder", Folder(), tmp_path / "misspelt")

    assert not (tmp_path / "misspelt").exists()


def test_a_root_that_is_a_file_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match=r"data\.root"):
        load("folder", Folder(), tmp_path / "file")


def test_one_image_a_class_is_an_error_in_one_line(tmp_path: Path) -> None:
    pictures(tmp_path, each=1)

    with pytest.raises(InputError):
        Folder().read(tmp_path, train=True)


def test_a_rare_class_is_in_the_carved_test_set(tmp_path: Path) -> None:
    pictures(tmp_path, each=40, classes="a")
    pictures(tmp_path, each=2, classes="b")

    assert np.bincount(Folder().read(tmp_path, train=False).labels, minlength=2).min() >= 1


def test_images_of_16_bits_keep_their_greys(tmp_path: Path) -> None:
    for name in "ab":
        pixels = picture(tmp_path / "train" / name / "0.png")
        Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "train" / name / "0.png")
        picture(tmp_path / "test" / name / "0.png")

    assert (Folder().read(tmp_path, train=True).images[0, 0] == pixels).all()


def test_train_and_val_folders_without_test_are_not_taken_for_classes(tmp_path: Path) -> None:
    for name in ("train", "val"):
        (tmp_path / name / "a").mkdir(parents=True)

    with pytest.raises(InputError, match="must hold both train and test, or class folders, but has train, val"):
        Folder().read(tmp_path, train=True)
