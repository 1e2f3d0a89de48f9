"""The journal: whatever is torn, locked or full, a study can be gone on with."""

import json
import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from sweeps import ROOT, App, check

from iolaus.errors import InputError
from iolaus.study.storage import JournalFile, absolute, open_storage


def entry(number: int) -> dict[str, Any]:
    return {
        "op_code": int(JournalOperation.CREATE_STUDY),
        "worker_id": "w",
        "study_name": f"s{number}",
        "directions": [1],
    }


def official(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with two logs."""
    path = tmp_path / "journal.log"
    JournalFile(path).append_logs([entry(0), entry(1)])
    return path


def test_a_last_line_torn_at_any_byte_is_not_read_and_cut_off_by_the_next_writer(path: Path) -> None:
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        journal = JournalFile(path)
        assert list(journal.read_logs(0)) == [entry(0)]
        journal.append_logs([entry(2)])
        assert list(journal.read_logs(1)) == [entry(2)]
        assert list(JournalFile(path).read_logs(0)) == [entry(0), entry(2)]
        assert [study.study_name for study in official(path).get_all_studies()] == ["s0", "s2"]


def test_a_torn_line_longer_than_a_block_is_cut_off(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" * 200_000)
    JournalFile(path).append_logs([entry(2)])
    assert path.read_bytes() == whole + json.dumps(entry(2), separators=(",", ":")).encode() + b"\n"


def test_a_journal_that_is_one_torn_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    path.write_bytes(b'{"op_code":')
    JournalFile(path).append_logs([entry(0)])
    assert list(JournalFile(path).read_logs(0)) == [entry(0)]


def test_either_backend_goes_on_with_a_study_of_the_other(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    for storage in (official(path), open_storage(str(path)), official(path), open_storage(str(path))):
        study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    trials = [optuna.load_study(study_name="s", storage=s).trials for s in (official(path), open_storage(str(path)))]
    assert len(trials[0]) == 8
    assert trials[0] == trials[1]


def test_a_lock_file_left_behind_keeps_nobody_out(path: Path) -> None:
    Path(f"{path}.flock").write_text("12345")
    JournalFile(path).append_logs([entry(2)])
    assert len(list(JournalFile(path).read_logs(0))) == 3


def test_the_lock_of_a_killed_process_is_released(path: Path) -> None:
    lock = f"{path}.flock"
    holder = f"import filelock; filelock.FileLock({lock!r}).acquire(); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        JournalFile(path).append_logs([entry(2)])
    assert len(list(JournalFile(path).read_logs(0))) == 3


def append_many(path: Path, writer: int) -> None:
    journal = JournalFile(path)
    for number in range(100):
        journal.append_logs([entry(1000 * writer + number)])


def test_processes_that_append_at_once_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(path, writer)) for writer in range(1, 5)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    names = {log["study_name"] for log in JournalFile(path).read_logs(2)}
    assert names == {f"s{1000 * writer + number}" for writer in range(1, 5) for number in range(100)}


def append_beyond_limit(path: Path, connection: Any) -> None:
    """Append to a journal that may not grow by more than 20 bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = JournalFile(path)
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
    try:
        journal.append_logs([entry(2)])
    except InputError as error:
        connection.send(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.append_logs([entry(3)])
    connection.send([log["study_name"] for log in journal.read_logs(0)])


def test_an_append_that_does_not_fit_leaves_the_journal_as_it_was(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=append_beyond_limit, args=(path, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == f"{path} cannot be written to (File too large): free space, and the same command continues"
    assert ours.recv() == ["s0", "s1", "s3"]
    process.join()


@pytest.mark.parametrize("line", ['{"op_code": 99, "worker_id": "w"}', "[1, 2]", "no JSON", '{"worker_id": "w"}'])
def test_a_line_of_another_version_is_named(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError, match=r"line 3 of .*journal\.log cannot be parsed as one that this version"):
        open_storage(str(path))


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"the study cannot be kept in .*file/journal\.log \(.*\): choose another folder"
    ):
        open_storage(str(tmp_path / "file" / "journal.log"))


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    program = (
        "import os, sys\n"
        "from iolaus.study.storage import open_storage\n"
        "if os.getuid() == 0: os.setuid(65534)\n"  # root may write anywhere
        "open_storage(sys.argv[1])"
    )
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):  # pytest lets nobody else look into these
        os.chmod(parent, 0o755)
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "journal.log")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert "InputError: the study cannot be kept in" in done.stderr
    assert "(Permission denied): choose another folder" in done.stderr


def test_a_database_of_another_version_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(storage=open_storage(url))
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("UPDATE version_info SET schema_version = 999")
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    connection.close()
    with pytest.raises(InputError, match=r"storage=sqlite:///.*s\.db cannot be used: .*no longer compatible") as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(InputError, match="lies in the memory of one process"):
        open_storage("sqlite:///:memory:")


def test_an_error_of_a_database_shows_no_password() -> None:
    with pytest.raises(InputError, match=r"storage=nosuch://host/db cannot be used") as caught:
        open_storage("nosuch://user:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_relative_storage_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///s.db") == f"sqlite:///{tmp_path}/s.db"
    assert absolute("s.log") == str(tmp_path / "s.log")
    assert absolute("postgresql://u@h/db") == "postgresql://u@h/db"


def test_a_sweep_on_a_full_disk_ends_with_one_line_and_goes_on_once_there_is_space(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run("hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1")
    size = Path(app.storage).stat().st_size
    limit = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 2000},) * 2);"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = app.command("hydra.sweeper.n_trials=20", "hydra.sweeper.n_jobs=1")
    done = subprocess.run(
        [command[0], "-c", limit, *command[1:]],
        cwd=app.folder,
        env=app.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "File too large" in errors[0]
    assert "Traceback" not in done.stderr
    before = app.trials()
    app.run("hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=1")
    check(app, 8, before)
