"""A training loop of one's own under a policy: LR, ledger, checkpoints and orders, by a few calls in it.

The clock is examples over all ranks, as everywhere. The loop's own code computes the losses and steps the optimizers, so there
is no promise of equal bits. Rank 0 writes; what it decides reaches the others by a small broadcast on the group that is there:
in every report, and in `before_step` about every two seconds, counted in updates that rank 0 gives out each time.
"""

import json
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from raylr.errors import ConfigError
from raylr.events import (
    CheckpointOrder,
    Copied,
    LROrder,
    Overridden,
    Progress,
    RejoinOrder,
    Resized,
    RunEvent,
    StopOrder,
    orders_of_json,
    orders_to_json,
)
from raylr.lr import Factors, Override, Policy
from raylr.planning.loop_plan import LoopPlan
from raylr.training.attached.counting import Pace, Steps
from raylr.training.attached.driver import Driver
from raylr.training.attached.group import device_of
from raylr.training.attached.numbers import plain_numbers
from raylr.training.attached.record import Record
from raylr.training.attached.state import Attached
from raylr.training.attached.surroundings import Surroundings

T = TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """How far a loop is. `epoch` counts the passes that are over; `in_epoch` are the examples since this one began.

    `is_through`: the loader has given all; `length` is what the pass before had in examples, 0 before one is over.
    """

    position: int = 0
    step: int = 0
    epoch: int = 0
    in_epoch: int = 0
    is_through: bool = False
    length: int = 0
    world_size: int = 0
    last_order: int = 0
    wall_s: float = 0.0


