"""The device that a model computes on, its precision, and the number of threads."""

import os

import torch
from torch import nn

from iolaus.errors import InputError
from iolaus.system import process


def prepare_device(device: str, threads: int | str) -> tuple[torch.device, int]:
    """Set up this process for a run, and return its device and its number of threads.

    Args:
        device: As for `resolve_device`.
        threads: As for `set_threads`.

    Raises:
        InputError: for a device that this machine or this build of PyTorch does not have.
    """
    chosen = resolve_device(device)
    deterministic(chosen)
    process.keep_memory()
    return chosen, set_threads(threads)


def resolve_device(device: str) -> torch.device:
    """Return the device of this name; ``auto`` means the first of cuda, mps and cpu that is there.

    Raises:
        InputError: for a device that this machine or this build of PyTorch does not have.
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found if found is not None and found.type in ("cuda", "mps") else torch.device("cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (0 if chosen.index is None else chosen.index) >= torch.cuda.device_count():
        raise InputError(
            f"device={device} is not available: PyTorch sees {torch.cuda.device_count()} CUDA devices; use auto"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device=mps is not available: it needs a Mac with Apple silicon; use auto")
    return chosen


def resolve_precision(precision: str, model: nn.Module) -> str:
    """Return the precision; ``auto`` means bf16 where the hardware computes it natively, else fp32.

    Emulated bf16 is slower than fp32. On a GPU only models with convolutions get bf16, since small linear layers gain
    less than the casts cost.
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
    """Set PyTorch's number of threads, and return it.

    ``auto`` leaves PyTorch's default: the value of OMP_NUM_THREADS, by which the launcher of a sweep divides the cores
    among its workers, or else one thread for each core.
    """
    if threads != "auto":
        torch.set_num_threads(int(threads))
    return torch.get_num_threads()


def deterministic(device: torch.device) -> None:
    """Restrict CUDA to deterministic kernels; the CPU's are deterministic at a given number of threads."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it matrix products may vary between runs
        torch.use_deterministic_algorithms(True, warn_only=True)
        # otherwise each empty tensor would be filled by a kernel of its own
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to its device; one with convolutions in channels_last, the memory format that is faster for them."""
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if has_convolutions(model) else model


def has_convolutions(model: nn.Module) -> bool:
    """Return True if there is a two-dimensional convolution among the layers."""
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a forward pass: bf16 autocast for ``bf16``, nothing for ``fp32``."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
