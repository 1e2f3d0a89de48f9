"""Where a model computes, how precisely, and with how many threads."""

import ctypes
import os

import torch
from torch import nn

from iolaus.errors import InputError

TUNES_MALLOC = {
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TOP_PAD_",
    "GLIBC_TUNABLES",
}
"""Variables by which glibc is told otherwise."""


def resolve_device(device: str) -> torch.device:
    """The device that ``auto`` means here: cuda, then mps, then cpu.

    Raises:
        InputError: for a device that this machine or this build of PyTorch does not have.
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found if found is not None and found.type in ("cuda", "mps") else torch.device("cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (0 if chosen.index is None else chosen.index) >= torch.cuda.device_count():
        raise InputError(
            f"device={device} is not there: PyTorch sees {torch.cuda.device_count()} CUDA devices; use auto"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device=mps is not there: it needs a Mac with Apple silicon; use auto")
    return chosen


def resolve_precision(precision: str, model: nn.Module) -> str:
    """What ``auto`` means: bf16 where the hardware computes it natively, on GPUs for convolutions only, else fp32.

    Emulated bf16 is slower than fp32, and on a GPU small linear layers gain less than the casts cost.
    """
    if precision != "auto":
        return precision
    device = next(model.parameters()).device
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native and has_convolutions(model) else "fp32"
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "fp32"


def set_threads(threads: int | str) -> int:
    """Let PyTorch compute with so many threads, and give their number.

    ``auto`` leaves PyTorch's default: what OMP_NUM_THREADS says, by which the launcher of a sweep divides the cores
    among its workers, or one for each core.
    """
    if threads != "auto":
        torch.set_num_threads(int(threads))
    return torch.get_num_threads()


def keep_memory() -> None:
    """Have glibc keep what is freed for the next step, instead of handing it back to the system and asking anew.

    Each fresh page costs a fault: docs/performance.md. Where the environment tunes malloc itself, and with other C
    libraries, nothing is changed.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and not TUNES_MALLOC & set(os.environ):
        libc.mallopt(-3, 32 * 2**20)  # M_MMAP_THRESHOLD: the largest that glibc takes; malloc.h names the numbers
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never


def deterministic(device: torch.device) -> None:
    """Have CUDA choose kernels whose results do not vary; the CPU's do not at a given number of threads."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it matrix products may vary
        torch.use_deterministic_algorithms(True, warn_only=True)
        # else each empty tensor would be filled by a kernel of its own
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to where it computes; convolutions in channels_last, their faster memory format."""
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if has_convolutions(model) else model


def has_convolutions(model: nn.Module) -> bool:
    """Whether a two-dimensional convolution is among the layers."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
