"""A loop of one's own as a rank of a trial: at every interval its report is a round, after which it may become another's copy.

At the first report at or after a multiple of the interval rank 0 keeps the state in a checkpoint and says how the trial stands;
then each rank asks for the decision. An exploit loads the donor's checkpoint of the same round into what is attached, in the
process that lives, and sets the new factor on the LR.
"""

import json
import os
import time
from collections.abc import Mapping
from typing import Any, Protocol

from raylr.errors import ConfigError, RaylrError
from raylr.events import Copied, Copy, Decision, LoopAttached, Order, Progress, Stop, Train, TrialReport
from raylr.lr import Clock, Policy, examples
from raylr.planning.loop_plan import LoopPlan
from raylr.storage import Folder, run_folder
from raylr.training import checkpoint
from raylr.training.attached.loop import OwnLoop
from raylr.training.group import Group
from raylr.training.loop import is_due

PROGRESS_S = 2.0


class Asks(Protocol):
    """How the ranks of a trial speak with the population."""

    def begin(self) -> Mapping[str, Any]:
        """What the trial starts with: its policy, and the round after which it has its turn. Waits for it."""

    def report(self, news: LoopAttached | TrialReport | Copied | Progress) -> None:
        """Tell the population; must neither block nor fail."""

    def decision(self, number: int) -> Decision:
        """What this trial does after a round; waits until it is known."""

    def orders(self, since: int) -> list[Order]:
        """The orders with a number above `since`."""

    def end(self, result: dict[str, Any]) -> None:
        """Leave the trial's result."""


class Rounds:
    """The surroundings of a loop in a trial. `interval` is a duration, `score` the metric that trials are compared by."""

    keeps_reports = False  # a round's checkpoint must still be there when another trial reads it

    def __init__(self, group: Group, asks: Asks, storage: str, trial: str, interval: str, score: str) -> None:
        self.group, self.asks, self.storage, self.trial = group, asks, storage, trial
        self.score, self._interval_text = score, interval
        self.interval, self.round, self.decided_at = 0, 0, 0
        self.loop: OwnLoop | None = None  # once there is one
        self._is_last = False  # the last round was that of the end
        self._told_at = 0.0

    def place(self, storage: str, name: str) -> tuple[str, str]:
        """The trial's own folder, wherever the loop would write by itself."""
        return self.storage, self.trial

    def policy_for(self, policy: Policy, plan: LoopPlan) -> Policy:
        """The loop's policy with the base LR of the trial."""
        if self.loop is not None:
            raise ConfigError(
                "raylr.loop.attach was called twice in one trial; call it once, with all models and optimizers"
            )
        lengths = Clock(plan.num_train, plan.total_examples, plan.batch_at(plan.workers[1]))
        self.interval = examples(self._interval_text, lengths, "interval")
        if self.group.group_rank == 0:
            self.asks.report(LoopAttached(policy.to_json(), plan.model_dump(mode="json")))
        own = self.asks.begin()
        self.round = own["round"]
        return Policy.from_json(json.dumps(own["policy"]))

    def orders(self, folder: Folder, since: int) -> list[Order]:
        """Those of the population; between two reports they are how the display hears how far the loop is, too."""
        if self.loop is not None and time.monotonic() - self._told_at >= PROGRESS_S:
            self._told_at = time.monotonic()
            self.asks.report(self.loop.progress())
        return self.asks.orders(since)

    def done(self, folder: Folder, number: int) -> None:
        """Do nothing: the population counts its orders."""

    def begun(self, loop: OwnLoop) -> None:
        """Take the round that was reported and not decided before a restart."""
        self.loop = loop
        if loop.position and not loop.ended:
            self._take_round(loop)

    def reported(self, loop: OwnLoop, row: Mapping[str, Any], kept_in: str | None) -> None:
        """Do a round where one is due."""
        self._take_round(loop)

    def finishing(self, loop: OwnLoop) -> None:
        """Do the round of the end, unless the last report was it."""
        if not self._is_last and not loop.stopping:
            self._do(loop, ended=True)

    def finished(self, result: dict[str, Any]) -> None:
        self.asks.end(result)

    def state(self) -> dict[str, Any]:
        return {"round": self.round, "decided_at": self.decided_at}

    def load(self, state: Mapping[str, Any]) -> None:
        self.round, self.decided_at = state["round"], state["decided_at"]

    def _take_round(self, loop: OwnLoop) -> None:
        ended = loop.position + loop.global_batch > loop.plan.total_examples
        if is_due(loop.position, self.decided_at, self.interval, ended):
            self._do(loop, ended)

    def _do(self, loop: OwnLoop, ended: bool) -> None:
        number, position = self.round + 1, loop.position
        if self.score not in loop.metrics:
            there = f"it has {', '.join(loop.metrics)}" if loop.metrics else "there was none"
            raise ConfigError(f"score={self.score} is not in the loop's report, {there}; report it, or use --score")
        if self.group.group_rank == 0:
            loop.keep_now()  # another trial may have to copy it
            self.asks.report(self._report(loop, number, ended))
        match Train() if ended else self.asks.decision(number):
            case Train():
                pass
            case Stop():
                loop.stopping = True
            case Copy() as order:
                self._copy(loop, order)
        self.round, self.decided_at, self._is_last = number, position, ended

    def _report(self, loop: OwnLoop, number: int, ended: bool) -> TrialReport:
        weights, optimizer = loop.hashes()
        return TrialReport(
            round=number,
            ended=ended,
            position=loop.position,
            test_accuracy=loop.metrics.get("test_accuracy"),
            test_loss=loop.metrics.get("test_loss"),
            lr=loop.lr,
            weights_sha256=weights,
            optimizer_sha256=optimizer,
            overrides=tuple(dict(vars(entry)) for entry in loop.policy.overrides),
            train_s=loop.wall_s,
            own=loop.metrics,
        )

    def _copy(self, loop: OwnLoop, order: Copy) -> None:
        """Become the donor in what is attached, and go on under the decided factor. No process restarts."""
        position, donor = loop.position, run_folder(self.storage, order.donor)
        try:
            state = checkpoint.read(donor, f"{position:012d}")
        except OSError as error:
            raise RaylrError(
                f"{order.donor} has no checkpoint at position {position:,}, where {self.trial} is now: the "
                f"loops of a population must report at the same positions ({error})"
            ) from error
        loop.load(state)
        weights, optimizer = loop.hashes()
        order.require(weights, optimizer)
        done = Copied(time.time(), position, os.getpid(), order.round, order.donor, order.factor, weights, optimizer)
        loop.override(done)
        self.asks.report(done)
