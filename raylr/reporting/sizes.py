"""What a plan comes to at several numbers of workers, as numbers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from raylr.lr import Policy
from raylr.lr.ramp import Stretch
from raylr.planning.plan import Plan


def at_sizes(plan: Plan, policy: Policy, world_sizes: Iterable[int]) -> list[dict[str, Any]]:
    """A row for each number of workers, with a ramp for each batch of it.

    Only `workers` and `micro_batches` where there are more of them than these.
    """
    return [row for world_size in world_sizes for row in _at(plan, policy, world_size)]


def idle(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each row with more workers than micro-batches."""
    return [
        f"{row['workers']} workers are more than the {row['micro_batches']} micro-batches of an update"
        for row in rows
        if "global_batch" not in row
    ]


def _at(plan: Plan, policy: Policy, world_size: int) -> Iterator[dict[str, Any]]:
    if world_size > plan.num_micro_batches(world_size):
        yield {"workers": world_size, "micro_batches": plan.num_micro_batches(world_size)}
        return
    for part in plan.batches(world_size).stretches(plan.total_examples):
        where = {"from_epoch": part.position / plan.num_train} if plan.ramp else {}
        yield where | _row(plan, policy, world_size, part)


def _row(plan: Plan, policy: Policy, world_size: int, part: Stretch) -> dict[str, Any]:
    num_micro = part.batch // plan.micro_size
    return {
        "workers": world_size,
        "micro_batches": num_micro,
        "micro_batches_each": [num_micro // world_size, -(-num_micro // world_size)],
        "global_batch": part.batch,
        "updates": part.count,
        "optimizers": {name: _schedule(policy, name, part) for name in policy.optimizers},
    }


def _schedule(policy: Policy, name: str, part: Stretch) -> dict[str, float]:
    schedule, batch = policy.schedule(name), part.batch
    return {
        "k": batch / schedule.reference_batch,
        "peak_lr": schedule.peak(batch),
        "first_lr": policy.lr(part.position, batch, name),
        "warmup_updates": max(0, -(-(schedule.effective_warmup(batch) - part.position) // batch)),
    }
