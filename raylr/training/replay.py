"""A part of a run done again by one rank of a plain group: each update against its row, the state against its checkpoint.

What the run decided by itself follows again by itself. What came from outside is taken from its events and its rows: what a
user set on the LR, and the number of workers where the batch follows it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from raylr.config import DataConfig
from raylr.events import Overridden, event_of_row
from raylr.lr import Override, Policy
from raylr.planning.legs import Leg
from raylr.planning.plan import Plan
from raylr.storage import run_folder
from raylr.training import checkpoint
from raylr.training.data import Dataset
from raylr.training.fork import ForkLoop
from raylr.training.group import Group, connect, form_group, listen
from raylr.training.loop import ledger_row
from raylr.training.membership import Plain
from raylr.training.source import load

OF_THE_STATE = ("model", "optimizers", "average", "overrides", "position", "step", "guard")


@dataclass(frozen=True)
class Difference:
    """The first thing that is not as it stands there: in the row of an update, or in a checkpoint."""

    step: int
    position: int
    what: str
    there: str
    replayed: str


@dataclass(frozen=True)
class Interval:
    """Updates to replay: from the checkpoint at `start` (0: the initialisation) to `stop`; `is_kept`: one is kept there."""

    start: int
    stop: int
    is_kept: bool


@dataclass(frozen=True)
class Record:
    """What stands in a run's folder and is to be compared."""

    storage: str
    name: str
    plan: Plan
    policy: Policy
    legs: tuple[Leg, ...]
    rows: Sequence[Mapping[str, Any]]
    by_hand: Sequence[Mapping[str, Any]]


class Replay(ForkLoop):
    """The state of a run at any of its updates, which follows its legs as a fork does, and writes nothing."""

    def __init__(self, record: Record, dataset: Dataset, group: Group) -> None:
        folder = run_folder(record.storage, record.name)
        super().__init__(record.plan, record.policy, record.legs, dataset, Plain(group), folder)
        found = [event_of_row(row) for row in record.by_hand]
        self.by_hand += [event for event in found if isinstance(event, Overridden)]
        self.group, self.rows = group, {row["position"]: row for row in record.rows}

    def begin(self, start: int) -> None:
        """Take the state of the checkpoint there."""
        if start:
            self.load(checkpoint.read(self.folder, f"{start:012d}"))
        self.size = self.totals.world_size

    def differing_row(self) -> Difference | None:
        """Do the next update, and return the first field in which its row differs."""
        row = self.rows[self.trainer.position]
        self.go_on_in_leg()
        self._follow_rows(row)
        update = self.trainer.update(self.group)
        found = ledger_row(update, self.plan.num_train)
        for key, value in found.items():
            if key != "world_size" and key in row and row[key] != value:
                return Difference(update.step, update.position, *_innermost(key, row[key], value))
        return None

    def differing_state(self) -> Difference | None:
        """The first part of the state that is not as in the checkpoint here."""
        there = checkpoint.read(self.folder, f"{self.trainer.position:012d}")
        self._go_on_as(there)
        own = self.state()
        for part in OF_THE_STATE:
            if (path := _other(there.get(part), own.get(part), part)) is not None:
                place = self.trainer.step - 1, self.trainer.position
                return Difference(*place, f"the checkpoint after it, {path}", "other bits", "those of the replay")
        return None

    def _go_on_as(self, there: Mapping[str, Any]) -> None:
        """Do here what had been done when the checkpoint was written: at a joint, or where a user set a factor."""
        while self.number < there.get("leg", 0):
            self.join_next_leg()
        known = {Override(**entry) for entry in there["overrides"]}
        for event in self.by_hand:
            if event.position == self.trainer.position and set(event.entries()) <= known:
                self.set_by_hand(event)

    def _follow_rows(self, row: Mapping[str, Any]) -> None:
        """Where the batch follows the workers, have as many as the run had."""
        plan = self.parts[self.number][0]
        if plan.per_worker_size is None:
            return
        size, old = row["world_size"], self.size or row["world_size"]
        before, now = (plan.batch_at(one, self.trainer.position) for one in (old, size))
        if before != now:
            self.trainer.policy = self.trainer.policy.resized(self.trainer.position, before, now, plan.rewarm)
        self.size = size
        self.trainer.plan = plan.model_copy(update={"global_batch": now, "per_worker_size": None})


def replay(
    record: Record, intervals: Sequence[Interval], dataset: Dataset, group: Group, tell: Callable[[int], None]
) -> Difference | None:
    """Replay the intervals as one rank of the group; the first difference, on all ranks the same. `tell` hears each update."""
    for interval in intervals:
        loop = Replay(record, dataset, group)
        loop.begin(interval.start)
        while loop.trainer.position < interval.stop:
            if (found := loop.differing_row()) is not None:
                return found
            tell(1)
        if interval.is_kept and (found := loop.differing_state()) is not None:
            return found
    return None


def _innermost(key: str, there: Any, found: Any) -> tuple[str, str, str]:
    """The first entry that differs in two values of a row, by name."""
    if isinstance(there, dict) and isinstance(found, dict):
        for name in sorted(found.keys() | there.keys()):
            if there.get(name) != found.get(name):
                return _innermost(f"{key}.{name}", there.get(name), found.get(name))
    return key, repr(there), repr(found)


def _other(there: Any, own: Any, path: str) -> str | None:
    """Where two states differ, to the bit; None where they do not."""
    if isinstance(there, torch.Tensor) and isinstance(own, torch.Tensor):
        return None if _same_bits(there, own.cpu()) else path
    if isinstance(there, Mapping) and isinstance(own, Mapping):
        for name in sorted(map(str, there.keys() | own.keys())):
            if (found := _other(there.get(name), own.get(name), f"{path}/{name}")) is not None:
                return found
        return None
    if isinstance(there, list | tuple) and isinstance(own, list | tuple) and len(there) == len(own):
        pairs = enumerate(zip(there, own, strict=True))
        return next((found for number, (a, b) in pairs if (found := _other(a, b, f"{path}/{number}"))), None)
    both_nan = isinstance(there, float) and isinstance(own, float) and math.isnan(there) and math.isnan(own)
    return None if there == own or both_nan else path


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    first, second = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other))
    return bool(torch.equal(first, second))


def replay_rank(
    place: int,
    size: int,
    port: int,
    record: Record,
    intervals: Sequence[Interval],
    data: DataConfig,
    told: Callable[[int], Any],
) -> Difference | None:
    """One rank of a replay in a plain process: meet the others at the port, and replay."""
    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    plan = record.plan
    device = torch.device(plan.device)
    group = form_group(store, 1, place, size, device, plan.stall_s, plan.reduce == "ddp") if size > 1 else Group()
    return replay(record, intervals, load(record.plan, data), group, told if place == 0 else lambda count: None)
