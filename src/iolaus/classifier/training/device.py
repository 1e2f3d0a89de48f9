"""Where a model computes, how precisely, and with how many threads."""

import os

import torch
from torch import nn

from iolaus.errors import InputError
from iolaus.system import process


def prepare_device(device: str, threads: int | str) -> tuple[torch.device, int]:
    """Ready this process for a run, and return its device and its number of threads.

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
