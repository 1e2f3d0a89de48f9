"""The storage of studies: an append-only journal file, or a database by its URL."""

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend

from iolaus.errors import InputError, redact_urls
from iolaus.optuna_internals import journal_op_codes, sets_trial_state

BUSY_S = 60.0
"""Seconds that a SQLite session waits for the lock of another."""

OP_CODES = journal_op_codes()


class JournalFile(BaseJournalBackend):
    """A journal of JSON lines that survives ``kill -9`` and a full disk at any moment.

    The format is that of ``optuna.storages.journal.JournalFileBackend``, and either can read what the other wrote.
    The operating system releases the lock when its holder dies, and a line that a writer left unfinished is cut off by
    the next. Only a change of a trial's state is forced to the disk: the rest survives a killed process without that,
    and an append that waits for the disk takes ten times as long.

    Args:
        path: The file; it is made together with its folder if it does not exist.

    Raises:
        InputError: if the folder or the file cannot be written to, or another version of Optuna wrote the file.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal."""
        self._path = path
        # Not .lock, whose mere existence keeps the official backend out for 30 s.
        # Asked for again every millisecond: it is held for less than that unless the disk is waited for.
        self._lock = FileLock(f"{path}.flock", poll_interval=0.001)
        self._read, self._offset = 0, 0  # the number of logs that were read, and the byte at which they end
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, open(path, "ab"):
                pass
        except OSError as error:
            raise InputError(f"the study cannot be kept in {path} ({error.strerror}): choose another folder") from error

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the logs from this number on, without an unfinished last line."""
        if log_number_from < self._read:
            self._read, self._offset = 0, 0
        with self._lock, open(self._path, "rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")[:-1]
        for line in lines:
            try:
                log = json.loads(line)
                known = log["op_code"] in OP_CODES
            except (ValueError, TypeError, KeyError):
                known = False
            if not known:
                raise InputError(
                    f"line {self._read + 1} of {self._path} cannot be parsed as one that this version of Optuna writes "
                    f"({line[:60].decode(errors='replace')}): use the version that wrote it, or another study"
                )
            self._read += 1
            self._offset += len(line) + 1
            if self._read > log_number_from:
                yield log

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append all of these logs or, if the disk is full, none.

        Raises:
            InputError: if the disk is full.
        """
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._lock, open(self._path, "r+b", buffering=0) as file:  # a buffer would write again when it is closed
            end = _end_of_last_line(file)
            try:
                file.truncate(end)
                file.seek(end)
                written = 0
                while written < len(lines):
                    written += file.write(lines[written:])
                if any(map(sets_trial_state, logs)):
                    os.fsync(file.fileno())
            except OSError as error:
                os.truncate(self._path, end)
                raise InputError(
                    f"{self._path} cannot be written to ({error.strerror}): free space, and the same command continues"
                ) from error


def _end_of_last_line(file: Any) -> int:
    """Return the number of bytes up to and including the last finished line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return int(start + newline + 1)
        end = start
    return 0


def open_storage(storage: str) -> BaseStorage:
    """Open a storage that any number of processes can share.

    Args:
        storage: ``sqlite:///...``, ``postgresql://...`` or another URL of SQLAlchemy's, or the path of a journal.

    Raises:
        InputError: if it cannot be used.
    """
    if "://" not in storage:
        return JournalStorage(JournalFile(Path(storage)))
    if storage in ("sqlite://", "sqlite:///:memory:"):
        raise InputError(f"storage={storage} lies in the memory of one process: leave it out for a journal file")
    connect, path = {}, storage.partition(":///")[2]
    lock: AbstractContextManager[Any] = contextlib.nullcontext()
    if storage.startswith("sqlite"):
        connect = {"connect_args": {"timeout": BUSY_S}}
        lock = FileLock(f"{path}.flock")  # two processes must not make the tables at the same time
    try:
        with lock:
            return RDBStorage(storage, engine_kwargs={"pool_pre_ping": True, **connect})
    except Exception as error:  # of SQLAlchemy, of a driver, of Optuna's check of the version: no common class
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(f"storage={redact_urls(storage)} cannot be used: {reason}") from error


def absolute(storage: str) -> str:
    """Return the name of a storage in a form that holds in any working directory."""
    if "://" not in storage:
        return str(Path(storage).absolute())
    scheme, _, path = storage.partition(":///")
    if scheme.startswith("sqlite") and path and not path.startswith(("/", ":")):
        return f"{scheme}:///{Path(path).absolute()}"
    return storage
