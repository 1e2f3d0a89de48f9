"""A cache of decoded images: a file with a checksum beside the original files.

To import torchvision alone takes seconds, and to decode images more; this is done once, not in each run.
"""

import contextlib
import functools
import hashlib
import logging
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from iolaus.classifier.data.sources import Arrays, Source
from iolaus.errors import InputError
from iolaus.system.files import atomic_write
from iolaus.task import require_open_test

log = logging.getLogger(__name__)
KEPT = 8  # caches of one half: a folder that changes, or is decoded in several ways, has one for each state


class Decoded(NamedTuple):
    """The content of a cache."""

    images: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,)
    classes: list[str]
    digest: str  # SHA-256 of images and labels


def locate(name: str, source: Source, root: Path, train: bool) -> tuple[Path, int, int]:
    """Find the cache of the training or the test half; make it where it is missing or out of date.

    Args:
        name: The data set's name, with which the file's name begins.
        source: Where the images come from.
        root: The folder of the data set's files, which is made where it is missing.
        train: The half: True for training, False for test.

    Returns:
        The cache's path, its time of change in nanoseconds, and its size in bytes: the arguments of `read`.

    Raises:
        InputError: for the test half in a trial that is compared with others, and for a folder that cannot be used.
    """
    if not train:
        require_open_test()
    fingerprint = source.fingerprint(root)
    # in the name, too, so that runs that decode differently at the same time do not use each other's images
    stem = f".{name}-{'train' if train else 'test'}-"
    path = root / f"{stem}{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}.npz"
    if not _up_to_date(path, fingerprint):
        new: list[Path] = []
        try:
            with _lock(root, name, new):  # two runs that start at once decode once
                if not _up_to_date(path, fingerprint):
                    log.info("decoding the %s images of %s into %s", "training" if train else "test", name, path)
                    _write(path, source.read(root, train), fingerprint)
                    for old in sorted(root.glob(f"{stem}*.npz"), key=lambda cache: cache.stat().st_mtime)[:-KEPT]:
                        old.unlink()
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"data.root must be a folder, but {root} is a file") from error
        except InputError:
            if new:  # the folder's name may be misspelt
                _remove_empty(root, new)
            raise
        except PermissionError as error:
            raise InputError(
                f"{root} cannot be written ({error.strerror}): choose another folder with data.root"
            ) from error
    stat = path.stat()
    return path, stat.st_mtime_ns, stat.st_size


def _lock(root: Path, name: str, new: list[Path]) -> contextlib.AbstractContextManager[object]:
    """Lock a folder, which is made where it is missing; the folders that had to be made are added to `new`."""
    while True:
        new += [folder for folder in (root, *root.parents) if not folder.exists()]
        root.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another run had made the folder, and has just removed it
            return FileLock(root / f".{name}.lock").acquire()


def _remove_empty(root: Path, made: Iterable[Path]) -> None:
    """Remove folders that were made in vain, and the locks in them; a folder that holds a file stays."""
    within = sorted((found for found in root.rglob("*") if found.is_dir()), reverse=True)
    with contextlib.suppress(OSError):
        for lock in root.glob(".*.lock"):
            lock.unlink()
        for folder in (*within, *made):
            folder.rmdir()


def _up_to_date(path: Path, fingerprint: str) -> bool:
    if not path.is_file():
        return False
    with damage_reported(path), open(path, "rb") as file, np.load(file, allow_pickle=False) as cache:
        return str(cache["fingerprint"]) == fingerprint


def _write(path: Path, arrays: Arrays, fingerprint: str) -> None:
    images, labels = np.ascontiguousarray(arrays.images), np.ascontiguousarray(arrays.labels)
    with atomic_write(path) as file:
        np.savez(
            file,
            images=images,
            labels=labels,
            classes=np.array(arrays.classes),
            fingerprint=np.array(fingerprint),
            sha256=np.array(_sha256(images, labels)),
        )


@functools.lru_cache(maxsize=2)
def read(path: Path, changed_ns: int, size: int) -> Decoded:
    """Read a cache and verify its checksum; until the file changes, a sweep's trials share one copy in memory.

    Args:
        path: The file.
        changed_ns: Its time of change, in nanoseconds.
        size: Its size, in bytes.

    Raises:
        InputError: for a damaged file.
    """
    with damage_reported(path), open(path, "rb") as file, np.load(file, allow_pickle=False) as cache:
        images, labels = cache["images"], cache["labels"]
        digest = _sha256(images, labels)
        if str(cache["sha256"]) != digest:
            raise ValueError("its checksum differs")
        classes = [str(name) for name in cache["classes"]]
    return Decoded(torch.from_numpy(images), torch.from_numpy(labels), classes, digest)


@contextlib.contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn the errors that numpy and zipfile raise for a damaged file into one clear `InputError`."""
    try:
        yield
    except PermissionError as error:
        raise InputError(
            f"no permission to read {path}: ask its owner, or choose another folder with data.root"
        ) from error
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged ({error}): delete it, and it is made again from the original files"
        ) from error


def _sha256(images: np.ndarray, labels: np.ndarray) -> str:
    digest = hashlib.sha256(images.data)
    digest.update(labels.data)
    return digest.hexdigest()
