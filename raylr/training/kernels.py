"""Kernels that give the same bits each time.

Torch's do on the CPU. On a GPU some add numbers up in the order in which their threads end, unless torch is asked for others:
https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html
"""

import os

import torch
import torch.utils.deterministic


def use_deterministic_kernels() -> None:
    """Ask for them in this process, before its first work on a GPU. Torch warns of an operation that has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
