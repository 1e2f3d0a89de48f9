"""Command lines: the overrides of a resumed run, commands to print, and mistakes in one line."""

import errno
import itertools
import re
import shlex
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import yaml
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from iolaus.errors import InputError
from iolaus.search_space.keys import bare_key


def expand_resume(argv: Sequence[str]) -> list[str]:
    """Put the overrides that a run was started with before those beside its ``resume=PATH``.

    They are read from ``.hydra/overrides.yaml`` in the checkpoint's folder; where the command line names the same key,
    only its own override remains. Without such a file the command line must repeat them, which `check_same_settings`
    verifies.
    """
    path = next((Path(arg.split("=", 1)[1].strip("'\"")) for arg in argv if arg.startswith("resume=")), None)
    saved = path.parent / ".hydra" / "overrides.yaml" if path else None
    if saved is None or not saved.is_file():
        return list(argv)
    given = {bare_key(arg) for arg in argv}
    given |= {"from_run", "from_trial"}  # what these stood for is among the recorded
    recorded = [override for override in harmless(map(str, OmegaConf.load(saved))) if "_target_" not in override]
    return [override for override in recorded if bare_key(override) not in given] + list(argv)


def harmless(overrides: Iterable[str]) -> list[str]:
    """Return those of another run's overrides that only choose among our configurations and set values.

    Options and Hydra's own keys are left out, since they may say where code lies. The caller must check for
    ``_target_``, which may name code to run.
    """
    return [
        override
        for override in overrides
        if not override.startswith("-") and not bare_key(override).startswith("hydra")
    ]


def resume_command(overrides: Sequence[str], checkpoint: Path) -> str:
    """Return the shell command that resumes a run that was started with `overrides`."""
    kept = [override for override in overrides if bare_key(override) not in ("resume", "from_run", "from_trial")]
    path = str(checkpoint) if re.fullmatch(r"[\w./:+-]+", str(checkpoint)) else f"'{checkpoint}'"  # Hydra's quotes
    return shlex.join(["python", sys.argv[0], *config_options(sys.argv[1:]), *kept, f"resume={path}"])


def config_options(argv: Sequence[str]) -> list[str]:
    """Return the options among these arguments that tell Hydra which configuration to use, with their values."""
    return [
        part
        for flag, value in itertools.pairwise([*argv, ""])
        if flag.split("=")[0] in ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
        for part in ([flag] if "=" in flag else [flag, value])
    ]


def report_mistakes() -> None:
    """Print one line for a user's mistake, a full disk and Ctrl-C; anything else keeps its traceback.

    Hydra passes exceptions of a task to ``sys.excepthook``. SIGTERM then ends a run as Ctrl-C does.
    """
    fallback = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if (line := explain(error)) is not None:
            print(f"error: {line}", file=sys.stderr)
        elif kind is KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
        else:
            fallback(kind, error, traceback)

    sys.excepthook = hook
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def explain(error: BaseException | None) -> str | None:
    """Return the message of a mistake, also where another exception wraps it; None for anything else."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or "the output folder"
            return f"no space left on the disk of {where}: free some, or choose another (hydra.run.dir, data.root)"
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"no permission for {error.filename}: choose another folder (hydra.run.dir, root, data.root)"
        if "database or disk is full" in str(error):  # SQLite's words, through the layers above it
            return "no space left on the disk of the tracking database: free some, or use tracking=none"
        if isinstance(error, MissingMandatoryValue):
            return f"{error.full_key} has no value: give one with {error.full_key}=VALUE"
        if isinstance(error, InstantiationException) and str(error).startswith("Error locating target"):
            root: BaseException = error
            while root.__cause__ is not None:
                root = root.__cause__
            why = f"({type(root).__name__}: {root}): is it spelt right, and on PYTHONPATH?"
            return f"{' '.join(str(error).split())} {why}"
        if isinstance(error, yaml.YAMLError):
            return f"a configuration file cannot be parsed as YAML: {' '.join(str(error).split())}"
        error = error.__cause__
    return None
