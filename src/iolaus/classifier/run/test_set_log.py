"""How often a project has looked at test images: a line for each run that did, in a file that only grows."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from iolaus.errors import InputError

FILE = "test_looks.jsonl"


def record(root: Path, data: str, run: str, images: int) -> None:
    """Add a line.

    Args:
        root: Of the project.
        data: The name of the data set.
        run: What names the run: its folder.
        images: How many were looked at.

    Raises:
        InputError: if it cannot be written; then nothing should be looked at.
    """
    line = {"time": datetime.now().isoformat(timespec="seconds"), "data": data, "run": run, "images": images}
    try:
        with open(root / FILE, "ab+") as file:
            file.seek(max(0, file.tell() - 1))
            unfinished = file.read() not in (b"", b"\n")  # as a crash may leave it
            text = json.dumps(line)
            file.write(f"\n{text}\n".encode() if unfinished else f"{text}\n".encode())  # short: lines do not mix
    except OSError as error:
        raise InputError(
            f"a look at the test images cannot be recorded in {root / FILE} ({error.strerror}): make room, or choose "
            "another folder with root"
        ) from error


def looks(root: Path, data: str) -> Iterator[Mapping[str, Any]]:
    """The lines of a data set, oldest first; one that a crash has left unfinished is skipped."""
    path = root / FILE
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            look = json.loads(line)
        except ValueError:
            continue
        if look["data"] == data:
            yield look


def describe_looks(root: Path, data: str) -> str:
    """How often a project has looked at the test images of a data set, and when last."""
    known = list(looks(root, data))
    if not known:
        return f"No run of this project has looked at the test images of {data}."
    times = "once" if len(known) == 1 else f"{len(known)} times"
    return (
        f"This project has looked at the test images of {data} {times}, last at {known[-1]['time'].replace('T', ' ')}."
    )
