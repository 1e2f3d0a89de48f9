"""The end of a process whose work is done: to take apart what PyTorch and MLflow have imported would take seconds."""

import atexit
import gc
import logging
import os
import sys

_code: int | None = None
_program: object = None


def at_once(code: int = 0) -> None:
    """Have this process end with a code as soon as all that was registered for its end has been called.

    A program says so when it has come to its last line. Whoever runs it within another program, as a test does, goes on
    as ever.
    """
    global _code, _program
    _code, _program = code, sys.modules["__main__"]


def _end() -> None:
    if _code is None or sys.modules["__main__"] is not _program:
        gc.unfreeze()  # else Triton, which nobody would collect, would complain of leaks
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(_code)


atexit.register(_end)  # as early as this is imported: what is registered first is called last
