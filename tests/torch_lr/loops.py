"""A plain loop with a torch scheduler, and the policy imported from it, side by side."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler, SequentialLR

from raylr.lr import Policy
from raylr.torch_lr.importing import policy_from_scheduler

BATCH, EPOCH = 100, 1050  # an epoch is no whole number of updates, but under "fraction"
ITERS = 10  # updates of an epoch there
Make = Callable[[Any], LRScheduler]


def sgd(*lrs: float) -> SGD:
    return SGD([{"params": [torch.zeros(1)], "lr": lr} for lr in lrs or (0.1,)], momentum=0.9)


def sequence(*parts: Make, at: list[int]) -> Make:
    return lambda optimizer: SequentialLR(optimizer, [part(optimizer) for part in parts], at)


def policy_of(scheduler: LRScheduler, num_updates: int, unit: str) -> Policy:
    return policy_from_scheduler(
        scheduler,
        examples_per_step=BATCH,
        total_steps=num_updates,
        examples_per_epoch=ITERS * BATCH if unit == "fraction" else EPOCH,
        step_unit=unit,  # type: ignore[arg-type]
    )


def torchs_own(scheduler: LRScheduler, num_updates: int, unit: str) -> list[list[tuple[float, float | None]]]:
    """LR and momentum of each param group at each update of a plain loop."""
    seen = []
    for update in range(num_updates):
        groups = scheduler.optimizer.param_groups
        momenta = [group.get("momentum", group.get("betas", [None])[0]) for group in groups]
        seen.append([(float(group["lr"]), momentum) for group, momentum in zip(groups, momenta, strict=True)])
        scheduler.optimizer.step()
        position = (update + 1) * BATCH
        if update + 1 == num_updates:
            break
        if unit == "fraction":
            epoch, i = divmod(update, ITERS)
            scheduler.step(epoch + i / ITERS)  # as torch's page on CosineAnnealingWarmRestarts has it
        elif unit == "update" or position // EPOCH > (position - BATCH) // EPOCH:
            scheduler.step()
    return seen


def check(
    make: Make, num_updates: int, unit: str, optimizer: Any = None, rel: float = 1e-9, floor: float = 1e-16
) -> Policy:
    """Compare over the whole run, at `floor` where the LR is next to nothing; returns the policy."""
    scheduler = make(optimizer or sgd())
    policy = policy_of(scheduler, num_updates, unit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's on step(epoch)
        seen = torchs_own(scheduler, num_updates, unit)
    for update, groups in enumerate(seen):
        for index, (lr, momentum) in enumerate(groups):
            name = policy.optimizers[index if len(policy.schedules) > 1 else 0]
            own = policy.momentum(update * BATCH, BATCH, name)
            assert policy.lr(update * BATCH, BATCH, name) == pytest.approx(lr, rel=rel, abs=floor), (update, index)
            assert (seen[0][index][1] if own is None else own) == pytest.approx(momentum, rel=1e-9), (update, index)
    assert Policy.from_json(policy.to_json()) == policy
    return policy
