"""A GPU is asked for kernels that give the same bits each time; torch's meta device stands for one."""

import contextlib
import os

import pytest
import torch

from raylr.training.trainer import Trainer
from tests.training.runs import images, plan, policy


def asked_for(place: int, size: int, port: int, device: str, reduce: str) -> tuple[bool, bool, str | None]:
    of = plan(device=device, reduce=reduce)
    try:
        with contextlib.suppress(RuntimeError):  # meta tensors have no values
            Trainer(of, policy(of), images(90, 50))
        only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
        return torch.are_deterministic_algorithms_enabled(), only_warned, os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    finally:  # these processes go on as other tests' ranks
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


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
