"""The cores and GPUs that workers on this machine share, found without PyTorch."""

import os
from pathlib import Path


def cores() -> int:
    """Return the number of cores that this process may use, which in a container may be fewer than the machine has."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, int(quota) // int(period)))


def gpus() -> list[str]:
    """Return the CUDA devices that this process may use, by the names of ``CUDA_VISIBLE_DEVICES``."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [
            name for name in map(str.strip, os.environ["CUDA_VISIBLE_DEVICES"].split(",")) if name not in ("", "-1")
        ]
    found = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index in range(len(list(found.iterdir())))] if found.is_dir() else []
