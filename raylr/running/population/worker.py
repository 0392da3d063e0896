"""What runs in a Ray Train worker of a population: its membership in the group of its trial, and the trial's loop."""

import json
import warnings
from typing import Any

import ray
import ray.train

from raylr.config import DataConfig
from raylr.lr import Policy
from raylr.planning.plan import Plan
from raylr.running.population.hub import HubOf
from raylr.running.priority import restore_priority
from raylr.running.worker import RayMembership
from raylr.storage import run_folder
from raylr.training.data import load, prepare
from raylr.training.trial import TrialLoop


class TrialMembership(RayMembership):
    """A rank's membership of its trial: ranks are dealt to the trials in order, as many to each."""

    def __init__(self, hubs: Any, trial: str, plan: Plan) -> None:
        super().__init__(HubOf(hubs, trial), plan)
        self.hubs, self.trial = hubs, trial
        self.world_size = plan.workers[1]
        self.rank %= self.world_size

    def report(self, row: dict[str, Any]) -> None:
        self.publish(row)

    def decision(self, number: int) -> dict[str, Any]:
        decision: dict[str, Any] = ray.get(self.hubs.decision.remote(self.trial, number))
        return decision


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Train this rank's share of one trial after the other. `config` holds plain data and the hubs' handle."""
    restore_priority()
    plan, hubs = Plan.model_validate(config["plan"]), config["hubs"]
    seat_number = ray.train.get_context().get_world_rank() // plan.workers[1]
    data = DataConfig.model_validate(config["data"])
    prepare(data)
    dataset, turn, result = load(data), 0, dict[str, Any]()
    while (trial := ray.get(hubs.turn.remote(seat_number, turn))) is not None:
        membership = TrialMembership(hubs, trial["name"], plan)
        warnings.showwarning = lambda message, *_, membership=membership, **__: membership.publish(
            {"kind": "warning", "text": str(message), "rank": membership.rank}
        )
        policy = Policy.from_json(json.dumps(trial["policy"]))
        folder = run_folder(config["storage"], trial["name"])
        result = TrialLoop(
            plan, trial["changes"], policy, dataset, membership, folder, membership, trial["round"]
        ).run()
        turn += 1
    return result
