"""The sources of images: one small class for each kind of data set.

A source decodes files into uint8 arrays. It is read once; `cache.py` stores the arrays in a file. For a data set of
your own, write a class with the two methods of `Source` and name it as ``data.source._target_``.
"""

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from iolaus.errors import InputError, is_number, require
from iolaus.task import require_open_test


class Arrays(NamedTuple):
    """Decoded images with their labels."""

    images: np.ndarray
    """uint8, (N, C, H, W)."""
    labels: np.ndarray
    """int64, (N,), indices into `classes`."""
    classes: list[str]


class Source(Protocol):
    """The interface that `iolaus.classifier.data.dataset.load` reads from."""

    def fingerprint(self, root: Path) -> str:
        """Return a text that changes whenever the decoded images would; then they are decoded again."""
        ...

    def read(self, root: Path, train: bool) -> Arrays:
        """Decode the training or the test images in `root`; see `iolaus.task.require_open_test` for the latter."""
        ...


class Torchvision:
    """A data set of ``torchvision.datasets`` in MNIST's format, downloaded where it is missing.

    Args:
        dataset: The name of its class: ``MNIST``, ``FashionMNIST`` or ``KMNIST``.
    """

    def __init__(self, dataset: str) -> None:
        """Store the name; torchvision is imported only where the cache is missing, because that takes seconds."""
        self.dataset = dataset

    def fingerprint(self, root: Path) -> str:
        """Return the data set's name, since its files have fixed checksums."""
        return self.dataset

    def read(self, root: Path, train: bool) -> Arrays:
        """Download the files where they are missing, and decode them.

        Raises:
            InputError: if files are missing and cannot be downloaded, or are damaged, and for test images in a trial
                that is compared with others.
        """
        if not train:
            require_open_test()
        if self.dataset not in ("MNIST", "FashionMNIST", "KMNIST"):  # others differ in their files
            raise InputError(
                f"data.source.dataset must be one of MNIST, FashionMNIST, KMNIST, but got {self.dataset}; "
                "for another write a class with the methods of iolaus.classifier.data.sources.Source"
            )
        import torchvision

        make: Any = getattr(torchvision.datasets, self.dataset)
        folder = root / self.dataset / "raw"
        mirrors = ", ".join(make.mirrors)
        damaged = self._damaged(make, folder)
        try:
            decoded = make(root=str(root), train=train, download=True)
        except PermissionError as error:
            raise InputError(
                f"{folder} cannot be written, where {self.dataset} would be unpacked: copy the folder to one that can, "
                "and name that with data.root or IOLAUS_DATA"
            ) from error
        except Exception as error:  # torchvision raises RuntimeError, URLError, AssertionError, ... for bad files
            if damaged and not self._complete(make, folder):
                raise InputError(
                    f"{', '.join(damaged)} in {folder} is not what its checksum says, and a download in its place "
                    f"failed ({_brief(error)}): delete or replace it"
                ) from error
            if self._complete(make, folder):
                raise InputError(
                    f"the files in {folder} are damaged ({_brief(error)}): delete those without .gz and run again"
                ) from error
            raise InputError(
                f"{self.dataset} is not in {folder}, and downloading it from {mirrors} failed "
                f"({_brief(error)}): put its files there, name their folder with data.root or IOLAUS_DATA, "
                "or use data=digits, which needs no network"
            ) from error
        if changed := self._changed(make, folder):
            raise InputError(f"{', '.join(changed)} in {folder} differs from its .gz: delete it and run again")
        images = np.asarray(decoded.data)[:, None]  # (N, H, W) -> (N, 1, H, W)
        labels = np.asarray(decoded.targets, dtype=np.int64)
        if len(images) != len(labels):
            raise InputError(
                f"{folder} holds {len(images)} images, but {len(labels)} labels: delete those without .gz and run again"
            )
        if len(labels) and labels.max() >= len(decoded.classes):
            raise InputError(
                f"the labels in {folder} are damaged ({labels.max()} of {len(decoded.classes)} classes): "
                "delete those without .gz and run again"
            )
        # torchvision's MNIST calls its classes "0 - zero"
        return Arrays(images, labels, [name.split(" - ")[0] for name in decoded.classes])

    @staticmethod
    def _damaged(make: Any, folder: Path) -> list[str]:
        """Return the names of compressed files that torchvision would download again."""
        packed = [(folder / name, md5) for name, md5 in make.resources if (folder / name).is_file()]
        return [path.name for path, md5 in packed if not _has_md5(path, md5)]

    @staticmethod
    def _changed(make: Any, folder: Path) -> list[str]:
        """Return the names of extracted files that differ from their compressed originals, where these are intact."""
        packed = [folder / name for name, md5 in make.resources if _has_md5(folder / name, md5)]
        # a gzip file ends with the CRC-32 of its content and the content's length (RFC 1952, section 2.3.1)
        return [
            path.stem
            for path in packed
            if zlib.crc32(path.with_suffix("").read_bytes()) != int.from_bytes(path.read_bytes()[-8:-4], "little")
        ]

    @staticmethod
    def _complete(make: Any, folder: Path) -> bool:
        return all((folder / name.removesuffix(".gz")).is_file() for name, _ in make.resources)


