"""The end of a process whose work is done: to take apart what PyTorch and MLflow have imported would take seconds."""

import atexit
import gc
import io
import logging
import os
import sys

_code: int | None = None
_program: object = None
FILES = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def skip_teardown(code: int = 0) -> None:
    """Let this process end with a code as soon as all that was registered for its end has been called.

    A program calls it as its last line. Where the program runs within another one, as in a test, or under a debugger
    or profiler, nothing changes. What was registered before this module was imported is not called.
    """
    global _code, _program
    _code, _program = code, sys.modules["__main__"]


def _end() -> None:
    gc.unfreeze()  # else Triton, which nobody would collect, would complain of leaks
    if _code is None or sys.modules["__main__"] is not _program or sys.gettrace() or sys.getprofile():
        return
    import ctypes  # the start need not wait for it

    logging.shutdown()
    try:
        for file in [thing for thing in gc.get_objects() if issubclass(type(thing), FILES) and not thing.closed]:
            file.flush()
    except OSError:  # Python says what it says of a full disk or a closed pipe
        return
    ctypes.CDLL(None).fflush(None)
    os._exit(_code)


atexit.register(_end)  # as early as this is imported: what is registered first is called last
