"""A GPU is asked for kernels that give the same bits each time, and exact fp32; torch's meta device stands for one."""

import contextlib
import os

import pytest
import torch

from raylr.errors import ConfigError
from raylr.training.kernels import use_gpu
from raylr.training.trainer import Trainer
from tests.training.runs import images, plan, policy


def asked_for(place: int, size: int, port: int, device: str, reduce: str) -> tuple[bool, bool, str | None]:
    of = plan(device=device, reduce=reduce)
    try:
        with contextlib.suppress(RuntimeError):  # meta tensors have no values
            Trainer(of, policy(of), images(90, 50))
        only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled(), only_warned, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    finally:
        as_before()


def as_before() -> None:
    """These processes go on as other tests' ranks."""
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.mark.parametrize(
    ("device", "reduce", "expected"),
    [
        ("cpu", "tree", (False, False, None)),
        ("meta", "ddp", (False, False, None)),
        ("meta", "tree", (True, True, ":4096:8")),
    ],
)
def test_deterministic_kernels_are_asked_for_where_bits_are_promised_and_not_the_cpus(ranks, device, reduce, expected):
    assert ranks.run(asked_for, 1, device, reduce) == [expected]


def settings(place: int, size: int, port: int, device: str, deterministic: bool) -> tuple[bool, ...]:
    try:
        use_gpu(torch.device(device), deterministic)
        cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
        attention = cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()
        return *attention, cuda.math_sdp_enabled(), cudnn.allow_tf32, cuda.matmul.allow_tf32
    finally:
        as_before()


@pytest.mark.parametrize(
    ("device", "deterministic", "expected"),
    [
        ("cpu", True, (True, True, True, True, True, False)),  # as torch has them
        ("meta", True, (False, False, False, True, False, False)),
        ("meta", False, (True, True, True, True, False, False)),
    ],
)
def test_attention_is_the_deterministic_one_and_fp32_is_no_tf32(ranks, device, deterministic, expected):
    assert ranks.run(settings, 1, device, deterministic) == [expected]


def refused(place: int, size: int, port: int) -> str:
    try:
        use_gpu(torch.device("cuda"), deterministic=False)
    except ConfigError as error:
        return str(error)
    finally:
        as_before()
    return ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_torch_cannot_use_is_one_line(ranks):
    (said,) = ranks.run(refused, 1)
    assert said.startswith(f"gpu=yes: torch {torch.__version__}")
    assert said.endswith("; update the driver, or use gpu=no")
    assert "cannot use the GPU: " in said
    assert "\n" not in said
