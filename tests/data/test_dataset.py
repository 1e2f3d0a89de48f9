import errno
import io
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from torch import Tensor
from waiting import HANG_S

from iolaus.classifier.data import cache, dataset, sources
from iolaus.classifier.data.batches import BatchOrder
from iolaus.classifier.data.sources import Arrays
from iolaus.errors import InputError
from iolaus.task import set_current_trial

COUNT = 103


class Counted:
    """A source of random images that notes each reading; an image's number is in its first two pixels."""

    def __init__(self, count: int = COUNT, channels: int = 1, mark: str = "first") -> None:
        self.count, self.channels, self.mark = count, channels, mark
        self.readings: list[str] = []

    def fingerprint(self, root: Path) -> str:
        return self.mark

    def read(self, root: Path, train: bool) -> Arrays:
        self.readings.append("train" if train else "test")
        count = self.count if train else 17
        generator = np.random.default_rng([train, *self.mark.encode()])
        images = generator.integers(0, 256, (count, self.channels, 6, 5), dtype=np.uint8)
        images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count), 256)
        return Arrays(images, np.sort(generator.integers(0, 4, count)), ["a", "b", "c", "d"])


def numbers(images: Tensor) -> list[int]:
    """Which images of a `Counted` these are, uint8 or in [0, 1]."""
    pixels = images if images.dtype == torch.uint8 else (images * 255).round()
    return (pixels[:, 0, 0, 0].long() * 256 + pixels[:, 0, 0, 1].long()).tolist()


def small(root: Path, source: Counted | None = None, **keywords: object) -> dataset.Data:
    return dataset.load("small", source or Counted(), root, **{"batch_size": 10, "val_size": 20, **keywords})


def forget() -> None:
    """Let the next load read the files, as a new process would."""
    cache.read.cache_clear()
    dataset._split_once.cache_clear()


def cache_of(root: Path, half: str = "train") -> Path:
    (path,) = root.glob(f".small-{half}-*.npz")
    return path


# the cache


def test_the_source_is_read_once(tmp_path: Path) -> None:
    source = Counted()
    first = small(tmp_path, source)
    forget()
    again = small(tmp_path, source)

    assert source.readings == ["train"]
    assert torch.equal(again.train.images, first.train.images)
    assert again.classes == first.classes == ["a", "b", "c", "d"]


def test_the_test_split_is_not_read_before_it_is_asked_for(tmp_path: Path) -> None:
    source = Counted()
    loaded = small(tmp_path, source)
    before = source.readings.copy()

    assert len(loaded.test.labels) == 17
    assert (before, source.readings) == (["train"], ["train", "test"])


def test_the_cache_is_made_anew_when_the_fingerprint_changes(tmp_path: Path) -> None:
    first = small(tmp_path, Counted(mark="first"))
    second = small(tmp_path, Counted(mark="changed", count=90))

    assert (len(first.train.labels), len(second.train.labels)) == (83, 70)


def test_two_loads_in_a_process_share_their_memory(tmp_path: Path) -> None:
    assert small(tmp_path).train.images.data_ptr() == small(tmp_path).train.images.data_ptr()


def test_two_loads_at_once_decode_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Counted()
    read, lock, asked = source.read, cache.FileLock, threading.Semaphore(0)

    def ask_for_lock(path: Path) -> cache.FileLock:
        asked.release()
        return lock(path)

    def read_once_both_have_asked(root: Path, train: bool) -> Arrays:
        for _ in range(2):
            assert asked.acquire(timeout=HANG_S)
        asked.release(2)  # for a second reading, which there should not be
        return read(root, train)

    monkeypatch.setattr(cache, "FileLock", ask_for_lock)
    monkeypatch.setattr(source, "read", read_once_both_have_asked)
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda _: len(small(tmp_path, source).train.labels), range(2)))

    assert (counts, source.readings) == ([83, 83], ["train"])


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def bit_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[1000] ^= 1  # among the pixels
    path.write_bytes(content)


def altered(path: Path) -> None:
    """Change a pixel and write a file that is sound as such."""
    with np.load(path) as cache:
        arrays = dict(cache)
    arrays["images"][5, 0, 3, 3] ^= 1
    np.savez(path, **arrays)


