"""A fork of a loop of one's own: another LR from a state that the parent has kept.

A loop cannot be replayed, so a fork begins at a checkpoint: the newest at or before the wish. It takes the parent's rows up to
there, so that it is read like a run that has trained from the start; what was set on the LR before still holds.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raylr.errors import ConfigError
from raylr.events import Forked, Joined, Overridden, Resized, event_of_row, row
from raylr.lr import Clock, Policy, examples
from raylr.planning.legs import LEGS, Leg, legs_of, own_policy
from raylr.planning.loop_plan import LoopPlan, plan_in
from raylr.planning.plan import Parent
from raylr.storage import Folder, open_run, population_of
from raylr.training import checkpoint
from raylr.training.checkpoint_index import names


def seed(folder: Folder, parent: str, at: str | None, policy: Policy) -> Parent:
    """Give a fork what its parent was where it leaves it, and return where that is. Raises ConfigError where it cannot be.

    A fork that has begun keeps its place.
    """
    if folder.exists(LEGS):
        return _known(folder, parent)
    origin = open_run(parent, folder.storage)
    if str(origin) == str(folder):
        raise ConfigError(f"fork={parent} is the run itself; give the fork another name")
    if population_of(origin) is not None:
        raise ConfigError(f"fork={parent} is a trial of a population, whose weights may be another's; fork a run")
    plan, before = plan_in(origin), own_policy(origin)
    if not isinstance(plan, LoopPlan):
        raise ConfigError(f"fork={parent} is a run of raylr train; fork it with raylr fork")
    if policy.examples_per_epoch != before.examples_per_epoch:
        raise ConfigError(
            f"fork={parent} has an epoch of {before.examples_per_epoch} examples and the policy one of "
            f"{policy.examples_per_epoch}; a fork goes on with the same data"
        )
    start, step = _joint(origin, parent, at, plan)
    if start >= policy.total_examples:
        raise ConfigError(
            f"fork={parent} is at {start} examples, where the policy of {policy.total_examples} has ended"
        )
    rows = [one for one in origin.read_rows("ledger.jsonl") if one["position"] < start]
    _append(folder, "ledger.jsonl", rows)
    _append(folder, "metrics.jsonl", [one for one in origin.read_rows("metrics.jsonl") if one["position"] <= start])
    _append(folder, "events.jsonl", _lived(origin.read_rows("events.jsonl"), start))
    for ending in ("pt", "json"):
        name = f"checkpoints/{start:012d}.{ending}"
        folder.write_bytes(name, origin.read_bytes(name))
    legs = (*(leg for leg in legs_of(origin) if leg.until < start), Leg(origin.name, start, plan, before))
    folder.write_json(LEGS, [leg.data() for leg in legs])
    return Parent(run=origin.name, position=start, step=step, changes=_changes(before, policy))


def _known(folder: Folder, parent: str) -> Parent:
    plan = plan_in(folder) if folder.exists("plan.json") else None
    found = None if plan is None else plan.parent
    if found is None or found.run != parent.rstrip("/").rpartition("/")[2]:
        there = "no fork" if found is None else f"a fork of {found.run}"
        raise ConfigError(
            f"name={folder.name} is {there}, and this is one of {parent}; use another name, or fresh=True"
        )
    return found


def _joint(origin: Folder, parent: str, at: str | None, plan: LoopPlan) -> tuple[int, int]:
    """Position and step of the newest whole checkpoint at or before `at`, by default of all."""
    lengths = Clock(plan.num_train, plan.total_examples, plan.batch_at(plan.workers[1]))
    latest = plan.total_examples if at is None else examples(at, lengths, "fork_at")
    kept = names(origin)
    for name in reversed(kept):
        if int(name) <= latest:
            try:
                return int(name), int(checkpoint.read(origin, name)["step"])
            except (OSError, ValueError, KeyError):
                continue
    there = ", ".join(f"{int(name) / plan.num_train:.4g}ep" for name in kept) or "none"
    raise ConfigError(
        f"fork={parent} has no whole checkpoint{'' if at is None else f' at or before {at}'}; there are {there}, and a loop of "
        "one's own cannot be replayed to another place"
    )


def _lived(rows: Iterable[Mapping[str, Any]], start: int) -> list[dict[str, Any]]:
    """What was set on the LR up to `start`, without what a restart from before undid."""
    kept: list[Any] = []
    for event in map(event_of_row, rows):
        if isinstance(event, Joined):
            kept = [one for one in kept if one.position <= event.position]
        elif isinstance(event, Overridden | Resized | Forked) and event.position <= start:
            kept.append(event)
    return list(map(row, kept))


def _changes(before: Policy, after: Policy) -> tuple[str, ...]:
    """What the fork's policy changes, in a line for each optimizer; nothing where it is the parent's."""
    changes = []
    if before.total_examples != after.total_examples:
        changes.append(f"{after.total_examples / after.examples_per_epoch:g} epochs")
    for name, schedule in after.schedules:
        if (name, schedule) not in before.schedules:
            shape = schedule.shape.brief(after.examples_per_epoch)
            changes.append(f"{name}: base LR {schedule.base_lr:g}, {shape}")
    return tuple(changes)


def _append(folder: Folder, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    file = folder.append_after(name, [], [json.dumps(one, separators=(", ", ": ")).encode() + b"\n" for one in rows])
    file.flush()
    file.close()
