"""A program that is done ends at once, but not before what was registered for its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SLOW = """
import sys
from iolaus.system import exit
import atexit

class Slow:  # is only taken apart by a Python that comes to its end as usual
    def __init__(self):
        self.itself, self.out = self, sys.stdout.buffer
    def __del__(self):
        self.out.write(b"taken apart\\n")
        self.out.flush()

slow = Slow()
atexit.register(print, "registered")
"""


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(code: str) -> tuple[int, list[str]]:
    command = [sys.executable, "-c", SLOW + code]
    done = subprocess.run(command, cwd=ROOT / "src", env=BUFFERED, capture_output=True, text=True)
    assert done.stderr == "" or done.returncode == 1, done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("code", [0, 3])
def test_a_program_that_is_done_ends_at_once_with_its_code(code: int) -> None:
    assert run(f"exit.skip_teardown({code})") == (code, ["registered"])


def test_a_program_that_fails_ends_as_usual() -> None:
    assert run("raise ValueError") == (1, ["registered", "taken apart"])


def test_what_files_still_hold_is_written(tmp_path: Path) -> None:
    log, unclosed = tmp_path / "log", tmp_path / "unclosed"
    code = f"""
import ctypes, gc, logging
from logging.handlers import MemoryHandler
logging.getLogger().addHandler(MemoryHandler(100, target=logging.FileHandler({str(log)!r})))
logging.warning("held")
print("no end of line", end="")
unclosed = open({str(unclosed)!r}, "w")
unclosed.write("text")
gc.freeze()
exit.skip_teardown()
"""
    assert run(code) == (0, ["no end of lineregistered"])
    assert log.read_text() == "held\n"
    assert unclosed.read_text() == "text"


def test_what_c_still_holds_is_written() -> None:
    code, out = run("import ctypes; ctypes.CDLL(None).printf(b'from C\\n'); exit.skip_teardown()")
    assert (code, sorted(out)) == (0, ["from C", "registered"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_full_disk_is_not_passed_over() -> None:
    command = [sys.executable, "-c", "from iolaus.system import exit; print('lost'); exit.skip_teardown()"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT / "src", env=BUFFERED, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 120
    assert "No space left on device" in done.stderr


def test_a_program_that_runs_one_within_itself_ends_as_usual(tmp_path: Path) -> None:
    (tmp_path / "within.py").write_text("from iolaus.system import exit\nexit.skip_teardown()\n")
    code = f"import runpy; runpy.run_path({str(tmp_path / 'within.py')!r}, run_name='__main__'); sys.exit(4)"
    assert run(code) == (4, ["registered", "taken apart"])
