"""What runs in a Ray Train worker of a population: its membership in the group of its trial, and the trial's loop."""

import json
from typing import Any

import ray
import ray.train

from raylr.config import DataConfig
from raylr.errors import RaylrError
from raylr.events import Copied, Decision, News, OfTrial, TrialReport
from raylr.lr import Policy
from raylr.planning.plan import Plan
from raylr.running.population.hub import HubOf
from raylr.running.priority import restore_priority
from raylr.running.worker import RayMembership, other_data
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

    def publish(self, news: News | TrialReport) -> None:
        self.hubs.add.remote(OfTrial(self.trial, news))

    def report(self, news: TrialReport | Copied) -> None:
        self.publish(news)

    def decision(self, number: int) -> Decision:
        decision: Decision = ray.get(self.hubs.decision.remote(self.trial, number))
        return decision


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Train this rank's share of one trial after the other. `config` holds plain data and the hubs' handle."""
    restore_priority()
    plan, hubs = Plan.model_validate(config["plan"]), config["hubs"]
    slot = ray.train.get_context().get_world_rank() // plan.workers[1]
    data = DataConfig.model_validate(config["data"])
    different = other_data(plan, prepare(data), ray.util.get_node_ip_address())
    if different is not None:
        raise RaylrError(different)
    dataset, turn, result = load(data), 0, dict[str, Any]()
    while (trial := ray.get(hubs.turn.remote(slot, turn))) is not None:
        membership = TrialMembership(hubs, trial["name"], plan)
        membership.publish_warnings()
        policy = Policy.from_json(json.dumps(trial["policy"]))
        folder = run_folder(config["storage"], trial["name"])
        result = TrialLoop(
            plan, trial["changes"], policy, dataset, membership, folder, membership, trial["round"]
        ).run()
        turn += 1
    return result
