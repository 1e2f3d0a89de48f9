"""What a process is set to before it trains."""

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from iolaus.system import process
{first}
step = lambda: [torch.ones(2**20) for _ in range(8)]
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_memory_is_kept_from_step_to_step() -> None:
    def faults(first: str, **environment: str) -> int:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        command = [sys.executable, "-c", STEPS.format(first=first)]
        path = os.pathsep.join(sys.path)
        return int(subprocess.check_output(command, env={**inherited, "PYTHONPATH": path, **environment}))

    keep = "process.keep_memory()"
    assert faults(keep) < 100 < faults("")
    assert faults(keep, MALLOC_TRIM_THRESHOLD_="131072") > 100  # what the environment asks for stands


SET = """
import gc, os
from iolaus.system import process
process.prepare({argv})
print(gc.isenabled(), os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("argv", "environment", "expected"),
    [
        (["train.py"], {}, "False 10000"),
        (["train.py", "-m"], {}, "True 10000"),
        (["train.py"], {"OMP_WAIT_POLICY": "active"}, "False None"),
        (["train.py"], {"GOMP_SPINCOUNT": "7"}, "False 7"),
    ],
)
def test_threads_spin_less_unless_the_environment_says_how_long(
    argv: list[str], environment: dict[str, str], expected: str
) -> None:
    inherited = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", SET.format(argv=argv)]
    path = os.pathsep.join(sys.path)
    assert (
        subprocess.check_output(command, env={**inherited, "PYTHONPATH": path, **environment}, text=True).split()
        == expected.split()
    )


PAUSED = """
import gc
from iolaus.system import process
process.pause_collection()
paused = gc.isenabled()
process.resume_collection()
frozen = gc.get_freeze_count()
process.resume_collection()
print(paused, gc.isenabled(), frozen > 0, gc.get_freeze_count() == frozen)
"""


def test_collection_resumes_without_what_was_there_before_which_is_set_aside_once() -> None:
    path = os.pathsep.join(sys.path)
    out = subprocess.check_output([sys.executable, "-c", PAUSED], env={**os.environ, "PYTHONPATH": path}, text=True)
    assert out.split() == ["False", "True", "True", "True"]