def incomplete(path: Path) -> None:
    with np.load(path) as cache:
        arrays = {name: array for name, array in cache.items() if name != "sha256"}
    np.savez(path, **arrays)


def pickled(path: Path) -> None:
    np.savez(path, fingerprint=np.array([{"an": "object"}], dtype=object))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [truncated, bit_flipped, altered, incomplete, pickled, emptied])
def test_a_damaged_cache_is_an_error_that_says_to_delete_it(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    small(tmp_path)
    harm(cache_of(tmp_path))
    forget()

    with pytest.raises(InputError, match=rf"^{re.escape(str(cache_of(tmp_path)))} is damaged \(.+\): delete it"):
        small(tmp_path)


@pytest.mark.parametrize("harm", [truncated, bit_flipped, altered])
def test_a_damaged_test_cache_is_an_error_that_says_to_delete_it(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    loaded = small(tmp_path)
    assert loaded.num_test == 17
    harm(cache_of(tmp_path, "test"))
    forget()

    with pytest.raises(InputError, match=r"small-test-\w+\.npz is damaged \(.+\): delete it"):
        _ = loaded.test


def test_a_damaged_cache_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    digest = small(tmp_path).digest
    bit_flipped(cache_of(tmp_path))
    cache_of(tmp_path).unlink()

    assert small(tmp_path).digest == digest


def test_a_root_holds_its_caches_and_locks_and_nothing_else(tmp_path: Path) -> None:
    assert small(tmp_path).num_test == 17

    caches = {path for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert caches == {cache_of(tmp_path), cache_of(tmp_path, "test")}


def test_two_ways_to_decode_do_not_take_each_others_images(tmp_path: Path) -> None:
    one, other = Counted(mark="one"), Counted(mark="other")
    first, second = small(tmp_path, one), small(tmp_path, other)

    assert first.digest != second.digest
    assert not torch.equal(first.test.images, second.test.images)
    assert torch.equal(small(tmp_path, one).train.images, first.train.images)
    assert (one.readings, other.readings) == (["train", "test"], ["train", "test"])


def test_only_the_newest_caches_are_kept(tmp_path: Path) -> None:
    for version in range(cache.KEPT + 3):
        small(tmp_path, Counted(mark=str(version)))

    assert len(list(tmp_path.glob(".small-train-*.npz"))) == cache.KEPT


def test_a_cache_can_be_read_by_others(tmp_path: Path) -> None:
    small(tmp_path)
    umask = os.umask(0)
    os.umask(umask)

    assert stat.S_IMODE(cache_of(tmp_path).stat().st_mode) == 0o666 & ~umask


def disk_full(file: io.BufferedIOBase, **arrays: np.ndarray) -> None:
    file.write(b"a beginning")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_writing_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache.np, "savez", disk_full)

    with pytest.raises(OSError, match="No space left"):
        small(tmp_path)

    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_failed_writing_leaves_the_old_cache_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path)
    before = cache_of(tmp_path).read_bytes()
    monkeypatch.setattr(cache.np, "savez", disk_full)

    with pytest.raises(OSError, match="No space left"):
        small(tmp_path, Counted(mark="changed"))

    assert cache_of(tmp_path).read_bytes() == before


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **keywords: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(cache, "atomic_write", refuse)

    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\): choose another .* data\.root"):
        small(tmp_path)


def test_the_root_folder_is_made(tmp_path: Path) -> None:
    assert small(tmp_path / "a" / "b").root == tmp_path / "a" / "b"
    assert cache_of(tmp_path / "a" / "b").is_file()


def test_the_digest_tells_data_sets_apart(tmp_path: Path) -> None:
    digests = {small(tmp_path / mark, Counted(mark=mark)).digest for mark in ("one", "another", "a third")}

    assert len(digests) == 3


# the splits


def test_train_and_val_share_no_image_and_lose_none(tmp_path: Path) -> None:
    loaded = small(tmp_path)

    assert sorted(numbers(loaded.train.images) + numbers(loaded.val.images)) == list(range(COUNT))
    assert len(loaded.val.labels) == 20


