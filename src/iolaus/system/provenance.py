"""The provenance of a run: the versions, the machine and the commit that made it, and the record beside it."""

import contextlib
import functools
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


@functools.cache
def tags(root: Path) -> dict[str, str]:
    """Return tags that name the versions, the machine and the commit of `root`."""
    packages = ("torch", "torchvision", "numpy", "hydra-core", "optuna", "mlflow", "iolaus")
    found = {f"version.{name}": version(name) for name in packages}
    found |= {
        "version.python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):  # no git, or no repository
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        commit = next(line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid "))
        dirty = not all(line.startswith("#") for line in lines)
        found |= {"mlflow.source.git.commit": commit, "git_dirty": str(dirty).lower()}
    return found


@functools.cache
def version(package: str) -> str:
    """Return the version of an installed package without the part about its build."""
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


RECORD = "run.json"
"""The file in a run's folder with the params and tags that a tracker gets."""


def write_record(folder: Path, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
    """Write the params and tags that a tracker gets of a run to its folder."""
    text = {"params": {name: str(value) for name, value in params.items()},
            "tags": {name: str(value) for name, value in tags.items()}}  # fmt: skip
    (folder / RECORD).write_text(json.dumps(text, indent=2))


def find_record(folder: Path | None) -> Path | None:
    """Return the path of the record in a trial's folder, or of its oldest repeat; None if there is none."""
    found = [] if folder is None else [*folder.glob(RECORD), *folder.glob(f"seed=*/{RECORD}")]
    return min(found, key=lambda path: path.stat().st_mtime, default=None)