class OwnLoop:
    """What `raylr.loop.attach` returns, on each rank.

    `position` is the number of examples of all updates so far, over all ranks, and `step` the number of updates. `stopping` is
    True once the run was ordered to stop.
    """

    def __init__(
        self, attached: Attached, driver: Driver, plan: LoopPlan, surroundings: Surroundings, record: Record | None
    ) -> None:
        self._attached, self._driver, self.plan = attached, driver, plan
        self._surroundings, self._record = surroundings, record
        self._group = surroundings.group
        self._device = device_of(self._group)
        self._clock = Clock(world_size=self._group.size)
        self._since = time.monotonic()  # that `wall_s` of the clock leaves out
        self._lr: dict[str, float] = {}
        self._last: dict[str, float | None] = {}  # the metrics of the last report
        self.stopping = self.ended = False
        self._pace, self._until_sync = Pace(), 1
        self._steps = Steps(attached.optimizers.values())
        self._passes = 0  # of this start

    # --- where the loop is

    @property
    def rank(self) -> int:
        return int(self._group.group_rank)

    @property
    def world_size(self) -> int:
        return int(self._group.size)

    @property
    def position(self) -> int:
        return self._clock.position

    @property
    def step(self) -> int:
        return self._clock.step

    @property
    def lr(self) -> dict[str, float]:
        """The LR of the last update by optimizer."""
        return self._lr

    @property
    def metrics(self) -> dict[str, float | None]:
        """What the last report had; None for a value that is not finite."""
        return self._last

    @property
    def policy(self) -> Policy:
        """The policy with the overrides set so far."""
        return self._driver.policy

    @property
    def global_batch(self) -> int:
        """The examples of the update to come, over all ranks."""
        return self._driver.batch_at(self.position)

    @property
    def local_batch(self) -> int:
        """This rank's share of them. Raises ConfigError where the ranks cannot share them equally."""
        batch, size = self.global_batch, self.world_size
        if batch % size:
            raise ConfigError(
                f"global_batch={batch} is no multiple of the {size} ranks; use {batch // size * size or size}, or other ranks"
            )
        return batch // size

    @property
    def is_over(self) -> bool:
        """True where no further update fits into the policy's length, or the run was stopped."""
        return self.stopping or self.position + self.global_batch > self.plan.total_examples

    @property
    def run_dir(self) -> str | None:
        """The run's folder, on the rank that writes."""
        return None if self._record is None else str(self._record.folder)

    # --- the calls of the user's loop

    def epochs(self) -> Iterator[int]:
        """Yield the number of each pass over the data, from where the run is, and end the run after the last.

        A run that goes on in the middle of a pass yields that one again; `rest` leaves out what was trained of it.
        """
        total = -(-self.plan.total_examples // self.plan.num_train)
        try:
            while not self.ended and not self.stopping and self._clock.epoch < total and not self._is_past():
                self._passes += 1
                yield self._clock.epoch
                if not self.stopping:
                    self._end_pass()
        finally:
            if self._record is not None:
                self._record.wait()
        if not self.ended:
            self.finish()

    def rest(self, loader: Iterable[T]) -> Iterator[T]:
        """Yield the batches of a pass that are not trained yet, and none after an order to stop.

        A batch stands for one update; those that a resumed pass has had are drawn and left out.
        """
        done, update = self._clock.in_epoch, 0
        self._clock = replace(self._clock, is_through=False)
        for batch in loader:
            if update < done:
                update += self._driver.batch_at(self.position - done + update)
                continue
            if self.stopping:
                return
            yield batch
        self._clock = replace(self._clock, is_through=True)

    def before_step(self, num_examples: int | None = None) -> None:
        """Write the LR of the update to come into the optimizers, put its row into the ledger, and move on.

        Call it on every rank before each update. `num_examples` is for one of another size than the global batch, such as a
        smaller last one: the examples over all ranks.
        """
        if self._until_sync <= 0:
            self._obey()
        self._until_sync -= 1
        batch = self.global_batch if num_examples is None else num_examples
        if batch < 1:
            raise ConfigError(f"num_examples={batch} must be at least 1, the examples of the update over all ranks")
        factors = self._driver.write(self.position, batch)
        self._lr = {name: one.lr for name, one in factors.items()}
        if self._record is not None:
            self._record.ledger.append(self._row(factors, batch))
        clock = self._clock
        self._clock = replace(
            clock, position=clock.position + batch, step=clock.step + 1, in_epoch=clock.in_epoch + batch
        )
        self._steps.written += 1

    def report(self, *, checkpoint: bool = True, **metrics: Any) -> None:
        """Keep metrics and a checkpoint, and carry out what was ordered. Call it on every rank; rank 0's metrics are kept.

        Raises ConfigError where an optimizer was stepped without `before_step`, or a metric is no number.
        """
        self._steps.refuse_forgotten()
        self._last = plain_numbers(metrics)
        if self.ended:
            return
        row = {**self._at(), "wall_s": self.wall_s, **self._last}
        if self._record is not None:
            self._record.metrics.append(row)
            self._record.note_checkpoints()
        is_kept = checkpoint and self.position > 0 and self._surroundings.keeps_reports
        if is_kept:
            self._checkpoint()
        self._obey()
        self._surroundings.reported(self, row, self.run_dir if is_kept else None)

    def finish(self) -> None:
        """End the run: `complete`, or `stopped` where that was ordered. `epochs` does so by itself."""
        if self.ended:
            return
        self._surroundings.finishing(self)
        self.ended = True
        if self._record is None:
            return
        record = self._record
        if self.position and not record.is_kept(self.position):
            self._checkpoint()
        problem = record.wait()
        status = "failed" if problem is not None else "stopped" if self.stopping else "complete"
        reason = {} if problem is None else {"reason": problem}
        self._surroundings.finished(record.end({"status": status, **reason, **self._result()}, self.position))

    def close(self) -> None:
        """Let the run's folder go without an end, so that another loop may go on with it."""
        if self._record is not None and not self.ended:
            self._record.wait()
            self._record.close()
        self.ended = True

    # --- inside

    @property
    def wall_s(self) -> float:
        """Seconds of all starts of the run."""
        return self._clock.wall_s + time.monotonic() - self._since

    def state(self) -> dict[str, Any]:
        """All that a start needs: what a checkpoint holds."""
        clock = replace(self._clock, wall_s=self.wall_s)
        tally = {name: self._last.get(name) for name in ("test_accuracy",)} | {"evaluated_at": self.position}
        return {
            **self._attached.state(),
            "position": clock.position,
            "step": clock.step,
            "clock": dict(vars(clock)),
            "policy": replace(self.policy, overrides=()).to_json(),
            "overrides": [dict(vars(override)) for override in self.policy.overrides],
            "metrics": self._last,
            "surroundings": self._surroundings.state(),
            "tally": tally if self._last.get("test_accuracy") is not None else {},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state that `state` gave, perhaps of another number of ranks. The LR is no part of it."""
        self._attached.load(state)
        self._clock = Clock(**state["clock"])
        self._since, self._last = time.monotonic(), dict(state["metrics"])
        overrides = tuple(Override(**one) for one in state["overrides"])
        self._driver.policy = replace(Policy.from_json(state["policy"]), overrides=overrides)
        self._surroundings.load(state["surroundings"])

    def leave(self, policy: Policy) -> None:
        """Go on under a fork's own policy; what was set on the LR still holds."""
        self._driver.policy = replace(policy, overrides=self.policy.overrides)

    def override(self, event: Overridden | Copied) -> None:
        """Set a factor on all LRs from here on, and note why."""
        self._driver.policy = self.policy.with_overrides(*event.entries())
        self._note(event)

    def keep_now(self) -> None:
        """Return once the state here is in a whole checkpoint; on the rank that writes. Raises OSError where it is not."""
        if self._record is not None:
            if not self._record.is_kept(self.position):
                self._checkpoint()
            if (problem := self._record.wait()) is not None:
                raise OSError(problem)

    def hashes(self) -> tuple[str, str]:
        """SHA-256 of the weights and of the optimizers' state."""
        return self._attached.weights_sha256(), self._attached.optimizer_sha256()

    def progress(self) -> Progress:
        """How far the loop is; what only its author knows is not known."""
        return Progress(
            position=self.position,
            total=self.plan.total_examples,
            step=self.step,
            epoch=self.position / self.plan.num_train,
            lr=self._lr,
            train_loss=None,
            train_accuracy=None,
            images_per_s=None,
            world_size=self.world_size,
            global_batch=self.global_batch,
        )

    def leave_pass(self) -> None:
        """Begin with the next pass where the state was kept at the end of one: in its last report, most often."""
        clock, whole = self._clock, (self._clock.length or self.plan.num_train)
        if clock.in_epoch and (clock.is_through or clock.in_epoch >= whole):
            self._next_pass()

    def follow_size(self) -> None:
        """Note another number of ranks than the state had; where the batch follows it, the policy does too."""
        before, self._clock = self._clock.world_size, replace(self._clock, world_size=self.world_size)
        if before == self.world_size:
            return
        self._note(Resized(*self._now(), before, self.world_size))
        old, new = (self.plan.batch_at(size, self.position) for size in (before, self.world_size))
        self._driver.policy = self.policy.resized(self.position, old, new, self.plan.rewarm)

    def _is_past(self) -> bool:
        """True where the policy's length is reached, at the begin of a pass."""
        return self.position >= self.plan.total_examples

    def _end_pass(self) -> None:
        """Count a pass; say once where it had other examples than the policy's epoch."""
        seen, own = self._clock.in_epoch, self.plan.num_train
        if self._passes == 1 and seen != own and self.rank == 0:
            rule = "fewer than" if seen < own else "more than"
            advice = (
                f"drop_last or a short loader leaves some out, and the LR ends before its last value; make the policy for "
                f"{seen:,} examples per epoch"
                if seen < own
                else "give before_step the number of examples of a smaller last batch"
            )
            warnings.warn(f"a pass had {seen:,} examples, {rule} the policy's epoch of {own:,}: {advice}", stacklevel=3)
        self._next_pass()

    def _next_pass(self) -> None:
        clock = self._clock
        self._clock = replace(clock, epoch=clock.epoch + 1, in_epoch=0, is_through=False, length=clock.in_epoch)

    def _at(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "position": self.position,
            "epoch": self.position / self.plan.num_train,
            "lr": self._lr,
            "world_size": self.world_size,
            "global_batch": self.global_batch,
        }

    def _row(self, factors: Mapping[str, Factors], batch: int) -> dict[str, Any]:
        own = {"factors": {name: vars(one) for name, one in factors.items()}}
        return {**self._at(), "global_batch": batch, **own, "causes": list(self.policy.causes(self.position))}

    def _now(self) -> tuple[float, int]:
        return time.time(), self.position

    def _note(self, event: RunEvent) -> None:
        if self._record is not None:
            self._record.note(event)

    def _checkpoint(self, number: int | None = None, cause: str | None = None) -> None:
        if self._record is not None:
            self._record.keep(self.state(), number, cause)

    def _obey(self) -> None:
        """Carry out the orders that wait, as rank 0 lists them, on all ranks; and agree when to ask again."""
        own = b""
        if self._record is not None:
            orders = self._surroundings.orders(self._record.folder, self._clock.last_order)
            own = json.dumps([self._pace.updates(self.step), orders_to_json(orders).decode()]).encode()
        agreed = json.loads(self._group.broadcast_bytes(own, 0, self._device))
        self._until_sync = agreed[0]
        for order in orders_of_json(agreed[1].encode()):
            match order:
                case LROrder(factor, for_examples, number):
                    self.override(Overridden(*self._now(), "user", factor, for_examples, number))
                case CheckpointOrder(cause, number):
                    self._checkpoint(number, cause)
                case StopOrder():
                    self.stopping = True
                case RejoinOrder():
                    pass  # ranks are those of the start
            self._clock = replace(self._clock, last_order=max(order.number, self._clock.last_order))
        if self._record is not None:
            self._record.note_checkpoints()
            if orders:
                self._record.flush_events()
                self._surroundings.done(self._record.folder, self._clock.last_order)

    def _result(self) -> dict[str, Any]:
        known: dict[str, Any] = {
            name: self._last[name] for name in ("test_accuracy", "test_loss") if name in self._last
        }
        return {
            "task": self.plan.task,
            **known,
            "metrics": self._last,
            "epochs": self.position / self.plan.num_train,
            "steps": self.step,
            "position": self.position,
            "wall_s": self.wall_s,
            **dict(zip(("weights_sha256", "optimizer_sha256"), self.hashes(), strict=True)),
            "policy_sha256": self.policy.sha256,
        }
