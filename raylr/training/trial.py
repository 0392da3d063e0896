"""The loop of one rank of a trial: it trains as any run does, and at every interval asks what to do next.

At the first update boundary at or after a multiple of the interval a trial has been tested and kept in a checkpoint. Then
each of its ranks asks for the decision of that round. An exploit loads the donor's checkpoint of the same round: weights,
optimizer state, BatchNorm statistics, totals, position, base policy and overrides; then the new factor is set on it.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from raylr.events import Copied, Copy, Decision, Stop, Train, TrialReport
from raylr.lr import Policy
from raylr.planning.plan import Plan
from raylr.storage import Folder, run_folder
from raylr.training import checkpoint
from raylr.training.data import Dataset
from raylr.training.ddp import trainer_for
from raylr.training.group import GroupUnusable
from raylr.training.loop import Loop, is_due
from raylr.training.membership import Membership, Quorum


class Asks(Protocol):
    """The interface through which a trial's ranks report and get decisions."""

    def report(self, news: TrialReport | Copied) -> None:
        """Say how the trial stands after a round, or what a rank has done; must neither block nor fail."""

    def decision(self, number: int) -> Decision:
        """What this trial does after the round; waits until it is known."""


class TrialLoop(Loop):
    """One rank's part of a trial. `changes` are the fields of the population's plan that are this trial's own.

    Rounds are counted on from `first_round`, after which the trial had its turn. At `begins_at`, if that is not 0, it begins
    with the checkpoint of another trial, which was the same up to there; from there on policy and changes are its own.
    """

    def __init__(
        self,
        plan: Plan,
        changes: Mapping[str, Any],
        policy: Policy,
        dataset: Dataset,
        membership: Membership,
        folder: Folder,
        asks: Asks,
        first_round: int = 0,
        begins_at: int = 0,
    ) -> None:
        self.common, self.changes, self.asks = plan, dict(changes), asks
        plan = changed(plan, changes)
        super().__init__(trainer_for(plan)(plan, policy, dataset), membership, folder)
        self.round, self.decided_at = first_round, begins_at  # the last round that was decided, and where
        self._first = self._own()

    def _advance(self, quorum: Quorum) -> str | None:
        """As every loop, but at the end of an interval, once all that is due was done there, wait for the decision."""
        position, totals = self.trainer.position, self.totals
        ended = not self.trainer.fits(quorum.group.size)
        is_kept = position == totals.evaluated_at == totals.checkpointed_at
        if is_kept and is_due(position, self.decided_at, self.plan.eval_every, ended):
            return self._end_round(quorum, ended)
        return super()._advance(quorum)

    def _fail(self, error: GroupUnusable) -> dict[str, Any]:
        """Fail the whole population: the other trials would wait for this one's report."""
        raise error

    def _update(self, quorum: Quorum) -> str | None:
        """A trial that diverges time and again is not stopped: it counts as the worst, and may become another's copy."""
        status = super()._update(quorum)
        return None if status == "diverged" else status

    def _end_round(self, quorum: Quorum, ended: bool) -> str | None:
        number, position = self.round + 1, self.trainer.position
        if self._writes(quorum):
            if (problem := self._keep_last()) is not None:  # another trial may have to copy it
                raise OSError(problem)
            self.asks.report(self._report(number, ended))
        match Train() if ended else self.asks.decision(number):
            case Train():
                pass
            case Stop():
                return "stopped"
            case Copy() as order:
                self._copy(order)
        self.round, self.decided_at = number, position
        return None

    def _report(self, number: int, ended: bool) -> TrialReport:
        totals, trainer = self.totals, self.trainer
        lost = trainer.guard.exhausted
        return TrialReport(
            round=number,
            ended=ended,
            position=trainer.position,
            test_accuracy=None if lost else totals.test_accuracy,
            test_loss=None if lost else totals.test_loss,
            lr=totals.lr,
            weights_sha256=trainer.weights_sha256(),
            optimizer_sha256=trainer.optimizer_sha256(),
            overrides=tuple(vars(entry) for entry in trainer.policy.overrides),
            train_s=totals.total_train_s,
            task_score=None if lost else totals.score,
        )

    def _copy(self, order: Copy) -> None:
        """Become the donor, and go on under the decided factor and changes. No process restarts."""
        position, donor = self.trainer.position, run_folder(self.folder.storage, order.donor)
        state = checkpoint.read(donor, f"{position:012d}")
        state["trial"] = {**state["trial"], "changes": dict(order.changes)}
        self.load(state)
        weights, optimizer = self.trainer.weights_sha256(), self.trainer.optimizer_sha256()
        order.require(weights, optimizer)
        factors = dict(order.factors) or None
        done = Copied(*self._now(), os.getpid(), order.round, order.donor, order.factor, weights, optimizer, factors)
        self.trainer.policy = self.trainer.policy.with_overrides(*done.entries())
        self._note(done)
        if not self._is_writer:  # which has published it
            self.asks.report(done)

    def state(self) -> dict[str, Any]:
        """The run's state, and what a trial has beside it: its base policy, its changes, the last round decided."""
        return {**super().state(), "trial": self._own()}

    def _own(self) -> dict[str, Any]:
        base = replace(self.trainer.policy, overrides=())
        return {"round": self.round, "decided_at": self.decided_at, "policy": base.to_json(), "changes": self.changes}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` gave. Where its changes are others, the trainer is built again, in place."""
        own = state["trial"]
        if state["position"] == self._first["decided_at"] > 0:
            own = self._first
        self.round, self.decided_at = own["round"], own["decided_at"]
        if own["changes"] != self.changes:
            self.changes, old = own["changes"], self.trainer
            self.plan = changed(self.common, self.changes)
            self.trainer = trainer_for(self.plan)(self.plan, old.policy, old.dataset)
        self.trainer.policy = Policy.from_json(own["policy"])
        super().load(state)


def changed(plan: Plan, changes: Mapping[str, Any]) -> Plan:
    """The plan with other values of some fields."""
    return Plan.model_validate({**plan.model_dump(mode="json"), **changes})
