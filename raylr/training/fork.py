"""The loop of one rank of a fork: it trains as the parent did up to the joint, and under its own plan after it.

The legs before the joint are those of the parent, so a fork may begin at any update: from a checkpoint before it the loop
replays what the parent did, and that is the same to the last bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from raylr.events import Forked, JoinKind, Overridden, event_of_row
from raylr.lr import Policy
from raylr.planning.legs import Leg, leg_at
from raylr.planning.plan import OptimizerPlan, Plan
from raylr.storage import Folder
from raylr.training.data import Dataset
from raylr.training.ddp import trainer_for
from raylr.training.loop import Loop
from raylr.training.membership import Membership, Quorum

# What a plan says of the machines that train, and not of what they compute.
OF_THE_MACHINES = (
    *("device", "workers", "cpus_per_worker", "gpus_per_worker", "backend", "max_failures", "failure_mode", "stall_s"),
    *("checkpoint_keep", "hooks", "recheck", "max_corruptions"),
)


class ForkLoop(Loop):
    """One rank's part of a fork. `legs` are those before its own plan."""

    def __init__(
        self,
        plan: Plan,
        policy: Policy,
        legs: Sequence[Leg],
        dataset: Dataset,
        membership: Membership,
        folder: Folder,
    ) -> None:
        machines = {name: getattr(plan, name) for name in OF_THE_MACHINES}
        self.legs = tuple(legs)
        found = [event_of_row(row) for leg in legs for row in leg.by_hand]
        self.by_hand = [event for event in found if isinstance(event, Overridden)]
        self.parts = [(leg.plan.model_copy(update=machines), leg.policy) for leg in legs] + [(plan, policy)]
        self.number = 0
        first, its_policy = self.parts[0]
        super().__init__(trainer_for(first)(first, its_policy, dataset), membership, folder)

    def _advance(self, quorum: Quorum) -> str | None:
        """As every loop, but at the end of a leg go on under the next one first."""
        self.go_on_in_leg()
        return super()._advance(quorum)

    def go_on_in_leg(self) -> None:
        """Do what the legs ask for at this position: go on in the next one, and set on the LR what a user set there."""
        position = self.trainer.position
        while self.number < leg_at(self.legs, position):
            self.join_next_leg()
        for event in self.by_hand:
            if event.position == position:
                self.set_by_hand(event)

    def set_by_hand(self, event: Overridden) -> None:
        """Set on the LR what a user set there, unless it is set."""
        if not set(event.entries()) <= set(self.trainer.policy.overrides):
            self.trainer.policy = self.trainer.policy.with_overrides(*event.entries())
            self._note(replace(event, time=self._now()[0]))

    def join_next_leg(self) -> None:
        """Go on under the next plan and policy with this state; what was set on the LR still holds."""
        self._write_row()
        position, state, old = self.trainer.position, self.state(), self.parts[self.number][0]
        self._change_to(self.number + 1)
        plan, policy = self.parts[self.number]
        owners = self.trainer.owners()
        state = {**state, "leg": self.number, "optimizers": carried(state["optimizers"], old, plan, owners)}
        if "optimizers" in (snapshot := state["guard"]["snapshot"]):
            snapshot = {**snapshot, "optimizers": carried(snapshot["optimizers"], old, plan, owners)}
            state["guard"] = {**state["guard"], "snapshot": snapshot}
        self.load(state)
        joint = [entry for entry in policy.overrides if entry.position >= position]
        self.trainer.policy = self.trainer.policy.with_overrides(*joint)
        if (parent := plan.parent) is not None:
            self._note(Forked(*self._now(), parent.run, parent.step, parent.changes))

    def _take_over(self, quorum: Quorum, cause: JoinKind) -> None:
        """As every loop, but a fork that begins with its parent's checkpoint has not been restarted."""
        kinds = {row["kind"] for row in self.folder.read_rows("events.jsonl")} if self._writes(quorum) else set()
        super()._take_over(quorum, "start" if cause == "restart" and not kinds & set(get_args(JoinKind)) else cause)

    def _change_to(self, number: int) -> None:
        """Build the trainer of another leg, without a state yet."""
        dataset, self.number = self.trainer.dataset, number
        self.plan, policy = self.parts[number]
        self.trainer = trainer_for(self.plan)(self.plan, policy, dataset)
        self.checkpoints.keep = self.plan.checkpoint_keep

    def state(self) -> dict[str, Any]:
        """The run's state, and in which leg it is: at a joint there are two."""
        return {**super().state(), "leg": self.number}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` gave, in a trainer of its leg. A run that was no fork had the first leg alone."""
        if state.get("leg", 0) != self.number:
            self._change_to(state.get("leg", 0))
        super().load(state)


def carried(
    state: Mapping[str, Mapping[str, Any]], old: Plan, new: Plan, owners: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The optimizers' state under another plan: what a parameter had stays where the same algorithm still drives it.

    `owners` names the new optimizer of each parameter that trains. An algorithm that takes one over begins anew with it.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in new.optimizers}
    for name, parameters in state.items():
        for parameter, values in parameters.items():
            owner = owners.get(parameter, "")
            if owner and _keeps(new.optimizers[owner]) == _keeps(old.optimizers[name]):
                found[owner][parameter] = values
    return found


def _keeps(optimizer: OptimizerPlan) -> tuple[str, bool, bool, dict[str, Any]]:
    """What decides which tensors an optimizer keeps for a parameter; of an option that is a number, whether it is 0."""
    options = {name: value if isinstance(value, str) else bool(value) for name, value in optimizer.options.items()}
    return optimizer.kind, optimizer.amsgrad, optimizer.momentum > 0, options
