"""Begin a loop of one's own, or go on with it: check what is attached, agree on the state over all ranks, write what it is."""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from raylr.errors import ConfigError, first_line
from raylr.events import Forked
from raylr.lr import Clock as Lengths
from raylr.lr import Policy, Ramp, duration_text, examples
from raylr.planning.loop_plan import LoopPlan
from raylr.planning.lr import policy_of_file
from raylr.planning.plan import Parent, Reason
from raylr.storage import is_uri, run_folder
from raylr.training import checkpoint
from raylr.training.attached.driver import Driver
from raylr.training.attached.group import device_of
from raylr.training.attached.loop import OwnLoop
from raylr.training.attached.record import Earlier, Record
from raylr.training.attached.state import Attached, HasState, named
from raylr.training.attached.surroundings import Surroundings


@dataclass(frozen=True)
class Wish:
    """What `raylr.loop.attach` was asked for, apart from what is attached."""

    policy: Policy | str | os.PathLike[str]
    global_batch: int | Ramp | None
    per_worker_batch: int | None
    name: str | None
    storage: str
    fresh: bool
    keep: int
    rewarm: str
    fork: str | None = None
    fork_at: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def begin(
    model: nn.Module | Mapping[str, nn.Module],
    optimizers: Optimizer | Mapping[str, Optimizer],
    others: Mapping[str, HasState],
    wish: Wish,
    surroundings: Surroundings,
) -> OwnLoop:
    """Return the loop, at the position where an earlier start of the same name has left it.

    Raises ConfigError, on every rank alike, for what cannot be attached and for a folder that another run has.
    """
    attached = Attached(
        named(model, nn.Module, "model", "model"), named(optimizers, Optimizer, "optimizer", "optimizers"), dict(others)
    )
    own, size = _policy(wish.policy), surroundings.group.size
    driver = Driver(attached.optimizers, own, _batches(wish, size))
    driver.policy = given = surroundings.policy_for(own, _plan(attached, driver, wish, size))
    plan = _plan(attached, driver, wish, size)
    record, earlier = _agreed(wish, attached, given, surroundings)
    if earlier.parent is not None:
        plan = plan.model_copy(update={"parent": earlier.parent, "story": (*plan.story, _told(earlier.parent, plan))})
    loop = OwnLoop(attached, driver, plan, surroundings, record)
    if earlier.state is not None:
        loop.load(earlier.state)
        if earlier.parent is not None:
            loop.leave(given)
    if earlier.result is not None:
        loop.ended = True
        if record is not None:
            record.close()
            print(f"{record.folder} is complete; fresh=True starts it over")
    elif record is not None:
        record.begin(plan, given, _config(attached, wish, plan), loop.position, loop.step)
        leaves = None if record.is_begun() else earlier.parent
        record.joined(loop.world_size, loop.position, earlier.state is not None and leaves is None)
        if leaves is not None:
            record.note(Forked(time.time(), loop.position, leaves.run, loop.step, leaves.changes))
    loop.follow_size()
    surroundings.begun(loop)
    loop.leave_pass()
    return loop


def _told(parent: Parent, plan: LoopPlan) -> Reason:
    """The line of a fork in the plan's story."""
    where = f"{parent.run} at {duration_text(parent.position, plan.num_train)}, step {parent.step}"
    return Reason(what="fork of", value=where, why="; ".join(parent.changes) or "changes nothing")


def _policy(given: Policy | str | os.PathLike[str]) -> Policy:
    if isinstance(given, Policy):
        return given
    if isinstance(given, str | os.PathLike):
        return policy_of_file(os.fspath(given)).policy
    raise ConfigError(
        f"policy={type(given).__name__} is no policy; give a raylr.Policy, what raylr.loop.policy returns, or the path of a "
        "policy.json"
    )


def _batches(wish: Wish, world_size: int) -> int | Ramp:
    """The global batches. Raises ConfigError unless exactly one way of giving them was taken."""
    whole, each = wish.global_batch, wish.per_worker_batch
    if (whole is None) == (each is None):
        given = "neither" if whole is None else "both"
        raise ConfigError(
            f"global_batch and per_worker_batch: {given} given; give global_batch, the examples of an update over all ranks, "
            "or per_worker_batch, from which it follows"
        )
    for name, value in (("global_batch", whole), ("per_worker_batch", each)):
        if (
            isinstance(value, bool)
            or not isinstance(value, int | Ramp | None)
            or (isinstance(value, int) and value < 1)
        ):
            raise ConfigError(f"{name}={value!r} must be a whole number, at least 1 example")
    return whole if each is None else each * world_size  # type: ignore[return-value]


