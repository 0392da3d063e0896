"""What runs in a Ray Train worker of a population: a seat in the group of its trial, and the trial's loop."""

import json
import warnings
from typing import Any

import ray
import ray.train

from raylr.config import DataConfig
from raylr.lr import Policy
from raylr.run_plan import Plan
from raylr.running.population.hub import HubOf
from raylr.running.worker import RaySeat
from raylr.storage import run_folder
from raylr.training.data import load, prepare
from raylr.training.trial import TrialLoop


class TrialSeat(RaySeat):
    """A rank's place in its trial: ranks are dealt to the trials in order, as many to each."""

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
    """Train one trial's share. `config` holds plain data and the hubs' handle."""
    plan = Plan.model_validate(config["plan"])
    trial = config["trials"][ray.train.get_context().get_world_rank() // plan.workers[1]]
    seat = TrialSeat(config["hubs"], trial["name"], plan)
    warnings.showwarning = lambda message, *_, **__: seat.publish(
        {"kind": "warning", "text": str(message), "rank": seat.rank}
    )
    data = DataConfig.model_validate(config["data"])
    prepare(data)
    policy = Policy.from_json(json.dumps(trial["policy"]))
    folder = run_folder(config["storage"], trial["name"])
    return TrialLoop(plan, trial["changes"], policy, load(data), seat, folder, seat).run()
