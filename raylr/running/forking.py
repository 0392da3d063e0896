"""A fork on the driver: a run that begins with its parent's checkpoint and rows, and replays it up to the joint."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from raylr.config import Config
from raylr.config.load import config_of_record
from raylr.errors import ConfigError
from raylr.events import Copied, Forked, Overridden, Resized, RolledBack, row
from raylr.planning.facts import DatasetInfo, Features, Hardware
from raylr.planning.fork import END, OF_THE_START, Origin, origin_of, resolve_fork
from raylr.planning.legs import LEGS, Leg, leg_at
from raylr.reporting.lived import events_that_count
from raylr.running.difference import AnotherRun
from raylr.running.driver import Listener, Run, RunResult, request_for
from raylr.running.job import carry_out
from raylr.running.machines import differences_here
from raylr.running.ray_internals.features import features
from raylr.storage import Folder, open_run, population_of
from raylr.training.checkpoint_index import FORMAT_VERSION, INITIAL, names, note

ROWS = ("ledger.jsonl", "metrics.jsonl")


@dataclass(frozen=True)
class ForkOrder:
    """What to fork, where, and how: `changes` are fields of the config, by dotted key."""

    run: str
    at: str
    cooldown: str | None = None
    changes: Mapping[str, Any] | None = None
    name: str | None = None  # of the fork where `changes` gives none
    final_test: bool = True  # with a validation split, read the test images once, at the end


def origin(order: ForkOrder) -> tuple[Origin, Config]:
    """The parent, and the config of the fork. Raises ConfigError where there is no such run, or it cannot be forked."""
    changes = {key: str(value) for key, value in (order.changes or {}).items()}
    try:
        folder = open_run(order.run, changes.get("storage", "runs"))
        if population_of(folder) is not None:
            raise ConfigError(
                f"run={order.run} is a trial of a population, whose weights came from others; train its best_policy.json"
            )
        found = origin_of(folder)
        record = {"storage": folder.storage} | {
            key: value
            for key, value in folder.read_json("config.json").items()
            if key not in ("name", "storage", *OF_THE_START)
        }
    except OSError as error:
        raise ConfigError(f"run={order.run} cannot be read ({error}); is its storage away?") from None
    where = "end" if order.at == END else order.at
    named = {"name": order.name or f"{folder.name}-at-{where}", **changes}
    return found, config_of_record(record, named)


def fork(order: ForkOrder, on_event: Listener | None = None) -> RunResult:
    """Train a fork to its end, or go on with it, and return its result.

    Raises ConfigError for a request that is refused before anything starts, RaylrError for a run that failed.
    """
    parent, config = origin(order)
    if config.name == parent.name and config.storage == parent.folder.storage:
        raise ConfigError(f"name={config.name} is the run that is forked; use another --name")

    def resolved(info: DatasetInfo, hardware: Hardware) -> Fork:
        return resolved_fork(parent, order, config, info, hardware, features())

    run_dir, result = carry_out(request_for(config, resolved), on_event or (lambda news: None))
    return RunResult(run_dir=run_dir, **result)


def resolved_fork(
    parent: Origin, order: ForkOrder, config: Config, info: DatasetInfo, hardware: Hardware, features: Features
) -> "Fork":
    """The fork in numbers, with where it starts and what it replays in its story."""
    plan, policy, legs = resolve_fork(
        parent, order.at, order.cooldown, config, info, hardware, features, order.final_test
    )
    joint = legs[-1].until
    by_hand = [event for event in events_that_count(parent.folder) if isinstance(event, Overridden)]
    set_before = tuple(row(event) for event in by_hand if event.cause == "user" and event.position <= joint)
    legs = (*legs[:-1], replace(legs[-1], by_hand=set_before))
    start = start_of(parent.folder, joint)
    _refuse_other_batches(parent, legs, plan.workers, start)
    replayed = (joint - start) / plan.num_train
    from_where = (
        f"the checkpoint at position {start:,}" if start else "the initialisation: no checkpoint before it is kept"
    )
    what = f"from {from_where}" + (f", then {replayed:.4g}ep of the parent again" if replayed else "")
    reason = plan.story[0].model_copy(
        update={"what": "starts", "value": what, "why": "the newest at or before the joint"}
    )
    warnings = plan.warnings
    if any(event.cause == "user" and event.position > joint for event in by_hand):
        warnings = (*warnings, f"{parent.name} was changed by hand after the joint; the fork is not")
    if other := differences_here(parent.folder, parent.plan):
        warnings = (*warnings, f"the fork may have other bits than {parent.name}: {'; '.join(other)}")
    told = {"story": (*plan.story[:2], reason, *plan.story[2:]), "warnings": warnings}
    return Fork(config, plan.model_copy(update=told), policy, legs, parent.folder)


def _refuse_other_batches(parent: Origin, legs: Sequence[Leg], workers: tuple[int, int], start: int) -> None:
    """What is replayed must have the batches that it had, where they follow the workers."""
    sizes = range(workers[0], workers[1] + 1)
    for one in parent.rows:
        position, batch = one["position"], one["global_batch"]
        if not start <= position < legs[-1].until:
            continue
        plan = legs[leg_at(legs, position)].plan
        if any(plan.batch_at(size, position) != batch for size in sizes):
            raise ConfigError(
                f"workers={workers[0]}:{workers[1]} do not give the global batch of {batch} that {parent.name} had at position "
                f"{position:,}, which the fork has to replay; use workers={one['world_size']}, or fork at a checkpoint"
            )


@dataclass(frozen=True)
class Fork(Run):
    """A fork as a job."""

    legs: tuple[Leg, ...]
    parent: Folder

    def agreed(self, folder: Folder) -> Self:
        """As any run, and that it leaves the same parent at the same update."""
        if not self.config.fresh and folder.exists("plan.json"):
            old, own = folder.read_json("plan.json").get("parent"), self.plan.parent
            there = "no fork" if old is None else f"a fork of {old['run']} at update {old['step']}"
            assert own is not None
            if old is None or (old["run"], old["step"]) != (own.run, own.step):
                raise AnotherRun(
                    f"name={folder.name} is {there}, and this is one of {own.run} at update {own.step}; use --fresh, or "
                    "another --name"
                )
        return super().agreed(folder)

    def write_plan(self, folder: Folder) -> None:
        super().write_plan(folder)
        if not folder.exists(LEGS):
            seed(folder, self.parent, self.legs)

    def more_settings(self, folder: Folder) -> dict[str, Any]:
        return {"legs": folder.read_json(LEGS)}


def start_of(parent: Folder, joint: int) -> int:
    """The position of the newest whole checkpoint at or before the joint; 0 where there is none."""
    return int(next((name for name in reversed(names(parent)) if int(name) <= joint and is_whole(parent, name)), "0"))


def is_whole(folder: Folder, name: str) -> bool:
    """Whether a checkpoint is there as its note says. Knows no torch."""
    try:
        about, data = note(folder, name), folder.read_bytes(f"checkpoints/{name}.pt")
        return bool(about["format"] == FORMAT_VERSION and hashlib.sha256(data).hexdigest() == about["sha256"])
    except (OSError, ValueError, KeyError):
        return False


def seed(folder: Folder, parent: Folder, legs: Sequence[Leg]) -> None:
    """Give a fork its parent's checkpoint, and its rows and what happened to its LR up to there. The legs come last."""
    give_start(folder, parent, start_of(parent, legs[-1].until))
    folder.write_json(LEGS, [leg.data() for leg in legs])


def give_start(folder: Folder, parent: Folder, start: int) -> None:
    """Give a run its parent's checkpoint at `start`, and its rows and what happened to its LR up to there."""
    for name in ROWS:
        most = start - 1 if name == "ledger.jsonl" else start
        _append(folder, name, [one for one in parent.read_rows(name) if one["position"] <= most])
    told = (Overridden, RolledBack, Resized, Copied, Forked)
    events = [event for event in events_that_count(parent) if isinstance(event, told) and event.position <= start]
    _append(folder, "events.jsonl", list(map(row, events)) if start else [])
    if parent.exists(INITIAL):
        folder.write_bytes(INITIAL, parent.read_bytes(INITIAL))
    if start:
        name = f"checkpoints/{start:012d}"
        folder.write_bytes(f"{name}.pt", parent.read_bytes(f"{name}.pt"))
        folder.write_bytes(f"{name}.json", parent.read_bytes(f"{name}.json"))


def _append(folder: Folder, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    file = folder.append_after(name, [], [json.dumps(one, separators=(", ", ": ")).encode() + b"\n" for one in rows])
    file.flush()
    file.close()