def _plan(attached: Attached, driver: Driver, wish: Wish, world_size: int) -> LoopPlan:
    policy, batches = driver.policy, driver.batches
    largest = max(batches.sizes)
    lengths = Lengths(policy.examples_per_epoch, policy.total_examples, largest)
    models = {name: type(one).__name__ for name, one in attached.models.items()}
    optimizers = {name: type(one).__name__ for name, one in attached.optimizers.items()}
    return LoopPlan(
        workers=(world_size, world_size),
        num_train=policy.examples_per_epoch,
        total_examples=policy.total_examples,
        global_batch=None if wish.per_worker_batch else largest,
        ramp=batches.phases if len(batches.phases) > 1 else (),
        per_worker_size=wish.per_worker_batch,
        rewarm=examples(wish.rewarm, lengths, "rewarm"),
        models=models,
        optimizers=optimizers,
        checkpoint_keep=wish.keep,
        story=tuple(_story(policy, largest, models, optimizers, world_size, wish)),
    )


def _story(
    policy: Policy,
    batch: int,
    models: Mapping[str, str],
    optimizers: Mapping[str, str],
    world_size: int,
    wish: Wish,
) -> list[Reason]:
    """What the run is, in the lines that `raylr watch` and the report show."""
    epochs = duration_text(policy.total_examples, policy.examples_per_epoch)
    per_rank = f"{wish.per_worker_batch} on each of {world_size} ranks" if wish.per_worker_batch else "given"
    lines = [
        ("task", "a loop of one's own", "its script trains; LR, ledger, checkpoints and orders are raylr's"),
        ("model", ", ".join(models.values()), "attached"),
        ("optimizers", ", ".join(optimizers.values()), "attached"),
        ("length", f"{epochs} = {policy.total_examples:,} examples", "of the policy"),
        ("global batch", str(batch), per_rank),
    ]
    for name, schedule in policy.schedules:
        shape = schedule.shape.brief(policy.examples_per_epoch)
        warmup = duration_text(schedule.warmup.examples, policy.examples_per_epoch)
        peak = f"{schedule.peak(batch):.6g}, warmup {warmup}, {shape}"
        base = f"base {schedule.base_lr:g} at a batch of {schedule.reference_batch}, scaling {schedule.scaling}"
        lines.append((f"LR of {name}", peak, base))
    return [Reason(what=what, value=value, why=why) for what, value, why in lines]


def _config(attached: Attached, wish: Wish, plan: LoopPlan) -> dict[str, Any]:
    """What was asked for, as `config.json` keeps it: the script's command and its own settings with it."""
    batch = (
        {"per_worker_batch": wish.per_worker_batch} if wish.per_worker_batch else {"global_batch": plan.global_batch}
    )
    return {
        "task": plan.task,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "storage": wish.storage,
        "rewarm": wish.rewarm,
        "keep": wish.keep,
        **batch,
        "settings": json.loads(json.dumps(dict(wish.settings), default=str)),
        "others": {name: type(one).__name__ for name, one in attached.others.items()},
    }


def _agreed(
    wish: Wish, attached: Attached, policy: Policy, surroundings: Surroundings
) -> tuple[Record | None, Earlier]:
    """Rank 0's files, and what was there, on all ranks; what refuses them refuses on all ranks."""
    group, record, told = surroundings.group, None, b""
    if group.group_rank == 0:
        try:
            record, found = _opened(wish, attached, policy, surroundings)
            parent = None if found.parent is None else found.parent.model_dump(mode="json")
            told = checkpoint.to_bytes({"error": None, "state": found.state, "result": found.result, "parent": parent})
        except (ConfigError, OSError) as error:
            told = checkpoint.to_bytes({"error": first_line(error)})
    agreed = checkpoint.from_bytes(group.broadcast_bytes(told, 0, device_of(group)))
    if agreed["error"] is not None:
        raise ConfigError(agreed["error"])
    left = None if agreed["parent"] is None else Parent.model_validate(agreed["parent"])
    return record, Earlier(agreed["state"], agreed["result"], left)


def _opened(wish: Wish, attached: Attached, policy: Policy, surroundings: Surroundings) -> tuple[Record, Earlier]:
    kinds = [*attached.models.values(), *attached.optimizers.values()]
    default = "-".join(type(one).__name__.lower() for one in kinds)
    storage, name = surroundings.place(wish.storage, wish.name or default)
    if not is_uri(storage) and not name.strip("."):
        raise ConfigError(f"name={name} is no name of a folder; give another")
    record = Record(run_folder(storage, name), wish.keep)
    return record, record.open(policy, wish.fresh, None if wish.fork is None else (wish.fork, wish.fork_at))