def _has_md5(path: Path, md5: str) -> bool:
    return path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5


class Digits:
    """The 1,797 digits of 8x8 pixels bundled with scikit-learn, of which a fixed, stratified 360 are the test set."""

    def fingerprint(self, root: Path) -> str:
        """Return a constant, since the files come with scikit-learn."""
        return "digits-360"

    def read(self, root: Path, train: bool) -> Arrays:
        """Decode the images, whose 17 grey levels are scaled to 0..255.

        Raises:
            InputError: for test images in a trial that is compared with others.
        """
        if not train:
            require_open_test()
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        chosen = stratified(digits.target, 360) ^ train
        return Arrays(images[chosen], digits.target[chosen].astype(np.int64), [str(name) for name in range(10)])


class Folder:
    """Images in a folder per class: ``root/<class>/*.png`` or ``root/train/<class>/*`` with ``root/test/<class>/*``.

    Args:
        mode: ``L`` for grey, ``RGB`` for colour.
        image_size: Height and width in pixels to which every image is resized; None requires that all have the same.
        test_size: Fraction of the images used as test set where there is no ``root/test``, in (0, 1); at least one of
            each class.

    Raises:
        InputError: for a value out of range.
    """

    def __init__(self, mode: str = "L", image_size: tuple[int, int] | None = None, test_size: float = 0.2) -> None:
        """Check the arguments."""
        require(mode in ("L", "RGB"), "data.source.mode", "L (grey) or RGB", mode)
        sizes = image_size if isinstance(image_size, Sequence) else [image_size]
        two = len(sizes) == 2 and all(type(size) is int and size >= 1 for size in sizes)
        require(image_size is None or two, "data.source.image_size", "[height, width]", image_size)
        require(is_number(test_size) and 0 < test_size < 1, "data.source.test_size", "in (0, 1)", test_size)
        self.mode = mode
        self.image_size = tuple(image_size) if image_size else None
        self.test_size = test_size

    def fingerprint(self, root: Path) -> str:
        """Return a hash of the settings and of every file's name, size and time of change.

        Raises:
            InputError: if there is no such folder.
        """
        if not root.is_dir():
            raise InputError(f"data.root must be a folder with a folder of images for each class, but got {root}")
        lines = [f"{self.mode} {self.image_size} {self.test_size}"]
        for path in sorted(root.rglob("*")):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
                stat = path.stat()
                lines.append(f"{path.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def read(self, root: Path, train: bool) -> Arrays:
        """Decode every image of the training or test part.

        Raises:
            InputError: for fewer than two classes, an unreadable image, images of different sizes, and for test images
                in a trial that is compared with others.
        """
        if not train:
            require_open_test()
        divided = (root / "train").is_dir() and (root / "test").is_dir()
        classes = self._classes(root / "train" if divided else root)
        if divided and (other := self._classes(root / "test")) != classes:
            raise InputError(f"{root}/train and {root}/test must have the same classes, but have {classes} and {other}")
        paths, labels = self._files(root / ("train" if train else "test") if divided else root, classes)
        if not divided:
            chosen = self._test(labels, classes) ^ train
            paths, labels = [path for path, keep in zip(paths, chosen, strict=True) if keep], labels[chosen]
        return Arrays(self._decode(paths), labels, classes)

    def _test(self, labels: np.ndarray, classes: list[str]) -> np.ndarray:
        """Choose the images of the test set: a fraction of each class, at least one image and not all."""
        chosen = np.zeros(len(labels), dtype=bool)
        for label, name in enumerate(classes):
            of_class = np.flatnonzero(labels == label)
            if len(of_class) < 2:
                raise InputError(f"each class must have at least 2 images, but {name} has {len(of_class)}")
            count = min(max(round(self.test_size * len(of_class)), 1), len(of_class) - 1)
            chosen[of_class] = stratified(labels[of_class], count)
        return chosen

    @staticmethod
    def _classes(root: Path) -> list[str]:
        names = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        if set(names) <= {"train", "val", "valid", "validation", "test"} and names:
            raise InputError(
                f"{root} must hold both train and test, or class folders, but has {', '.join(names)}: "
                "images for validation are taken from train (data.val_size)"
            )
        if len(names) < 2:
            raise InputError(
                f"data.root must hold a folder of images for each of at least 2 classes, but {root} has "
                f"{len(names)} ({', '.join(names) or 'no folders'})"
            )
        return names

    @staticmethod
    def _files(root: Path, classes: list[str]) -> tuple[list[Path], np.ndarray]:
        from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

        try:
            samples = make_dataset(str(root), {name: i for i, name in enumerate(classes)}, IMG_EXTENSIONS)
        except FileNotFoundError as error:
            raise InputError(f"each class folder of {root} must hold images: {error}") from error
        return [Path(path) for path, _ in samples], np.array([label for _, label in samples], dtype=np.int64)

    def _decode(self, paths: list[Path]) -> np.ndarray:
        from PIL import Image

        from iolaus.classifier.data.photos import flattened, open_image

        arrays: list[np.ndarray] = []
        for path in paths:
            try:
                image = flattened(open_image(path)).convert(self.mode)
            except InputError as error:
                raise InputError(f"{error}: replace or delete it") from error
            if self.image_size:
                height, width = self.image_size
                image = image.resize((width, height), Image.Resampling.LANCZOS)
            array = np.asarray(image, dtype=np.uint8)
            if arrays and array.shape != arrays[0].shape:
                sizes = "{1}x{0}".format(*arrays[0].shape), "{1}x{0}".format(*array.shape)
                raise InputError(
                    f"all images must have one size, but {paths[0]} has {sizes[0]} and {path} has {sizes[1]} pixels: "
                    "resize them with 'data.source.image_size=[HEIGHT,WIDTH]'"
                )
            arrays.append(array)
        stacked = np.stack(arrays)
        return stacked[:, None] if self.mode == "L" else stacked.transpose(0, 3, 1, 2)  # -> (N, C, H, W)


def stratified(labels: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` samples, stratified by class; the same labels always give the same samples.

    The numbers per class are rounded by the method of largest remainders, so that their sum is exact.

    Args:
        labels: int, (N,).
        count: How many to choose, in 0..N.

    Returns:
        bool, (N,): True for the chosen.
    """
    generator = np.random.default_rng(0)  # its own generator: a run's seed must not move the split
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * (count / len(labels))
    shares = np.floor(exact).astype(int)
    for i in np.argsort(shares - exact, kind="stable")[: count - shares.sum()]:
        shares[i] += 1
    chosen = np.zeros(len(labels), dtype=bool)
    for name, share in zip(classes, shares, strict=True):
        chosen[generator.permutation(np.flatnonzero(labels == name))[:share]] = True
    return chosen


def _brief(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