def test_images_keep_their_labels(tmp_path: Path) -> None:
    source = Counted()
    labels = source.read(tmp_path, True).labels
    loaded = small(tmp_path, source)

    for split in (loaded.train, loaded.val):
        assert split.labels.tolist() == labels[numbers(split.images)].tolist()


def test_the_val_split_does_not_depend_on_the_seed(tmp_path: Path) -> None:
    chosen = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        forget()
        chosen.append(numbers(small(tmp_path).val.images))

    assert chosen[0] == chosen[1]


def test_the_val_split_is_in_proportion(digits: dataset.Data) -> None:
    train, val = (torch.bincount(split.labels, minlength=10) for split in (digits.train, digits.val))

    assert (val - (train + val) * 300 / 1437).abs().max() < 1


def test_a_val_size_below_one_is_a_share(tmp_path: Path) -> None:
    assert len(small(tmp_path, val_size=0.25).val.labels) == 26  # of 103


@pytest.mark.parametrize("val_size", [1, COUNT - 1])
def test_the_bounds_of_val_size_are_allowed(tmp_path: Path, val_size: int) -> None:
    assert len(small(tmp_path, val_size=val_size).val.labels) == val_size


@pytest.mark.parametrize("val_size", [0, -1, COUNT, 60000, 1.5, 1e-9, 0.9999])
def test_a_val_size_out_of_range_is_an_error_with_the_rule_and_the_value(tmp_path: Path, val_size: float) -> None:
    with pytest.raises(InputError, match=rf"^data\.val_size must be in 1\.\.102, but got {re.escape(str(val_size))}$"):
        small(tmp_path, val_size=val_size)


@pytest.mark.parametrize("batch_size", [0, -5])
def test_a_batch_size_below_one_is_an_error(tmp_path: Path, batch_size: int) -> None:
    with pytest.raises(InputError, match=rf"^data\.batch_size must be at least 1, but got {batch_size}$"):
        small(tmp_path, batch_size=batch_size)


def test_a_locked_test_set_raises_with_the_reason(tmp_path: Path) -> None:
    loaded = small(tmp_path)
    loaded.lock_test("a sweep must not look")

    with pytest.raises(InputError, match=r"^the test set is locked: a sweep must not look$"):
        _ = loaded.test


def test_a_locked_test_set_gives_no_loader(tmp_path: Path) -> None:
    loaded = small(tmp_path)
    loaded.lock_test("a sweep must not look")

    with pytest.raises(InputError, match="locked"):
        loaded.loader("test")


def test_test_images_can_be_counted_though_they_are_locked(tmp_path: Path) -> None:
    loaded = small(tmp_path)
    loaded.lock_test("a sweep must not look")

    assert loaded.num_test == 17


def test_locking_one_data_set_leaves_another_of_the_same_files_open(tmp_path: Path) -> None:
    small(tmp_path).lock_test("a sweep must not look")

    assert len(small(tmp_path).test.labels) == 17


def test_shape_and_class_count_come_from_the_images(tmp_path: Path) -> None:
    loaded = small(tmp_path, Counted(channels=3))

    assert (loaded.input_shape, loaded.num_classes) == ((3, 6, 5), 4)


# normalisation


def test_statistics_are_those_of_numpy_for_each_channel() -> None:
    images = torch.randint(0, 256, (7, 3, 4, 5), dtype=torch.uint8)
    pixels = images.numpy() / 255

    mean, std = dataset.statistics(images)

    assert mean == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3)), abs=1e-12)


def test_a_constant_channel_is_not_divided_by_zero() -> None:
    images = torch.full((5, 1, 3, 3), 77, dtype=torch.uint8)

    assert dataset.statistics(images) == ([77 / 255], [1.0])


def test_the_statistics_are_of_the_training_split_alone(tmp_path: Path) -> None:
    loaded = small(tmp_path)

    means = [(split.images.double() / 255).mean().item() for split in (loaded.train, loaded.val)]

    assert loaded.mean == [pytest.approx(means[0], abs=1e-9)]
    assert loaded.mean != [pytest.approx(means[1], abs=1e-4)]


def test_normalised_training_pixels_have_mean_0_and_std_1_in_each_channel(tmp_path: Path) -> None:
    images = torch.cat([images for images, _ in small(tmp_path, Counted(channels=3)).loader("train")])

    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert images.std((0, 2, 3), correction=0).tolist() == pytest.approx([1, 1, 1], abs=1e-5)


