"""Settings of a process that trains: its garbage collection, its threads and its memory. None changes a result."""

import gc
import os
from collections.abc import Sequence

TUNES_MALLOC = {
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TOP_PAD_",
    "GLIBC_TUNABLES",
}
"""Environment variables by which a user tunes glibc's malloc."""


def prepare(argv: Sequence[str]) -> None:
    """Set what must stand before a configuration is composed and PyTorch is imported.

    Args:
        argv: The command line. With ``-m`` the process may live long, so that its garbage is collected.
    """
    if not {"-m", "--multirun"} & set(argv):
        gc.disable()  # composing leaves no garbage, and looking for it is a twentieth of --help
    if "OMP_WAIT_POLICY" not in os.environ:
        # PyTorch's threads spin while they wait for each other, by default so long that another training beside this
        # one makes both seventy times slower; a thirtieth of that is as fast alone (benchmarks/workers.py)
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def pause_collection() -> None:
    """Stop garbage collection until `resume_collection`.

    None of what is made until the first batch is garbage, and to look for it would be a fifth of the imports.
    """
    gc.disable()


def resume_collection() -> None:
    """Collect garbage again, but only what is made from now on."""
    if gc.get_freeze_count() == 0:  # once in a process: a second run's would keep what the first has left in cycles
        gc.freeze()  # else each of the next collections would go through all that was imported, for 0.3 s
    gc.enable()


def keep_memory() -> None:
    """Have glibc keep freed memory for the next step, instead of returning it to the system and asking for it again.

    Each fresh page costs a fault: docs/performance.md. Where the environment tunes malloc itself, and with other C
    libraries, nothing is changed.
    """
    import ctypes  # the start need not wait for it

    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and not TUNES_MALLOC & set(os.environ):
        libc.mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD: the largest that glibc takes; malloc.h names the numbers
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
