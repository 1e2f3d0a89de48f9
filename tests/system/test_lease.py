"""A lease holds as long as its process can finish what it took it for."""

import json
import os
import signal
import subprocess
import sys

import pytest

from iolaus.system import lease as module
from iolaus.system.lease import holds, lease

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere only the expiry is known")


def test_the_lease_of_a_living_process_holds_however_old_it_is() -> None:
    assert holds({**lease(), "expires": 0.0})


def test_the_lease_of_a_killed_process_does_not_hold_even_before_it_was_waited_for() -> None:
    program = "import json; from iolaus.system.lease import lease; print(json.dumps(lease()), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        theirs = json.loads(process.stdout.readline())
        assert holds(theirs)
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from now on
        assert not holds(theirs)
    assert not holds(theirs)


def test_a_new_process_with_the_same_number_is_another() -> None:
    ours = lease()
    assert not holds({**ours, "started": ours["started"] - 1})


def test_on_another_host_a_lease_holds_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {**lease(), "host": "elsewhere"}
    assert holds(theirs)
    monkeypatch.setattr(module.time, "time", lambda: theirs["expires"] + 1)
    assert not holds(theirs)


def test_without_the_start_of_its_process_a_lease_holds_until_it_expires() -> None:
    assert holds({**lease(), "started": None})
    assert not holds({**lease(), "started": None, "expires": 0.0})