def test_without_normalisation_pixels_stay_in_0_to_1(tmp_path: Path) -> None:
    loaded = small(tmp_path, normalize=False)
    images = torch.cat([images for images, _ in loaded.loader("train")])

    assert (images.min(), images.max()) == (0, 1)
    assert (loaded.mean, loaded.std) == ([0.0], [1.0])


def test_batches_are_float_images_and_whole_number_labels(tmp_path: Path) -> None:
    images, labels = next(iter(small(tmp_path).loader("train")))

    assert (images.shape, images.dtype) == ((10, 1, 6, 5), torch.float32)
    assert (labels.shape, labels.dtype) == ((10,), torch.int64)


def test_an_epoch_serves_each_image_once_though_the_last_batch_is_smaller(tmp_path: Path) -> None:
    loaded = small(tmp_path, normalize=False)
    batches = [images for images, _ in loaded.loader("train")]

    assert [len(images) for images in batches] == [10] * 8 + [3]
    assert sorted(numbers(torch.cat(batches))) == sorted(numbers(loaded.train.images))


def test_the_loader_knows_its_number_of_batches(tmp_path: Path) -> None:
    assert len(small(tmp_path).loader("train")) == 9


def test_shuffled_images_keep_their_labels(tmp_path: Path) -> None:
    loaded = small(tmp_path, normalize=False)
    expected = dict(zip(numbers(loaded.train.images), loaded.train.labels.tolist(), strict=True))

    for images, labels in loaded.loader("train"):
        assert [expected[number] for number in numbers(images)] == labels.tolist()


def epoch(loaded: dataset.Data, split: str = "train") -> list[int]:
    return [number for images, _ in loaded.loader(split) for number in numbers(images)]


def test_the_training_order_is_decided_by_torchs_seed(tmp_path: Path) -> None:
    loaded = small(tmp_path, normalize=False)
    orders = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        orders.append(epoch(loaded))

    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_each_epoch_has_an_order_of_its_own(tmp_path: Path) -> None:
    loaded = small(tmp_path, normalize=False)

    assert epoch(loaded) != epoch(loaded)


@pytest.mark.parametrize("split", ["val", "test"])
def test_val_and_test_keep_the_order_on_disk(tmp_path: Path, split: str) -> None:
    loaded = small(tmp_path, normalize=False)

    assert epoch(loaded, split) == numbers(getattr(loaded, split).images)


def test_evaluation_is_in_large_batches(tmp_path: Path) -> None:
    loaded = small(tmp_path, Counted(count=1500), val_size=1203)

    assert [len(labels) for _, labels in loaded.loader("val")] == [1000, 203]


