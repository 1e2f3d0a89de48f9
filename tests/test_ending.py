"""A program that is done ends at once, but not before what was registered for its end."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SLOW = """
import sys
from iolaus import ending
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


def run(code: str) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, "-c", SLOW + code], cwd=ROOT / "src", capture_output=True, text=True)
    assert done.stderr == "" or done.returncode == 1, done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("code", [0, 3])
def test_a_program_that_is_done_ends_at_once_with_its_code(code: int) -> None:
    assert run(f"ending.at_once({code})") == (code, ["registered"])


def test_a_program_that_fails_ends_as_usual() -> None:
    assert run("raise ValueError") == (1, ["registered", "taken apart"])


def test_what_a_log_file_and_stdout_still_hold_is_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"""
import logging
from logging.handlers import MemoryHandler
logging.getLogger().addHandler(MemoryHandler(100, target=logging.FileHandler({str(log)!r})))
logging.error("held")
print("no end of line", end="")
ending.at_once()
"""
    assert run(code) == (0, ["no end of lineregistered"])
    assert log.read_text() == "held\n"


def test_a_program_that_runs_one_within_itself_ends_as_usual(tmp_path: Path) -> None:
    (tmp_path / "within.py").write_text("from iolaus import ending\nending.at_once()\n")
    code = f"import runpy; runpy.run_path({str(tmp_path / 'within.py')!r}, run_name='__main__'); sys.exit(4)"
    assert run(code) == (4, ["registered", "taken apart"])
