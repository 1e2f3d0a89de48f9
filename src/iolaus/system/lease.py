"""Leases: the note of a process that it runs a trial, and the test whether that process still lives."""

import functools
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

LEASE_S = 120.0
"""Seconds for which a lease holds where its process cannot be looked for: on another host, say."""


def lease() -> dict[str, Any]:
    """Return a lease of this process from now on, in JSON's types."""
    pid = os.getpid()
    return {"host": _host(), "pid": pid, "started": _started(pid), "expires": time.time() + LEASE_S}


def holds(lease: dict[str, Any]) -> bool:
    """Return whether the process that took a lease can still finish what it took it for.

    On the same host it can as long as it exists, however long ago the lease was renewed: a computer may have been
    asleep. Elsewhere the lease must not have expired.
    """
    if lease["host"] == _host() and lease["started"] is not None:
        return bool(_started(lease["pid"]) == lease["started"])
    return bool(time.time() < lease["expires"])


@functools.cache
def _host() -> str:
    """Return a name within which process numbers are unique: it differs between containers, and after a reboot."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # not Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def _started(pid: int) -> int | None:
    """Return the time at which a process started, in clock ticks since boot; None if it is gone or not on Linux."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return None if state in "ZX" else int(fields[18])  # a zombie finishes nothing