def test_augmentation_is_given_whole_batches_of_pixels_before_normalisation(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def blacken(images: Tensor) -> Tensor:
        seen.append(images.clone())
        return torch.zeros_like(images)

    loaded = small(tmp_path)
    images, _ = next(iter(loaded.loader("train", augment=blacken)))

    assert (seen[0].min() >= 0, seen[0].max() <= 1, seen[0].shape) == (True, True, (10, 1, 6, 5))
    torch.testing.assert_close(images, torch.full_like(images, -loaded.mean[0] / loaded.std[0]))


def test_an_epoch_leaves_the_images_in_memory_as_they_were(tmp_path: Path) -> None:
    loaded = small(tmp_path)
    before = loaded.train.images.clone()
    for _ in loaded.loader("train", augment=lambda images: images.zero_()):
        pass

    assert torch.equal(loaded.train.images, before)


@pytest.mark.parametrize(
    ("size", "batch_size", "lengths"),
    [(10, 5, [5, 5]), (12, 5, [5, 5, 2]), (11, 5, [5, 6]), (3, 1, [1, 1, 1]), (1, 5, [1]), (6, 5, [6]), (3, 2, [3])],
)
def test_a_sample_that_would_be_a_batch_alone_joins_the_one_before(
    size: int, batch_size: int, lengths: list[int]
) -> None:
    order = BatchOrder(size, batch_size, shuffle=True)
    batches = list(order)
    assert [len(batch) for batch in batches] == lengths
    assert len(order) == len(lengths)
    assert sorted(torch.cat(batches).tolist()) == list(range(size))


def test_a_batch_order_needs_a_batch_size_of_one_or_more() -> None:
    with pytest.raises(InputError, match="batch_size must be at least 1, but got 0"):
        BatchOrder(10, 0, shuffle=False)


# real MNIST


@pytest.mark.mnist
def test_mnist_is_complete_and_its_statistics_are_the_known_ones(mnist: dataset.Data) -> None:
    assert [len(split.labels) for split in (mnist.train, mnist.val, mnist.test)] == [55000, 5000, 10000]
    assert (mnist.input_shape, mnist.classes) == ((1, 28, 28), [str(digit) for digit in range(10)])
    assert (mnist.mean, mnist.std) == (pytest.approx([0.1307], abs=3e-4), pytest.approx([0.3081], abs=3e-4))


@pytest.mark.parametrize("val_size", [float("nan"), float("inf")])
def test_a_val_size_that_is_no_number_is_an_error_with_the_rule(tmp_path: Path, val_size: float) -> None:
    with pytest.raises(InputError, match=r"^data\.val_size must be in 1\.\.102, but got (nan|inf)$"):
        small(tmp_path, val_size=val_size)


def test_counting_a_damaged_test_cache_is_an_error_that_says_to_delete_it(tmp_path: Path) -> None:
    loaded = small(tmp_path)
    assert loaded.num_test == 17
    path = cache_of(tmp_path, "test")
    content = bytearray(path.read_bytes())
    content[content.index(b"labels.npy") + 200] ^= 1  # behind the header of the labels
    path.write_bytes(content)

    with pytest.raises(InputError, match="delete it"):
        _ = loaded.num_test


def test_a_root_that_is_a_file_is_an_error_that_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match=r"data\.root"):
        small(tmp_path / "file")


@pytest.mark.parametrize("digit_box", [0, -1, 7])
def test_a_digit_box_that_does_not_fit_the_image_is_an_error(tmp_path: Path, digit_box: int) -> None:
    with pytest.raises(InputError, match=r"data\.digit_box must be"):
        small(tmp_path, digit_box=digit_box)


@pytest.fixture
def trial() -> Iterator[Callable[..., None]]:
    """Let the process be at work on a trial."""
    study = optuna.create_study()
    yield lambda **how: set_current_trial(study.ask(), **how)
    set_current_trial(None)


def test_in_a_trial_no_data_set_gives_test_images_whoever_asks(tmp_path: Path, trial: Callable[..., None]) -> None:
    opened = small(tmp_path)
    assert len(opened.test.labels) == 17
    trial()
    for loaded in (opened, small(tmp_path)):  # one that was there before, and one that a user's model may load itself
        with pytest.raises(InputError, match=r"^the test set is locked: the trials of a search are compared on val"):
            _ = loaded.test
        with pytest.raises(InputError, match="locked"):
            loaded.loader("test")
    with pytest.raises(InputError, match="locked"):
        cache.locate("small", Counted(), tmp_path, train=False)
    with pytest.raises(InputError, match="locked"):
        sources.Digits().read(tmp_path, train=False)
    assert len(sources.Digits().read(tmp_path, train=True).labels) == 1437
    with pytest.raises(InputError, match="locked"):
        _ = small(tmp_path).num_test


def test_in_the_last_runs_of_a_winner_test_is_open(tmp_path: Path, trial: Callable[..., None]) -> None:
    trial(final=True)
    assert len(small(tmp_path).test.labels) == 17


def test_a_look_at_test_is_told_once_and_before_it_is_given(tmp_path: Path) -> None:
    loaded, told = small(tmp_path), []
    loaded.on_test_read = told.append
    loaded.loader("test")
    _ = loaded.test
    assert told == [17]

    def refuse(count: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    fresh = small(tmp_path)
    fresh.on_test_read = refuse
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            _ = fresh.test


def test_joined_with_val_train_has_every_image_once(tmp_path: Path) -> None:
    loaded = small(tmp_path)
    loaded.join_val()
    assert sorted(numbers(loaded.train.images)) == list(range(COUNT))
    assert len(loaded.train.labels) == COUNT
    assert len(loaded.val.labels) == 20
