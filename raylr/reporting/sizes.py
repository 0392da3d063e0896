"""What a plan comes to at several numbers of workers, as numbers."""

from collections.abc import Iterable
from typing import Any

from raylr.lr import Policy
from raylr.planning.plan import Plan


def at_sizes(plan: Plan, policy: Policy, world_sizes: Iterable[int]) -> list[dict[str, Any]]:
    """A row for each number of workers; only `workers` and `micro_batches` where there are more of them than these."""
    return [_at(plan, policy, world_size) for world_size in world_sizes]


def _at(plan: Plan, policy: Policy, world_size: int) -> dict[str, Any]:
    num_micro = plan.num_micro_batches(world_size)
    if world_size > num_micro:
        return {"workers": world_size, "micro_batches": num_micro}
    batch = plan.batch_at(world_size)
    return {
        "workers": world_size,
        "micro_batches": num_micro,
        "micro_batches_each": [num_micro // world_size, -(-num_micro // world_size)],
        "global_batch": batch,
        "updates": plan.total_examples // batch,
        "optimizers": {name: _schedule(policy, name, batch) for name in policy.optimizers},
    }


def _schedule(policy: Policy, name: str, batch: int) -> dict[str, float]:
    schedule = policy.schedule(name)
    return {
        "k": batch / schedule.reference_batch,
        "peak_lr": schedule.peak(batch),
        "first_lr": policy.lr(0, batch, name),
        "warmup_updates": -(-schedule.effective_warmup(batch) // batch),
    }
