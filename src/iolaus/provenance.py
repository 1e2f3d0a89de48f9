"""What a result depends on besides its configuration."""

import contextlib
import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path


@functools.cache
def tags(root: Path) -> dict[str, str]:
    """Tags that name the versions, the machine and the commit of `root`."""
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
    """Of an installed package, without what is said about its build."""
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
