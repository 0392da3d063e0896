"""Where workers compute and by what they talk: chosen in planning, each with its reason, and what is refused."""

from dataclasses import replace

import pytest

from raylr.errors import ConfigError
from raylr.planning.facts import Hardware
from raylr.planning.plan import Plan
from tests.planning.test_resolve import CPU, resolved


def gpus(count: int) -> Hardware:
    return replace(CPU, num_gpus=count)


def told(plan: Plan, what: str) -> tuple[str, str]:
    line = next(line for line in plan.story if line.what == what)
    return line.value, line.why


@pytest.mark.parametrize(
    ("count", "values", "backend", "share", "device_why", "backend_why"),
    [
        (0, {}, ("cpu", "gloo"), 1.0, "0 GPUs for 2 workers", "the workers compute on the CPU"),
        (2, {}, ("cuda", "nccl"), 1.0, "2 GPUs for 2 workers", "every worker has a GPU of its own"),
        (1, {}, ("cpu", "gloo"), 1.0, "1 GPUs for 2 workers; with batch.backend=gloo they would share",
         "the workers compute on the CPU"),
        (1, {"batch__backend": "gloo"}, ("cuda", "gloo"), 0.5, "1 GPUs for 2 workers", "given; 2 workers share a GPU"),
        (2, {"batch__backend": "gloo", "workers": "3"}, ("cuda", "gloo"), 0.5, "2 GPUs for 3 workers",
         "given; 2 workers share a GPU"),
        (1, {"batch__backend": "gloo", "workers": "3"}, ("cuda", "gloo"), 0.3333, "1 GPUs for 3 workers",
         "given; 3 workers share a GPU"),
        (2, {"batch__backend": "gloo"}, ("cuda", "gloo"), 1.0, "2 GPUs for 2 workers", "given"),
        (2, {"batch__backend": "nccl", "gpu": "yes"}, ("cuda", "nccl"), 1.0, "given", "given"),
        (2, {"gpu": "no"}, ("cpu", "gloo"), 1.0, "given", "the workers compute on the CPU"),
    ],
)  # fmt: skip
def test_device_and_backend_are_chosen_with_their_reasons(count, values, backend, share, device_why, backend_why):
    plan, _ = resolved(hardware=gpus(count), **{"workers": "2", **values})
    assert (plan.device, plan.backend) == backend
    assert plan.gpus_per_worker == share
    assert told(plan, "device") == (backend[0], device_why)
    assert told(plan, "backend") == (backend[1], backend_why)


@pytest.mark.parametrize(
    ("count", "values", "message"),
    [
        (1, {"batch__backend": "nccl"}, r"batch\.backend=nccl needs a GPU for each worker, and there are 1 for 2 workers; "
         r"use batch\.backend=gloo, whose workers may share one"),
        (2, {"batch__backend": "nccl", "gpu": "no"}, r"batch\.backend=nccl needs .*, and gpu=no; use batch\.backend=gloo"),
        (1, {"gpu": "yes"}, r"gpu=yes needs 2 GPUs, one per worker, but there are 1; use batch\.backend=gloo, whose workers "
         r"share a GPU, gpu=no or fewer workers"),
        (0, {"gpu": "yes", "batch__backend": "gloo"}, r"gpu=yes needs a GPU, but there are 0; use gpu=no$"),
        (0, {"gpu": "yes", "workers": None}, r"^gpu=yes needs a GPU, but there are 0; use gpu=no$"),
        (0, {"gpu": "yes"}, r"^gpu=yes needs 2 GPUs, one per worker, but there are 0; use gpu=no$"),
        (2, {"batch__backend": "mpi"}, r"batch\.backend=mpi"),
    ],
)  # fmt: skip
def test_more_workers_than_gpus_are_refused_where_nccl_or_gpus_are_asked_for(count, values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        resolved(hardware=gpus(count), **{"workers": "2", **values})
    assert "\n" not in str(caught.value)
