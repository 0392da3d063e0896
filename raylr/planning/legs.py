"""The legs of a run: a fork went under another plan and policy before its joint than after it.

A run that is no fork has one leg. A fork keeps those of its parent in `legs.json`, so it can be read, and go on, without the
parent. Which leg an update belongs to follows from its position alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from raylr.lr import Policy
from raylr.planning.loop_plan import AnyPlan, plan_in, plan_of
from raylr.storage import Folder

LEGS = "legs.json"


@dataclass(frozen=True)
class Leg:
    """What the run `run` trained under before the position `until`.

    `by_hand` are the rows of its events for what a user set on the LR there.
    """

    run: str
    until: int
    plan: Any  # a Plan; a LoopPlan where the run is a loop of one's own
    policy: Policy
    by_hand: tuple[Mapping[str, Any], ...] = ()

    def data(self) -> dict[str, Any]:
        plan = self.plan.model_dump(mode="json", exclude={"story", "warnings"})
        policy = json.loads(self.policy.to_json())
        by_hand = [dict(row) for row in self.by_hand]
        return {"run": self.run, "until": self.until, "plan": plan, "policy": policy, "by_hand": by_hand}

    @classmethod
    def of_data(cls, data: dict[str, Any]) -> Self:
        """The leg that `data` gave."""
        policy = Policy.from_json(json.dumps(data["policy"]))
        return cls(data["run"], data["until"], plan_of(data["plan"]), policy, tuple(data["by_hand"]))


def legs_of(folder: Folder) -> tuple[Leg, ...]:
    """The legs of a run before its own plan, oldest first; none for a run that is no fork."""
    return tuple(map(Leg.of_data, folder.read_json(LEGS))) if folder.exists(LEGS) else ()


def leg_at(legs: Sequence[Leg], position: int) -> int:
    """The number of the leg of the update at `position`, which after all `legs` is that of the run's own plan.

    >>> leg_at([], 5)
    0
    """
    return sum(leg.until <= position for leg in legs)


def own_policy(folder: Folder) -> Policy:
    """The policy under which a run ends."""
    return Policy.from_json(folder.read_bytes("policy.json").decode())


def policy_at(folder: Folder, position: int) -> Policy:
    """The policy of a run's leg at `position`, as it began there."""
    legs = legs_of(folder)
    number = leg_at(legs, position)
    return legs[number].policy if number < len(legs) else own_policy(folder)


def plan_at(folder: Folder, position: int) -> AnyPlan:
    """The plan of a run's leg at `position`."""
    legs = legs_of(folder)
    number = leg_at(legs, position)
    return legs[number].plan if number < len(legs) else plan_in(folder)
