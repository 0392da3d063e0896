"""Kernels on a GPU: usable at all, exact in fp32, and the same bits each time.

On the CPU torch's kernels are both. On a GPU convolutions in fp32 are rounded to TF32 by default, and some kernels add
numbers in the order in which their threads end:
https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html
https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html
"""

import os
import warnings

import torch
import torch.utils.deterministic

from raylr.errors import ConfigError, first_line


def use_gpu(device: torch.device, deterministic: bool) -> None:
    """Prepare this process for `device`, before its first work there. Does nothing for the CPU.

    Raises ConfigError where torch cannot use the GPU: no driver, or one older than torch needs.
    """
    if device.type == "cpu":
        return
    if deterministic:
        use_deterministic_kernels()
    use_exact_fp32()
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        needs = f"torch {torch.__version__}" + (f" needs CUDA {torch.version.cuda} and" if torch.version.cuda else "")
        raise ConfigError(
            f"gpu=yes: {needs} cannot use the GPU: {_reason(error)}; update the driver, or use gpu=no"
        ) from error


def use_deterministic_kernels() -> None:
    """Ask for them in this process. Torch warns of an operation that has none.

    Of torch's attention only the plain one is deterministic in its backward pass where others merely warn.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False  # it chooses by timing
    for fused in (torch.backends.cuda.enable_flash_sdp, torch.backends.cuda.enable_mem_efficient_sdp):
        fused(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.enable_math_sdp(True)


def use_exact_fp32() -> None:
    """No TF32, in matrix products and in convolutions, in this process."""
    with (
        warnings.catch_warnings()
    ):  # the flags of torch 2.9 on cannot be read by the older names any more once they are set
        warnings.filterwarnings("ignore", message="Please use the new API settings")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def _reason(error: RuntimeError) -> str:
    return first_line(error).split(". Please", 1)[0].rstrip(".")
