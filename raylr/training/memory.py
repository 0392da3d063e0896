"""Memory of the process and of the GPU. What torch has freed stays with the process, for the tensors of the next update.

glibc gives large blocks back to the system when they are freed, and its trim gives back the top of the heap. An update asks
for the same blocks again and again, and each page then has to be mapped and zeroed again: 20,000 page faults in a rank's
update of `cnn-small` at a batch of 512, a fifth of its time.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterable

import torch

from raylr.errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Take all blocks from the heap and never shrink it. Does nothing where the C library has no mallopt."""
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_gpu_mib(device: torch.device) -> float | None:
    """The most memory of the GPU that tensors of this process had at once, in MiB; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def out_of_memory(micro_size: int, whole: str, runs: Callable[[int], None]) -> ConfigError:
    """The error of a micro-batch that does not fit, with the largest half, quarter ... of it that does.

    `runs` passes so many examples through the model, or raises torch.OutOfMemoryError; `whole` says what the memory is.
    """
    fits = next((size for size in _halves(micro_size) if _fits(runs, size)), None)
    advice = "not even one example fits; use a smaller model" if fits is None else f"{fits} fits (with other bits)"
    return ConfigError(f"batch.micro_size={micro_size} does not fit into {whole}; {advice}")


def _halves(size: int) -> Iterable[int]:
    while size > 1:
        size //= 2
        yield size


def _fits(runs: Callable[[int], None], size: int) -> bool:
    try:
        runs(size)
    except torch.OutOfMemoryError:
        return False
    return True
