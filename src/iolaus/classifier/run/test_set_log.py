"""The log of all uses of test images in a project: a line for each run that read them, in a file that only grows."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from iolaus.errors import InputError

FILE = "test_looks.jsonl"


def record(root: Path, data: str, run: str, images: int) -> None:
    """Add a line for a run that reads test images.

    Args:
        root: The project's folder.
        data: The name of the data set.
        run: The run's folder.
        images: The number of images.

    Raises:
        InputError: if it cannot be written; then no test image must be read.
    """
    line = {"time": datetime.now().isoformat(timespec="seconds"), "data": data, "run": run, "images": images}
    try:
        with open(root / FILE, "ab+") as file:
            file.seek(max(0, file.tell() - 1))
            unfinished = file.read() not in (b"", b"\n")  # as after a crash
            text = json.dumps(line)
            file.write(f"\n{text}\n".encode() if unfinished else f"{text}\n".encode())  # short: lines do not mix
    except OSError as error:
        raise InputError(
            f"a look at the test images cannot be recorded in {root / FILE} ({error.strerror}): make room, or choose "
            "another folder with root"
        ) from error


def looks(root: Path, data: str) -> Iterator[Mapping[str, Any]]:
    """Yield the lines about a data set, oldest first; lines that a crash left incomplete are skipped."""
    path = root / FILE
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            look = json.loads(line)
        except ValueError:
            continue
        if look["data"] == data:
            yield look


def describe_looks(root: Path, data: str) -> str:
    """Return a sentence on how often, and when last, a project has looked at the test images of a data set."""
    known = list(looks(root, data))
    if not known:
        return f"No run of this project has looked at the test images of {data}."
    times = "once" if len(known) == 1 else f"{len(known)} times"
    return (
        f"This project has looked at the test images of {data} {times}, last at {known[-1]['time'].replace('T', ' ')}."
    )
